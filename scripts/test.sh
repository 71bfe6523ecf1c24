#!/bin/sh
# Sets up, builds with warnings as errors, and runs every test. The last lines are ctest's summary; the exit code is its verdict.
set -eu
cd "$(dirname "$0")/.."

scripts/setup.sh
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
exec ctest --preset ci --parallel "$jobs"
