#!/usr/bin/python3
"""Installs the build tree, runs the installed program, and builds an outside project against it."""
import os
import subprocess
import sys

from program import Checks

build, source = (os.path.abspath(path) for path in sys.argv[2:4])
checks = Checks()


def call(*command):
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    checks.check(result.returncode == 0, f"{' '.join(command)}: {result.stdout[-2000:]}{result.stderr[-2000:]}")


prefix = os.path.abspath("prefix")
call("cmake", "--install", build, "--prefix", prefix)
call(os.path.join(prefix, "bin", "lpu_cluster"), "list", "chips")
checks.check(os.path.exists(os.path.join(prefix, "share", "lpu_cluster", "presets", "chips", "tsp-v1.json")),
             "the presets are installed as files")
for model, size in (("shakespeare-llama-4m", 8532440), ("shakespeare-mixtral-5m", 10451032)):
    weights = os.path.join(prefix, "share", "lpu_cluster", "models", model, "model.safetensors")
    checks.check(os.path.exists(weights) and os.path.getsize(weights) == size, f"{model} is installed with its weights")
call("cmake", "-S", os.path.join(source, "tests", "consumer"), "-B", "consumer", "-G", "Ninja",
     f"-DCMAKE_PREFIX_PATH={prefix}", *sys.argv[4:])
call("cmake", "--build", "consumer")
call(os.path.join("consumer", "lpu_consumer"))
checks.finish()
