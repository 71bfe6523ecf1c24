#!/usr/bin/python3
"""Lint can fail: one planted error for each of its rules is found."""
import os
import shutil
import subprocess
import sys

from program import Checks

source = os.path.abspath(sys.argv[2])
checks = Checks()
for folder in ("node", "interconnect", "scheduler", "cluster", "tests", "scripts", ".ci"):
    shutil.copytree(os.path.join(source, folder), folder, ignore=shutil.ignore_patterns("__pycache__"))
shutil.copy(os.path.join(source, ".clang-format"), ".")

PLANTED = {
    "a library ends the program": ("node/src/planted_a.cpp", "void f() { std::exit(1); }\n"),
    "a library prints": ("scheduler/src/planted_b.cpp", "void f() { std::cout << 1; }\n"),
    "MPI outside its places": ("scheduler/src/planted_c.cpp", "#include <mpi.h>\n"),
    "a seed that differs between runs": ("tests/planted_d.cpp", "std::random_device seed;\n"),
    "third party in a public header": ("node/include/lpu/node/planted_e.hpp", "#pragma once\n#include <boost/json.hpp>\n"),
    "a namespace taken over": ("cluster/src/planted_f.hpp", "#pragma once\nusing namespace std;\n"),
    "a note instead of work": ("cluster/src/planted_g.cpp", "// TO" + "DO: later\n"),
    "without #pragma once": ("cluster/src/planted_h.hpp", "int f();\n"),
    "planted_i.json: not JSON": ("cluster/presets/chips/planted_i.json", "{\n"),
}
if shutil.which("clang-format"):
    PLANTED["planted_j.cpp: not formatted"] = ("node/src/planted_j.cpp", "int   f( );\n")
for path, text in PLANTED.values():
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)

result = subprocess.run(["scripts/lint.sh"], capture_output=True, text=True, timeout=100)
checks.check(result.returncode == 1, f"exit code {result.returncode}: {result.stderr}")
for finding, (path, _) in PLANTED.items():
    checks.check(any(finding in line and os.path.basename(path) in line for line in result.stdout.splitlines()),
                 f"not found: {finding}: {result.stdout}")
checks.finish()
