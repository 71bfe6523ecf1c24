#!/bin/sh
# What was asked of the lockstep run, line by line, on a built program: figure, PASS or MISS; exit 1 where anything misses.
#   scripts/acceptance_lockstep.sh [--list] [--only NAME[,NAME]] [PROGRAM]     (default: build/release, else build/ci)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
  OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_orte_execute_quiet=1 \
  PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
exec /usr/bin/python3 -B "$(dirname "$0")/acceptance_lockstep.py" "$@"
