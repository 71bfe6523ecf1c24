#!/bin/sh
# What was asked of real tokens, run and seen: both shipped checkpoints, clusters of 1 to 64 chips on 1 to 64 ranks, every SIMD target
# that the CPU has: transformers' greedy text, logits within 1e-4 of its float64 ones, and the same bits everywhere; then memory and
# speed. 350 runs; on two cores about a quarter of an hour.
# usage: scripts/acceptance_numbers.sh [PROGRAM [MODEL ...]]
set -eu
cd "$(dirname "$0")/.."
program="${1:-build/ci/bin/lpu_cluster}"
[ $# -eq 0 ] || shift
exec /usr/bin/python3 -B scripts/acceptance_numbers.py "$program" "$@"
