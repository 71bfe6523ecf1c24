"""Starts the program under mpirun as a user does; shared by the scripts of this folder.

Arguments of a script: the program, then the mpirun command, words separated by spaces.
"""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from program import Checks  # noqa: E402  pylint: disable=wrong-import-position

SMALL = {
    "model_type": "llama", "hidden_size": 1280, "num_hidden_layers": 4, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 2560, "vocab_size": 4096,
    "max_position_embeddings": 1024, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
}
MPIRUN = sys.argv[2].split()


def wait_for_words(process, path, words):
    """Until a process has written the words to its file, or ended; a minute at most."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None:
        with open(path, encoding="utf-8") as said:
            if words in said.read():
                return
        time.sleep(0.02)


def mpirun_command(ranks, program, *arguments):
    return [*MPIRUN, "-np", str(ranks), program, *arguments]


class RankChecks(Checks):
    """Checks of a small model, TP 4 x PP 4 on 16 chips, that any number of ranks may run."""

    def __init__(self, users=1):
        super().__init__()
        os.mkdir("small")
        with open("small/config.json", "w", encoding="utf-8") as file:
            json.dump(SMALL, file)
        self.expect(["compile", "--model", "small", "--chips", "16", "--tp", "4", "--pp", "4", "--context", "128",
                     "--users", str(users), "-o", "small.lpuprog"], 0)

    def command(self, ranks, *arguments):
        return mpirun_command(ranks, self.program, "run", *arguments)

    def start(self, ranks, *arguments, stderr):
        return subprocess.Popen(self.command(ranks, *arguments), stdout=subprocess.PIPE, stderr=stderr, text=True,
                                stdin=subprocess.DEVNULL)

    def run_ranks(self, ranks, *arguments, timeout=100, environment=None):
        """Exit code, stdout, stderr, seconds."""
        begin = time.monotonic()
        result = subprocess.run(self.command(ranks, *arguments), capture_output=True, text=True, timeout=timeout,
                                stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
        return result.returncode, result.stdout, result.stderr, time.monotonic() - begin

    def result(self, ranks, *arguments, **keywords):
        """The JSON object that a run on so many ranks prints."""
        code, stdout, stderr, _ = self.run_ranks(ranks, *arguments, "--json", **keywords)
        self.check(code == 0, f"np {ranks} {arguments}: exit code {code}: {stderr}")
        try:
            return json.loads(stdout)
        except ValueError:
            self.check(False, f"np {ranks} {arguments}: not JSON: {stdout[:200]}")
            return {}


def children(pid):
    """Process ids of a process's children, in the order in which they were started."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return [int(word) for word in file.read().split()]


def rank_pids(mpirun, ranks, timeout=30):
    """Process ids of all ranks, by rank, once they all run."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = {}
        for pid in children(mpirun.pid):
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    words = dict(word.split(b"=", 1) for word in file.read().split(b"\0") if b"=" in word)
                found[int(words[b"OMPI_COMM_WORLD_RANK"])] = pid
            except (OSError, KeyError):
                pass
        if len(found) == ranks:
            return [found[rank] for rank in range(ranks)]
        time.sleep(0.02)
    raise TimeoutError("the ranks did not start")


def is_running(pid):
    """A process that has ended and that nobody has asked about yet does not run."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


__all__ = ["RankChecks", "children", "is_running", "json", "mpirun_command", "os", "rank_pids", "signal", "subprocess", "sys", "time"]
