#!/usr/bin/python3
"""A README against the program: its commands run, and what it shows is what comes out.

usage: readme.py PROGRAM SOURCE_FOLDER README [--write]

A fence that begins with ```sh is run by bash in a temporary folder that looks like the source folder after a build.
Words behind "sh" say more: `exit=3` (else 0), `time=20` (seconds that it may take; else 60), `outside` (sets up or
builds what is tested here: not run, but its scripts and presets must exist). A ```text fence right behind it is what
stdout and stderr hold together: every line, except where a line `...` stands for any number of them. --write puts
today's figures in.
"""
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field

from program import Checks

FLOORS = ["node", "interconnect", "scheduler", "cluster"]
ANY = "..."
FIGURE = re.compile(r"\b[0-9a-f]{16}\b|[0-9]+(?:[.,][0-9]+)*")
UNIT = re.compile(r"\b(?:ns|us|ms|s|B|kB|MB|GB)\b")


@dataclass
class Block:
    """One command fence of the README, and the lines that it shows as output (None: shows nothing)."""
    script: str
    words: list
    line: int
    shown: list = None
    shown_at: slice = None

    def word(self, name, default):
        return next((int(word[len(name) + 1:]) for word in self.words if word.startswith(name + "=")), default)


@dataclass
class Fences:
    """State of a walk through the lines of a README."""
    blocks: list = field(default_factory=list)
    begin: int = -1
    kind: list = field(default_factory=list)
    may_show: bool = False  # only blank lines since the last command fence


def read_blocks(lines):
    state = Fences()
    for number, line in enumerate(lines):
        if state.begin < 0 and line.startswith("```"):
            state.begin, state.kind = number, line[3:].split()
        elif line.startswith("```"):
            take_fence(state, lines, number)
            state.begin = -1
        elif state.begin < 0 and line.strip():
            state.may_show = False
    return state.blocks


def take_fence(state, lines, end):
    content = slice(state.begin + 1, end)
    if state.kind[:1] == ["sh"]:
        state.blocks.append(Block("\n".join(lines[content]) + "\n", state.kind[1:], state.begin + 1))
    elif state.kind[:1] == ["text"] and state.may_show:
        state.blocks[-1].shown, state.blocks[-1].shown_at = lines[content], content
    state.may_show = state.kind[:1] == ["sh"]


def find(lines, wanted, begin):
    """First place from `begin` on where the lines `wanted` follow each other; -1: none."""
    return next((at for at in range(begin, len(lines) - len(wanted) + 1) if lines[at:at + len(wanted)] == wanted), -1)


def pieces(shown):
    """Runs of lines between the gaps."""
    out = [[]]
    for line in shown:
        if line.strip() == ANY:
            out.append([])
        else:
            out[-1].append(line)
    return out


def mismatch(shown, real):
    """What of `shown` does not come out; None: all of it does, in its order, and nothing between."""
    at = 0
    runs = pieces(shown)
    for index, run in enumerate(runs):
        place = at if index == 0 else find(real, run, at)
        if index + 1 == len(runs) and index > 0:
            place = max(at, len(real) - len(run))
        found = real[place:place + len(run)] if place >= 0 else []
        if found != run:
            wrong = next((i for i, line in enumerate(run) if i >= len(found) or found[i] != line), 0)
            return run[wrong]
        at = place + len(run)
    return None if at == len(real) else f"(the output goes on: {real[at]})"


def skeleton(line):
    return " ".join(UNIT.sub("U", FIGURE.sub("#", line)).split())


def renewed(shown, real):
    """`shown` with today's figures: each line becomes the next real one that differs in figures alone."""
    out = []
    at = 0
    for line in shown:
        if line.strip() == ANY:
            out.append(line)
            continue
        place = next((i for i in range(at, len(real)) if skeleton(real[i]) == skeleton(line)), -1)
        if place < 0:
            return None
        out.append(real[place])
        at = place + 1
    return out


def check_outside(checks, source, block):
    """What only a whole build can run: the scripts and the CMake presets that it names exist."""
    for command in filter(None, (line.split("#")[0].strip() for line in block.script.splitlines())):
        words = command.split()
        preset = re.search(r"--preset (\S+)", command)
        if preset and words[0] in ("cmake", "ctest"):
            listed = subprocess.run(["cmake", "--list-presets=all"], cwd=source, capture_output=True, text=True,
                                    timeout=30, check=False)
            checks.check(f'"{preset.group(1)}"' in listed.stdout, f"no CMake preset {preset.group(1)}: {command}")
        else:
            checks.check(os.access(os.path.join(source, words[0]), os.X_OK), f"no such script: {command}")


def run_block(checks, block):
    """Runs it; returns the lines that it printed."""
    budget = block.word("time", 60)
    begin = time.monotonic()
    try:
        result = subprocess.run(["bash", "-euo", "pipefail", "-c", block.script], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=4 * budget,
                                check=False)
    except subprocess.TimeoutExpired:
        checks.check(False, f"line {block.line}: at work after {4 * budget} s, {budget} s are stated: {block.script}")
        return []
    taken = time.monotonic() - begin
    print(f"line {block.line}: {taken:.1f} of {budget} s")
    checks.check(taken <= budget, f"line {block.line}: {taken:.1f} s, {budget} s are stated: {block.script}")
    checks.check(result.returncode == block.word("exit", 0),
                 f"line {block.line}: exit code {result.returncode}: {block.script}{result.stdout[-2000:]}")
    return [line.rstrip() for line in result.stdout.splitlines()]


def anchors(path):
    """Headings of a page as links name them."""
    with open(path, encoding="utf-8") as file:
        return {re.sub(r"[^\w -]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
                for line in file if line.startswith("#")}


def check_links(checks, page):
    """Every link to a file, and to a heading in it, leads somewhere."""
    with open(page, encoding="utf-8") as file:
        targets = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", file.read())
    for target, anchor in targets:
        path = os.path.join(os.path.dirname(page), target) if target else page
        checks.check(os.path.exists(path), f"{page}: links to {target}, which is not there")
        checks.check(not anchor or anchor in anchors(path), f"{page}: links to #{anchor}, which {path} does not have")


def lay_out(source, program):
    """The folder that a reader of the README stands in after a build."""
    for name in os.listdir(source):
        if name not in ("build", ".git"):
            os.symlink(os.path.join(source, name), name)
    os.makedirs("build/ci")
    os.symlink(os.path.dirname(program), "build/ci/bin")
    os.environ["PATH"] = f"{os.getcwd()}/build/ci/bin:{os.environ['PATH']}"
    for variable in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle"):
        os.environ.setdefault(variable, "1")


def main():
    source, readme = (os.path.abspath(path) for path in sys.argv[2:4])
    writes = sys.argv[4:] == ["--write"]
    again = f"to renew its figures: {' '.join([sys.argv[0], os.path.relpath(sys.argv[1]), source, readme])} --write"
    checks = Checks()
    lay_out(source, checks.program)
    with open(readme, encoding="utf-8") as file:
        lines = file.read().split("\n")
    blocks = read_blocks(lines)
    for page in [readme, *(os.path.join(source, folder, "README.md") for folder in FLOORS)]:
        check_links(checks, page)
    checks.check(any(block.shown for block in blocks), f"{readme} shows no output")
    for block in blocks:
        if "outside" in block.words:
            check_outside(checks, source, block)
            continue
        real = run_block(checks, block)
        if block.shown is None:
            continue
        wrong = mismatch([line.rstrip() for line in block.shown], real)
        if wrong is not None and writes:
            fresh = renewed(block.shown, real)
            checks.check(fresh is not None, f"line {block.line}: more than figures differ, from: {wrong}")
            if fresh is not None:
                lines[block.shown_at] = fresh
            continue
        printed = "\n".join(real[:80])
        checks.check(wrong is None, f"line {block.line}: shown, but not printed: {wrong}\n{again}\n{printed}")
    if writes:
        with open(readme, "w", encoding="utf-8") as file:
            file.write("\n".join(lines))
    checks.finish()


if __name__ == "__main__":
    main()
