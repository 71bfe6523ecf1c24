#!/bin/sh
# What was asked of real tokens, run and seen: both shipped checkpoints, clusters of 1 to 64 chips, every SIMD target that the CPU
# has: transformers' greedy text, logits within 1e-4 of its float64 ones, and the same bits everywhere.
# usage: scripts/acceptance_numbers.sh [PROGRAM]
set -eu
cd "$(dirname "$0")/.."
exec /usr/bin/python3 -B scripts/acceptance_numbers.py "${1:-build/ci/bin/lpu_cluster}"
