#!/bin/sh
# Installs what is missing, builds, runs the tour on 64 ranks, draws it, and says where the files are.
#
#   scripts/demo.sh [FOLDER] [-- FLAGS]      FOLDER: of the results, default build/demo; FLAGS: of `lpu_cluster demo`
#
# LPU_RANKS changes the number of ranks. The exit code is that of the first step that fails.
set -eu
here=$(pwd)
cd "$(dirname "$0")/.."

folder=build/demo
if [ $# -gt 0 ] && [ "$1" != "--" ]; then
  case "$1" in
    -*) echo "demo.sh: found $1; expected a folder for the results, or -- before flags of the program" >&2; exit 2 ;;
    /*) folder=$1 ;;
    *) folder=$here/$1 ;;
  esac
  shift
fi
if [ $# -gt 0 ]; then
  [ "$1" = "--" ] || { echo "demo.sh: found $1; expected -- before flags of the program" >&2; exit 2; }
  shift
fi
if ! mkdir -p "$folder" 2> /dev/null || [ ! -w "$folder" ]; then
  echo "demo.sh: found $folder; expected a folder that can be written" >&2
  exit 2
fi

scripts/setup.sh

launcher=""
if command -v ccache > /dev/null; then
  launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"
fi
echo "demo.sh: building (minutes the first time)"
log=$folder/build.log
# shellcheck disable=SC2086  # empty, or one flag
if ! { cmake --preset release $launcher && cmake --build --preset release --parallel "$(nproc)" --target lpu_cluster_exe; } \
     > "$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "demo.sh: the build failed: $log" >&2
  exit 4
fi

# As root or not, more ranks than cores, Open MPI 4 and 5; quiet, so that one error is one line.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_orte_execute_quiet=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
if ! getent hosts "$(uname -n)" > /dev/null; then
  echo "demo.sh: the host name $(uname -n) does not resolve: each rank starts about 1 s later"
fi
mpirun -np "${LPU_RANKS:-64}" build/release/bin/lpu_cluster demo --output-dir "$folder" "$@"

scripts/scaling_report.py "$folder/results.json" --each --output-dir "$folder" > "$folder/files.txt"
echo
echo "demo.sh: $folder holds results.json, scaling.csv, scaling.png, scaling.svg and each figure alone"
echo "demo.sh: open $folder/report.html"
