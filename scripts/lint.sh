#!/bin/sh
# Format and policy of the sources: one line a finding, exit 1 where there is one.
# Runs what is installed: clang-format 14 and shellcheck are skipped, and said to be, where they are not.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C

findings=0
# refuse WHAT PATTERN FILES...: lines of the files that match an extended regular expression
refuse() {
  what=$1
  pattern=$2
  shift 2
  [ $# -gt 0 ] || return 0
  if grep -nHE -e "$pattern" -- "$@" | sed "s|\$|   [lint: $what]|" | grep .; then
    findings=1
  fi
}

sources=$(find node interconnect scheduler cluster tests -name '*.cpp' -o -name '*.hpp' | sort)
libraries=$(find node interconnect scheduler \( -name '*.cpp' -o -name '*.hpp' \) | sort)
public=$(find node interconnect scheduler cluster -path '*/include/*' -name '*.hpp' | sort)
headers=$(printf '%s\n' "$sources" | grep -E '\.hpp$')
without_mpi=$(printf '%s\n' "$sources" | grep -vE '^(interconnect/src/mpi_[a-z_]*\.[ch]pp|cluster/src/|tests/support/|tests/mpi/)' || true)

# shellcheck disable=SC2086  # lists of paths without spaces
{
  refuse "a library ends the program" '\b(std::)?(exit|quick_exit|_Exit|abort|terminate) *\(' $libraries
  refuse "a library prints" '\b(printf|fprintf|puts|fputs)\(|std::(cout|cerr|clog)\b' $libraries
  refuse "MPI outside its places" '#include *[<"]mpi\.h' $without_mpi
  refuse "a seed that differs between runs" 'random_device' $sources
  refuse "third party in a public header" '#include *<(boost|cereal|hwy|mpi|spdlog)' $public
  refuse "a namespace taken over" '^using namespace' $headers
  refuse "a note instead of work" '\b(TODO|FIXME|XXX|HACK)\b' $sources
}
for header in $headers; do
  grep -q '^#pragma once' "$header" || { echo "$header: without #pragma once   [lint]"; findings=1; }
done

for preset in cluster/presets/*/*.json; do
  /usr/bin/python3 -m json.tool "$preset" > /dev/null || { echo "$preset: not JSON   [lint]"; findings=1; }
done

formatter=""
for candidate in clang-format-14 clang-format; do
  if command -v "$candidate" > /dev/null && "$candidate" --version | grep -q 'version 14\.'; then
    formatter=$candidate
    break
  fi
done
if [ -n "$formatter" ]; then
  # shellcheck disable=SC2086  # a list of paths without spaces; one process for all of them
  if ! said=$("$formatter" --dry-run -Werror $sources 2>&1); then
    findings=1
    printf '%s\n' "$said" | sed -n 's|^\([^: ]*\):.*error: .*|\1: not formatted   [lint]|p' | sort -u | grep . || printf '%s\n' "$said"
  fi
else
  echo "lint.sh: no clang-format 14 here: format not checked"
fi

if command -v shellcheck > /dev/null; then
  shellcheck scripts/*.sh scripts/slurm/*.sh scripts/slurm/*.sbatch .ci/run || findings=1
else
  echo "lint.sh: no shellcheck here: scripts not checked"
fi

if [ "$findings" -ne 0 ]; then
  echo "lint.sh: findings above" >&2
  exit 1
fi
echo "lint.sh: clean"
