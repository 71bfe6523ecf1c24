#!/bin/sh
# Sets up, builds with warnings as errors, and runs every test. The exit code is ctest's verdict; the last lines say how long each
# label took, beside its budget.
set -eu
cd "$(dirname "$0")/.."

scripts/setup.sh browser
scripts/lint.sh

jobs=$(nproc)
launcher=""
if command -v ccache > /dev/null; then
  launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"
fi
if ! getent hosts "$(uname -n)" > /dev/null; then
  echo "test.sh: the host name $(uname -n) does not resolve: each MPI rank starts about 1 s later"
fi

# shellcheck disable=SC2086  # empty, or one flag
cmake --preset ci $launcher
cmake --build --preset ci --parallel "$jobs"
times=build/ci/test_times.xml
verdict=0
rm -f "$times"
ctest --preset ci --parallel "$jobs" --output-junit "$PWD/$times" || verdict=$?
scripts/test_times.py build/ci "$times" || true
exit "$verdict"
