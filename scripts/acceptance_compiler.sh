#!/bin/sh
# What was asked of the compiler, line by line, on a built program: figure, PASS or MISS; exit 1 where anything misses.
#   scripts/acceptance_compiler.sh [--list] [--only NAME[,NAME]] [PROGRAM]     (default: build/release, else build/ci)
exec /usr/bin/python3 -B "$(dirname "$0")/acceptance_compiler.py" "$@"
