#!/usr/bin/python3
"""Runs the program over a grid of flags, here or as Slurm job arrays, and gathers one table.

    scripts/sweep.py EXPERIMENT.json [--folder DIR] [--program P] [--dry-run] [--jobs N] [--slurm] [...]

Every point has a folder of its own in DIR/points, named by the digest of all that decides its result: flags, the files that
flags name, version and commit of the program. So a sweep that was interrupted, in whatever way, goes on where it was: what
is finished is recognised and skipped. scripts/README.md describes the experiment's format.

Exit codes: 0 all points are finished; 1 some have failed, and are listed; 2 a fault of the experiment or of a flag; 4 the
machine's; 130, 143 a signal: all that was finished is gathered.
"""
import argparse
import concurrent.futures
import csv
import hashlib
import itertools
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# A point that ended so would end so again: the input is at fault, or the schedule.
FINAL_CODES = (2, 3)
DEFAULT_COLUMNS = ["chips", "tp", "pp", "micro_batch", "users", "context", "token_latency_us", "initiation_interval_cycles",
                   "tokens_per_second_per_user", "tokens_per_second", "sram_bytes_used_max", "fingerprint"]


class InputFault(Exception):
    """One line, exit code 2."""


class Stop(Exception):
    """A signal asks for the end."""


# ---- the experiment

def fail(where, found, expected):
    raise InputFault(f"{where}: found {found}; expected {expected}")


def short(value):
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def load_experiment(path):
    try:
        with open(path, encoding="utf-8") as file:
            experiment = json.load(file)
    except OSError as error:
        fail(path, f'"{error.strerror}"', "an experiment, a JSON file")
    except (ValueError, UnicodeDecodeError) as error:
        place = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        fail(path + place, getattr(error, "msg", "bytes that are no UTF-8"), "JSON")
    if not isinstance(experiment, dict):
        fail(path, short(experiment), "an object")
    known = {"name", "description", "verb", "flags", "grid", "cases", "columns", "ranks"}
    for key in experiment:
        if key not in known:
            fail(f"{path}:{key}", "an unknown field", "one of " + ", ".join(sorted(known)))
    for key in ("name", "verb", "grid"):
        if key not in experiment:
            fail(f"{path}:{key}", "no such field", "one" if key == "grid" else "a word")
    for key in ("name", "verb"):
        if not isinstance(experiment[key], str) or not experiment[key]:
            fail(f"{path}:{key}", short(experiment[key]), "a word")
    for key, kind, words in (("flags", dict, "an object: flag and value"), ("grid", dict, "an object: flag and list of values"),
                             ("cases", list, "a list of objects: flag and value"), ("columns", list, "a list of words"),
                             ("description", str, "a text")):
        if not isinstance(experiment.get(key, kind()), kind):
            fail(f"{path}:{key}", short(experiment[key]), words)
    ranks = experiment.get("ranks", 0)
    if isinstance(ranks, bool) or not isinstance(ranks, int) or not 0 <= ranks <= 100000:
        fail(f"{path}:ranks", short(ranks), "a whole number from 0 (no MPI) to 100000")
    for column in experiment.get("columns", []):
        if not isinstance(column, str) or not column:
            fail(f"{path}:columns", short(column), "keys of the program's result, such as occupancy.mxm")
    check_flags(f"{path}:flags", experiment.get("flags", {}))
    for number, case in enumerate(experiment.get("cases", [])):
        if not isinstance(case, dict):
            fail(f"{path}:cases[{number}]", short(case), "an object: flag and value")
        check_flags(f"{path}:cases[{number}]", case)
    for flag, values in experiment["grid"].items():
        where = f"{path}:grid.{flag}"
        if not isinstance(values, list) or not values:
            fail(where, short(values), "a list of values")
        check_flags(where, {flag: None}, is_grid=True)
        for value in values:
            check_value(where, value)
    return experiment


def check_value(where, value):
    if not isinstance(value, (str, int, float, bool)):
        fail(where, short(value), "a word, a number, true (a switch) or false (without it)")


def check_flags(where, flags, is_grid=False):
    for flag, value in flags.items():
        if not flag or flag.startswith("-") or (" " in flag and not flag.startswith("set ")):
            fail(where, short(flag), 'a flag without dashes, or "set PATH"')
        if flag in ("json", "quiet", "save-state", "resume", "output-dir", "help", "version", "print-config", "log-level"):
            fail(where, short(flag), "a flag that decides the result (the sweep sets the others)")
        if not is_grid:
            check_value(f"{where}.{flag}", value)


# ---- its points

def arguments_of(verb, flags):
    out = [verb]
    for flag, value in flags.items():
        if flag.startswith("set "):
            out += ["--set", f"{flag[4:]}={value}"]
        elif value is True:
            out.append(f"--{flag}")
        elif value is not False:
            out += [f"--{flag}", str(value)]
    return out + ["--json", "--quiet"]


def digest_of_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of_files(flags, known):
    """Of the files, and of the files in the folders, that values name."""
    out = {}
    for value in sorted({str(value) for value in flags.values()}):
        if value not in known:
            if os.path.isfile(value):
                known[value] = digest_of_file(value)
            elif os.path.isdir(value):
                known[value] = {name: digest_of_file(os.path.join(value, name)) for name in sorted(os.listdir(value))
                                if os.path.isfile(os.path.join(value, name))}
            else:
                known[value] = None
        if known[value] is not None:
            out[value] = known[value]
    return out


class Point:
    """One call of the program."""

    def __init__(self, number, axes, arguments, digest, folder):
        self.number = number
        self.axes = axes  # what tells it from the others
        self.arguments = arguments
        self.digest = digest
        self.folder = folder
        self.attempts = 0  # in this call of the script

    def path(self, name):
        return os.path.join(self.folder, name)

    def prepare(self):
        os.makedirs(self.folder, exist_ok=True)
        write(self.path("arguments"), "".join(argument + "\n" for argument in self.arguments))

    def text(self, name):
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def exit_code(self):
        """None: it has not ended."""
        try:
            return int(self.text("exit_code"))
        except ValueError:
            return None

    def result(self):
        """The object that the program printed, that the model does not fit included; None: it is not finished."""
        code = self.exit_code()
        if code not in (0, 2):
            return None
        try:
            result = json.loads(self.text("stdout"))
        except ValueError:
            return None
        if not isinstance(result, dict):
            return None
        is_whole = not result.get("partial", False) if code == 0 else result.get("fits") is False
        return result if is_whole else None

    def is_finished(self):
        return self.result() is not None

    def has_failed_for_good(self):
        return self.exit_code() in FINAL_CODES

    def complaint(self):
        lines = self.text("stderr").strip().splitlines()
        return lines[-1] if lines else "nothing on stderr"


def expand(experiment, program_version, folder):
    grid = experiment["grid"]
    known = {}
    points = []
    for case in experiment.get("cases", [{}]) or [{}]:
        for values in itertools.product(*grid.values()):
            axes = {**case, **dict(zip(grid, values))}
            flags = {**experiment.get("flags", {}), **axes}
            arguments = arguments_of(experiment["verb"], flags)
            content = {"arguments": arguments, "files": digest_of_files(flags, known), "program": program_version}
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
            points.append(Point(len(points), axes, arguments, digest, os.path.join(folder, "points", digest)))
    seen = {}
    for point in points:
        if point.digest in seen:
            raise InputFault(f"{experiment['name']}: found the same point twice, {' '.join(point.arguments)}; expected each once")
        seen[point.digest] = point
    return points


# ---- tables

def write(path, text):
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def pick(result, column):
    for key in column.split("."):
        result = result.get(key) if isinstance(result, dict) else None
    return json.dumps(result, sort_keys=True) if isinstance(result, (dict, list)) else result


def gather(experiment, points, folder):
    """sweep.csv and sweep.sqlite: a row a point, in the order of the grid."""
    axes = list(dict.fromkeys(axis for point in points for axis in point.axes))
    columns = experiment.get("columns") or [column for column in DEFAULT_COLUMNS if column not in axes]
    # What was asked for and what the program made of it ("saturating", and how many users that were) are two columns.
    shown = [f"{column} (result)" if column in axes else column for column in columns]
    header = ["number", *axes, "status", *shown, "error", "digest"]
    rows = []
    for point in points:
        result = point.result()
        code = point.exit_code()
        status = "failed" if code is not None else "open"
        if result is not None:
            status = "does not fit" if result.get("fits") is False else "finished"
        error = f"exit code {code}: {point.complaint()}" if status == "failed" else ""
        rows.append([point.number, *[point.axes.get(axis) for axis in axes], status,
                     *[pick(result or {}, column) for column in columns], error, point.digest])
    table = os.path.join(folder, "sweep.csv")
    with open(table + ".tmp", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([header, *rows])
    os.replace(table + ".tmp", table)

    base = os.path.join(folder, "sweep.sqlite")
    if os.path.exists(base + ".tmp"):
        os.remove(base + ".tmp")
    connection = sqlite3.connect(base + ".tmp")
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in header)
    connection.execute(f"CREATE TABLE points ({names}, PRIMARY KEY (digest))")
    connection.execute("CREATE TABLE results (digest PRIMARY KEY, arguments TEXT, result TEXT)")
    connection.executemany(f"INSERT INTO points VALUES ({', '.join('?' * len(header))})", rows)
    connection.executemany("INSERT INTO results VALUES (?, ?, ?)", [
        (point.digest, shlex.join(point.arguments), point.text("stdout")) for point in points if point.is_finished()])
    connection.commit()
    connection.close()
    os.replace(base + ".tmp", base)
    return rows


class Progress:
    """A line every few seconds, and for every point that ends."""

    def __init__(self, points, quiet):
        self.points = points
        self.quiet = quiet
        self.begin = time.monotonic()
        self.finished_before = sum(point.is_finished() for point in points)
        self.last = ""

    def show(self):
        done = sum(point.is_finished() for point in self.points)
        failed = sum(point.exit_code() is not None for point in self.points) - done
        text = f"sweep: {done} of {len(self.points)} finished"
        text += f", {failed} failed" if failed else ""
        here = done - self.finished_before
        if here > 0 and done < len(self.points):
            text += f", {(time.monotonic() - self.begin) / here * (len(self.points) - done):.0f} s left"
        if text != self.last and not self.quiet:
            print(text, file=sys.stderr, flush=True)
        self.last = text


# ---- running here

def mpi_environment():
    out = {**os.environ, "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
           "OMPI_MCA_orte_execute_quiet": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
           "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    if os.geteuid() == 0:
        out.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return out


class Local:
    """Points as processes of this machine."""

    def __init__(self, options, ranks):
        self.command = [*(shlex.split(options.mpirun) + ["-np", str(ranks)] if ranks else []), options.program]
        self.jobs = options.jobs
        self.running = set()
        self.lock = threading.Lock()
        self.is_over = False

    def rounds(self, retries):
        return 1 + retries

    def run_point(self, point):
        with self.lock:
            if self.is_over:
                return
            point.prepare()
            outputs = [point.path(f"{name}.{os.getpid()}.tmp") for name in ("stdout", "stderr")]
            with open(outputs[0], "wb") as stdout, open(outputs[1], "wb") as stderr:
                process = subprocess.Popen([*self.command, *point.arguments], stdout=stdout, stderr=stderr,
                                           stdin=subprocess.DEVNULL, env=mpi_environment())
            self.running.add(process)
        code = process.wait()
        with self.lock:
            self.running.discard(process)
        if self.is_over:  # a point that was ended with the sweep has not failed
            for path in outputs:
                os.remove(path)
            return
        os.replace(outputs[0], point.path("stdout"))
        os.replace(outputs[1], point.path("stderr"))
        write(point.path("exit_code"), f"{code if code >= 0 else 128 - code}\n")

    def run(self, points, progress):
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self.run_point, point) for point in points]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
                    progress.show()
            except BaseException:
                self.end()
                for future in futures:
                    future.cancel()
                raise

    def end(self):
        with self.lock:
            self.is_over = True
            for process in self.running:
                process.terminate()


# ---- running under Slurm

class Slurm:
    """Points as tasks of a job array; several sweeps, and several arrays of one, do not know of each other."""

    def __init__(self, options, ranks, folder):
        self.options = options
        self.ranks = ranks
        self.folder = folder

    def sh(self, *command):
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise EnvironmentError(f"{command[0]}: {error.strerror}") from error
        if result.returncode != 0:
            raise EnvironmentError(f"{command[0]}: {result.stderr.strip().splitlines()[-1:] or ['no reason given']}")
        return result.stdout.strip()

    def rounds(self, retries):
        return 1 + retries + (1 if self.job_before() else 0)

    def run(self, points, progress):
        job = self.job_before()
        if job:  # of a call that was interrupted; what it leaves is for the next round
            self.wait_for(job, progress)
        else:
            self.wait_for(self.submit(points), progress)
            for point in points:
                if point.exit_code() is None:  # its node was lost, or it was cancelled
                    write(point.path("stderr"), "its job ended without an exit code\n")
                    write(point.path("exit_code"), "137\n")

    def job_before(self):
        try:
            with open(os.path.join(self.folder, "job"), encoding="utf-8") as file:
                job = file.read().strip()
        except OSError:
            return None
        return job if job and self.is_queued(job) else None

    def submit(self, points):
        for point in points:
            point.prepare()
            if os.path.exists(point.path("exit_code")):
                os.remove(point.path("exit_code"))
        listed = os.path.join(self.folder, f"array-{int(time.time() * 1000)}")
        write(listed, "".join(point.folder + "\n" for point in points))
        parameters = {"SCRIPTS": os.path.join(HERE, "slurm"), "PROGRAM": self.options.program, "LIST": listed,
                      "LAUNCH": self.options.launch if self.ranks else "none"}
        job = self.sh("sbatch", "--parsable", f"--array=0-{len(points) - 1}%{self.options.jobs}",
                      f"--ntasks={max(self.ranks, 1)}", "--chdir", os.getcwd(),
                      "--export=ALL," + ",".join(f"{key}={value}" for key, value in parameters.items()),
                      *shlex.split(self.options.sbatch), os.path.join(HERE, "slurm", "array.sbatch")).split(";")[0]
        write(os.path.join(self.folder, "job"), job + "\n")
        if not self.options.quiet:
            print(f"sweep: job array {job}, {len(points)} points", file=sys.stderr, flush=True)
        return job

    def wait_for(self, job, progress):
        while self.is_queued(job):
            progress.show()
            time.sleep(self.options.poll)
        progress.show()

    def is_queued(self, job):
        """Slurm forgets jobs that ended a while ago, and then says so."""
        try:
            states = self.sh("squeue", "--noheader", "--array", "--format=%T", "--states=all", f"--jobs={job}").split()
        except EnvironmentError as error:
            if "Invalid job id" in str(error):
                return False
            raise
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED"}
        return any(state not in over for state in states)

    def end(self):
        """The array goes on without this script; the next call finds what it has finished."""


# ---- the sweep

def run_sweep(points, runner, progress, retries):
    """Points that failed by themselves are tried again; those of others wait for the next round."""
    progress.show()
    for attempt in range(runner.rounds(retries)):
        left = [point for point in points if not point.is_finished() and not (attempt and point.has_failed_for_good())]
        if not left:
            return
        if attempt and not progress.quiet:
            for point in left:
                print(f"sweep: point {point.number}, exit code {point.exit_code()}: again: {point.complaint()}", file=sys.stderr)
        runner.run(left, progress)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputFault(f"command line: {message}; expected flags of sweep.py --help")


def parse(words):
    parser = Parser(description=__doc__.splitlines()[0], epilog="scripts/README.md says more.", allow_abbrev=False)
    parser.add_argument("experiment", help="JSON file, such as scripts/experiments/scaling_curve.json")
    parser.add_argument("--folder", help="where results go; default: sweep-NAME")
    parser.add_argument("--program", help="lpu_cluster; default: build/release, else build/ci, else on PATH")
    parser.add_argument("--dry-run", action="store_true", help="list the points, run none")
    parser.add_argument("--jobs", type=int, default=1, help="points that run at once; default: 1")
    parser.add_argument("--retries", type=int, default=2, help="times that a failed point is tried again; default: 2")
    parser.add_argument("--ranks", type=int, help="MPI ranks of a point; 0: none; default: the experiment's, else 0")
    parser.add_argument("--mpirun", default="mpirun --oversubscribe -q", help="default: %(default)s")
    parser.add_argument("--slurm", action="store_true", help="submit job arrays, wait for them and gather")
    parser.add_argument("--launch", choices=("srun", "mpirun"), default="srun", help="ranks under Slurm; default: srun")
    parser.add_argument("--sbatch", default="", help='more options of sbatch: --sbatch="--time=30 --partition=short"')
    parser.add_argument("--poll", type=float, default=5, help="seconds between looks at the queue; default: 5")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(words)
    for flag, low in (("jobs", 1), ("retries", 0)):
        if getattr(options, flag) < low:
            raise InputFault(f"--{flag}: found {getattr(options, flag)}; expected {low} or more")
    return options


def find_program(asked):
    if asked:
        candidates = [asked]
    else:
        on_path = [os.path.join(folder, "lpu_cluster") for folder in os.environ.get("PATH", "").split(":") if folder]
        candidates = [os.path.join(ROOT, "build", preset, "bin", "lpu_cluster") for preset in ("release", "ci")] + on_path
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return os.path.abspath(candidate)
    raise InputFault(f"--program: found no program{' at ' + asked if asked else ''}; expected lpu_cluster, built or installed")


def version_of(program):
    try:
        result = subprocess.run([program, "--version", "--json"], capture_output=True, text=True, timeout=60, check=True)
        told = json.loads(result.stdout)
        return {"version": told["version"], "commit": told["commit"]}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise InputFault(f"--program: found {program}, which tells no version; expected lpu_cluster") from error


def main(words):
    options = parse(words)
    experiment = load_experiment(options.experiment)
    options.program = find_program(options.program)
    ranks = experiment.get("ranks", 0) if options.ranks is None else options.ranks
    folder = os.path.abspath(options.folder or f"sweep-{experiment['name']}")
    points = expand(experiment, version_of(options.program), folder)
    if options.dry_run:
        for point in points:
            print(f"{point.number:4} {'finished' if point.is_finished() else 'to run  '} {shlex.join(point.arguments)}")
        print(f"{len(points)} points, {sum(point.is_finished() for point in points)} finished")
        return 0
    os.makedirs(folder, exist_ok=True)
    progress = Progress(points, options.quiet)
    runner = Slurm(options, ranks, folder) if options.slurm else Local(options, ranks)

    def stop(number, _):
        raise Stop(number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = 0
    try:
        run_sweep(points, runner, progress, options.retries)
    except Stop as stopped:
        runner.end()
        code = 128 + stopped.args[0]
    rows = gather(experiment, points, folder)
    failed = [point for point in points if not point.is_finished() and point.exit_code() is not None]
    for point in failed:
        print(f"sweep: point {point.number} failed, exit code {point.exit_code()}: {shlex.join(point.arguments)}: "
              f"{point.complaint()}", file=sys.stderr)
    print(f"{len(rows)} points, {sum(point.is_finished() for point in points)} finished, {len(failed)} failed: "
          f"{os.path.relpath(os.path.join(folder, 'sweep.csv'))}")
    return code or (1 if failed else 0)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputFault as fault:
        print(f"sweep.py: {fault}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"sweep.py: {error.filename + ': ' if error.filename else ''}{error.strerror or error}", file=sys.stderr)
        sys.exit(4)
