#!/usr/bin/python3
"""The Debian package, the man page and the completion: made from the tables behind --help, whole, and working.

package.py PROGRAM BUILD_FOLDER PROJECT_FOLDER
"""
import glob
import os
import pty
import re
import shutil
import subprocess
import sys

from program import Checks

build, source = (os.path.abspath(path) for path in sys.argv[2:4])
checks = Checks()
MAN = os.path.join(build, "share", "man", "man1", "lpu_cluster.1")
COMPLETION = os.path.join(build, "share", "bash-completion", "completions", "lpu_cluster")
VERBS = re.findall(r"^  (\w+)  ", checks.run("--help").stdout.split("verbs:\n")[1].split("\n\n")[0], re.MULTILINE)
checks.check(len(VERBS) == 11, f"verbs of --help: {VERBS}")


def call(*command, **keywords):
    return subprocess.run(command, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, check=False, **keywords)


# ---- the man page renders without a warning, and says what --help says
wide = {**os.environ, "MANWIDTH": "1000", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"}
if shutil.which("man"):
    shown = call("man", "--warnings", "-l", MAN, env=wide)
    checks.check(shown.returncode == 0 and shown.stderr == "", f"man --warnings: {shown.stderr}")
    page = " ".join(shown.stdout.split())
    with open(os.path.join(source, "README.md"), encoding="utf-8") as readme:
        codes = re.findall(r"^\| ([0-9, ]+) \| (.*) \|$", readme.read(), re.MULTILINE)
    checks.check(len(codes) == 7, f"exit codes of the README: {codes}")
    for code, when in codes:
        checks.check(f"{code} {when.replace('`', '')}." in page, f"exit code {code} in the man page: {when}")
    for verb in VERBS:
        text = checks.run(verb, "--help").stdout
        for line in text.split("flags:\n")[1].split("\n\nexamples:")[0].splitlines():
            words = re.sub(r"^  --[\w-]+( [A-Z]\S*)?\s+|^ +", "", line)
            checks.check(" ".join(words.split()) in page, f"{verb}: in --help, not in the man page: {words}")
        for example in text.split("examples:\n")[1].splitlines():
            checks.check(" ".join(example.split()) in page, f"{verb}: an example is not in the man page: {example}")
else:
    print("no man here: the page is not rendered")

# ---- the completion, in a real bash
BIN = os.path.dirname(checks.program)


def completed(*words):
    """What bash offers for the last of the words."""
    script = f'. {COMPLETION}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lpu_cluster; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = call("bash", "-c", script, "bash", "lpu_cluster", *words, env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    checks.check(done.stderr == "", f"completion of {words}: {done.stderr}")
    return done.stdout.split()


checks.check(call("bash", "-c", f". {COMPLETION}; complete -p lpu_cluster").stdout == "complete -F _lpu_cluster lpu_cluster\n",
             "the completion is installed")
checks.check(set(VERBS) <= set(completed("")), "every verb")
checks.check(completed("com") == ["compile", "compare"], f"com: {completed('com')}")
for verb in VERBS:
    flags = re.findall(r"^  (--[\w-]+)", checks.run(verb, "--help").stdout, re.MULTILINE)
    checks.check(completed(verb, "--") == flags, f"flags of {verb}: {completed(verb, '--')}, in --help: {flags}")
checks.check(completed("plan", "--model", "llama-3") == ["llama-3-70b", "llama-3-8b"], "a model's name")
checks.check(completed("plan", "--compute", "") == ["w8a8", "w8a16", "fp16", "fp32ref"], "values of a flag")
checks.check(completed("plan", "--objective", "t") == ["throughput"], "values of a flag")
checks.check(completed("generate", "--checkpoint", "shakespeare-m") == ["shakespeare-mixtral-5m"], "a shipped checkpoint")
checks.check(completed("list", "sys") == ["systems"] and "rack-64" in completed("list", "systems", ""), "what to list")
checks.check(completed("list", "--json", "sys") == ["systems"] and completed("list", "--log-level", "info", "sys") == ["systems"]
             and completed("list", "--log-level", "=", "info", "sys") == ["systems"], "what to list, after flags")
checks.check("rack-64" in completed("list", "--json", "systems", "") and completed("list", "systems", "rack-64", "") == [],
             "a name to list, after flags")
checks.check(completed("plan", "--model", "=", "llama-3") == ["llama-3-70b", "llama-3-8b"]
             and completed("plan", "--compute", "=") == ["w8a8", "w8a16", "fp16", "fp32ref"], "values after =")
checks.check(completed("plan", "--model=llama-3") == ["--model=llama-3-70b", "--model=llama-3-8b"], "values after = in one word")
checks.check(completed("plan", "--explain", "=") == [] and completed("plan", "--set", "link.rate", "=") == [], "no values after =")
with open("here.lpuprog", "w", encoding="utf-8"):
    pass
checks.check(completed("verify", "he") == ["here.lpuprog"] and completed("run", "--program", "he") == ["here.lpuprog"], "a file")

# ---- the same, typed: here bash splits the line
os.makedirs("home/bin", exist_ok=True)
os.symlink(checks.program, "home/bin/lpu_cluster")


def typed(line):
    """The words of a line after Tab at its end, in a bash that has no program of this name in its PATH."""
    master, slave = pty.openpty()
    with subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                          env={"PATH": "/usr/bin:/bin", "HOME": os.path.abspath("home"), "TERM": "dumb"}) as shell:
        os.close(slave)
        # Control-A and Control-E: to the line's begin and end.
        os.write(master, f". {COMPLETION}\n{line}\t\x01printf '<<%s>>' \x05\nexit\n".encode())
        shown = b""
        try:
            while more := os.read(master, 4096):
                shown += more
        except OSError:  # Linux: the other end is closed
            pass
    os.close(master)
    return re.findall(r"<<([^%>]*)>>", shown.decode())


def has_terminals():
    """Containers and chroots may come without pseudo-terminals."""
    try:
        for end in pty.openpty():
            os.close(end)
    except OSError as error:
        print(f"nothing is typed here: {error}")
        return False
    return True


TYPED = [("plan --model=mixtral-8x7", "--model=mixtral-8x7b"), ("plan --kv=in", "--kv=int8"), ("list --json sys", "systems"),
         ("list models mixtral-8x7", "mixtral-8x7b")]
for line, last in TYPED if has_terminals() else []:
    words = typed("~/bin/lpu_cluster " + line)
    checks.check(words[-1:] == [last], f"typed, {line}: {words}")

# ---- the package
if shutil.which("dpkg-shlibdeps"):
    # The package's own copy of cpack's settings: the prefix and folder of this call.
    made = call("cpack", "-G", "DEB", "--config", os.path.join(build, "CPackConfig.cmake"), "-B", "deb",
                "-D", "CPACK_DEBIAN_COMPRESSION_TYPE=gzip")
    packages = glob.glob("deb/*.deb")
    checks.check(made.returncode == 0 and len(packages) == 1, f"cpack: {made.stdout}{made.stderr}")
    for package in packages:
        fields = dict(re.findall(r"^ ?([\w-]+): (.*)$", call("dpkg-deb", "-f", package).stdout, re.MULTILINE))
        checks.check(fields["Package"] == "lpu-cluster" and f"lpu_cluster {fields['Version']}\n" in checks.run("--version").stdout,
                     f"fields: {fields}")
        for needed in ("openmpi-bin", "libopenmpi3", "libboost-json1.81.0", "libstdc++6", "libc6"):
            checks.check(re.search(rf"\b{re.escape(needed)}( |,|$)", fields["Depends"]), f"depends on {needed}: {fields['Depends']}")
        checks.check("python3-matplotlib" in fields["Recommends"], f"recommends: {fields['Recommends']}")
        call("dpkg-deb", "-x", package, "root")
        for path in ("bin/lpu_cluster", "share/man/man1/lpu_cluster.1", "share/bash-completion/completions/lpu_cluster",
                     "share/doc/lpu-cluster/copyright", "share/lpu_cluster/presets/chips/tsp-v1.json",
                     "share/lpu_cluster/models/shakespeare-mixtral-5m/model.safetensors", "share/lpu_cluster/scripts/sweep.py",
                     "share/lpu_cluster/scripts/experiments/scaling_curve.json",
                     "share/lpu_cluster/scripts/schema/results.schema.json", "share/lpu_cluster/scripts/slurm/array.sbatch"):
            checks.check(os.path.getsize(os.path.join("root/usr", path)) > 0, f"in the package: {path}")
        checks.check(not os.path.exists("root/usr/include") and not os.path.exists("root/usr/lib"), "the program alone")
        owners = call("dpkg-deb", "-c", package).stdout.splitlines()
        checks.check(all(line.split()[1] == "root/root" for line in owners), "files are root's")
        done = call("root/usr/bin/lpu_cluster", "plan", "--model", "llama-3-8b", "--output-dir", ".")
        checks.check(done.returncode == 0, f"the packaged program: {done.stderr}")
        drawn = call("root/usr/share/lpu_cluster/scripts/scaling_report.py", os.path.join(source, "tests/e2e/results/one_count/results.json"))
        checks.check(drawn.returncode == 0 and os.path.getsize("report.html") > 0, f"the packaged report: {drawn.stderr}")
        swept = call("root/usr/share/lpu_cluster/scripts/sweep.py", "root/usr/share/lpu_cluster/scripts/experiments/scaling_curve.json",
                     "--dry-run", env={**os.environ, "PATH": f"{os.path.abspath('root/usr/bin')}:{os.environ['PATH']}"})
        checks.check(swept.returncode == 0, f"the packaged sweep: {swept.stderr}")
else:
    print("no dpkg-shlibdeps here: no package is made")
checks.finish()
