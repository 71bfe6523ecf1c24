#!/bin/sh
# A sweep of 200 points, interrupted three times (SIGINT, SIGTERM, SIGKILL), ends with the table of one that was not.
#   scripts/acceptance_sweep.sh [PROGRAM [POINTS]]     (default: build/release, else build/ci; 200)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
program=${1:-$root/build/release/bin/lpu_cluster}
[ -x "$program" ] || program=$root/build/ci/bin/lpu_cluster
exec /usr/bin/python3 -B "$root/tests/e2e/sweep.py" "$program" "$root" "${2:-200}"
