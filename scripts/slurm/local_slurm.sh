#!/bin/sh
# A Slurm of one machine, to try batch files on: munged, slurmctld and slurmd with their files in one folder. Needs root and
# Debian's slurm-wlm and munge; touches nothing that the system's own Slurm has.
#   scripts/slurm/local_slurm.sh up FOLDER [CPUS]     brings it up; CPUS (default 64) is what Slurm is made to believe
#   scripts/slurm/local_slurm.sh down FOLDER          ends what `up` started, and nothing else
# Then: export SLURM_CONF=FOLDER/slurm.conf. Exit code 77, with the reason, where it cannot be started.
set -eu

cannot() {
  echo "local_slurm.sh: $1" >&2
  exit 77
}

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

# A port of this machine that nobody listens on.
free_port() {
  /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

bring_up() {
  [ "$(id -u)" -eq 0 ] || cannot "found user $(id -un); expected root (slurmd starts tasks as their users)"
  for tool in munged slurmctld slurmd sinfo; do
    command -v "$tool" > /dev/null || cannot "found no $tool; expected the packages slurm-wlm and munge (scripts/setup.sh)"
  done
  host=$(uname -n | cut -d. -f1)
  getent hosts "$host" > /dev/null || cannot "found no address of $host; expected the host name in /etc/hosts"
  mkdir -p "$folder/state" "$folder/spool" "$folder/log"
  folder=$(cd "$folder" && pwd)
  chmod 755 "$folder" "$folder/log"
  : > "$folder/pids"

  (umask 077 && head -c 256 /dev/urandom > "$folder/munge.key")
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" > "$folder/log/munged.out" 2>&1 ||
    cannot "munged does not start: $(tail -n 1 "$folder/log/munged.out")"
  cat "$folder/munged.pid" >> "$folder/pids"

  # No cgroups, no accounting: they need more of a machine than a container gives. Decisions come at once, not every few seconds.
  cat > "$folder/slurm.conf" << CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,defer_batch=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
InactiveLimit=0
MinJobAge=600
MaxArraySize=10001
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MailProg=/bin/true
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=local Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF

  export SLURM_CONF="$folder/slurm.conf"
  for daemon in slurmctld slurmd; do
    if ! "$daemon" > "$folder/log/$daemon.out" 2>&1; then
      reason=$(tail -n 1 "$folder/log/$daemon.out")
      take_down
      cannot "$daemon does not start: $reason"
    fi
    waited=0
    until [ -s "$folder/$daemon.pid" ] || [ "$waited" -ge 100 ]; do
      sleep 0.1
      waited=$((waited + 1))
    done
    cat "$folder/$daemon.pid" >> "$folder/pids"
  done
  waited=0
  until sinfo --noheader --format=%T 2> /dev/null | grep -q idle; do
    waited=$((waited + 1))
    if [ "$waited" -gt 150 ]; then
      reason=$(tail -n 1 "$folder/log/slurmctld.log")
      take_down
      cannot "found no idle node after 15 s; expected one: $reason"
    fi
    sleep 0.1
  done
  sinfo --format='%P %T, %D node of %c CPUs: %N' --noheader
}

# By process id, last started first; they are asked, and 10 s later made to end.
take_down() {
  [ -f "$folder/pids" ] || return 0
  for pid in $(tac "$folder/pids"); do
    kill "$pid" 2> /dev/null || true
    waited=0
    while kill -0 "$pid" 2> /dev/null && [ "$waited" -lt 100 ]; do
      sleep 0.1
      waited=$((waited + 1))
    done
    kill -9 "$pid" 2> /dev/null || true
  done
  rm -f "$folder/pids"
}

[ $# -ge 2 ] || usage
folder=$2
cpus=${3:-64}
case "$1" in
  up) bring_up ;;
  down) take_down ;;
  *) usage ;;
esac
