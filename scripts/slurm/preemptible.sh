#!/bin/bash
# Runs a command of lpu_cluster so that Slurm can take its nodes away and give others later. A batch file ends with
#   exec preemptible.sh [-o FOLDER] STATE COMMAND...
# exec, because `#SBATCH --signal=B:USR1@60` reaches the process of the batch file alone. STATE is the folder of the saved state;
# "-" for verbs that save none. On SIGUSR1 the command (srun, mpirun or the program; the first two hand it to all ranks) gets
# it, saves its state and ends with 75; the job is put back into the queue, and started again it goes on from the state.
#   -o FOLDER   writes FOLDER/stdout and FOLDER/stderr, and at the very end FOLDER/exit_code
set -u

results=""
if [ "${1:-}" = "-o" ]; then
  results=$2
  shift 2
fi
if [ $# -lt 2 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
state=$1
shift

# Inside an allocation Open MPI takes the tasks for cores and spins while it waits, unless it is told otherwise.
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_orte_execute_quiet=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

command=("$@")
if [ "$state" != "-" ]; then
  command+=(--save-state "$state")
  if [ -f "$state/manifest" ]; then
    command+=(--resume "$state")
    echo "preemptible.sh: going on from $state" >&2
  fi
fi

child=""
has_asked=""
# shellcheck disable=SC2317  # a trap calls it
ask() {
  has_asked=yes
  # Without a state there is nothing to save: the point is begun anew elsewhere.
  [ -z "$child" ] || kill -s "$([ "$state" = "-" ] && echo TERM || echo USR1)" "$child" 2> /dev/null
}
trap ask USR1
trap '[ -z "$child" ] || kill -TERM "$child" 2> /dev/null' TERM

if [ -n "$results" ]; then
  rm -f "$results/exit_code"
  "${command[@]}" > "$results/stdout" 2> "$results/stderr" &
else
  "${command[@]}" &
fi
child=$!
# A signal ends `wait`, not the child; where both ended, the child's code is asked for once more.
while :; do
  wait "$child"
  code=$?
  kill -0 "$child" 2> /dev/null && continue
  if [ "$code" -gt 128 ]; then
    wait "$child"
    again=$?
    [ "$again" -eq 127 ] || code=$again
  fi
  break
done

if [ "$code" -eq 75 ] || { [ "$state" = "-" ] && [ -n "$has_asked" ] && [ "$code" -ne 0 ]; }; then
  job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-${SLURM_JOB_ID:-}}
  if [ -n "$job" ] && scontrol requeue "$job"; then
    echo "preemptible.sh: stopped on request; job $job is back in the queue" >&2
    exit 75
  fi
  echo "preemptible.sh: stopped on request; found no way to requeue; expected sbatch --requeue. Submit it again to go on" >&2
fi
# srun that could not start a task was seen to return 0. Without a result nothing is done, and the state stays.
if [ "$code" -eq 0 ] && [ -n "$results" ] && ! [ -s "$results/stdout" ]; then
  echo "preemptible.sh: found exit code 0 and no result: $(tail -n 1 "$results/stderr")" >&2
  code=4
fi
if [ -n "$results" ]; then
  echo "$code" > "$results/exit_code.tmp" && mv "$results/exit_code.tmp" "$results/exit_code"
fi
if [ "$code" -eq 0 ] && [ "$state" != "-" ]; then
  rm -f "$state/manifest" "$state"/state-*  # it is done: the next job starts anew
fi
exit "$code"
