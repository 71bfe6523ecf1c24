#!/bin/sh
# The Debian package on a machine that has nothing but Debian 12: it installs, runs alone and under MPI, and has its man page.
#
#   scripts/acceptance_package.sh PACKAGE.deb [FOLDER]
#
# FOLDER: a Debian 12 to change root into, which keeps the packages that ours draws; without, debootstrap makes one in a temporary
# folder. Needs root, and a mirror.
set -eu

if [ $# -lt 1 ] || [ ! -f "$1" ]; then
  echo "acceptance_package.sh: found ${1:-nothing}; expected a package that cpack -G DEB made" >&2
  exit 2
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "acceptance_package.sh: found user $(id -u); expected root, who may change the root folder" >&2
  exit 4
fi
package=$(realpath "$1")
root=""
if [ $# -ge 2 ]; then
  root=$(realpath "$2" 2> /dev/null) || root=""
  if [ ! -d "$root" ] || [ "$root" = / ]; then
    echo "acceptance_package.sh: found FOLDER '$2'; expected a folder with a Debian 12 inside, not the running system's own" >&2
    exit 2
  fi
fi

made=""    # the root folder, where this run made it
mounted="" # what this run mounted below it, the latest first
copy=""    # the package inside
finish() {
  left=""
  for path in $mounted; do
    umount "$root/$path" || left="$left $path"
  done
  [ -z "$copy" ] || rm -f "$copy"
  if [ -n "$left" ]; then
    echo "acceptance_package.sh: $root keeps the mounts$left" >&2
  elif [ -n "$made" ]; then
    rm -rf --one-file-system "$made" "$made.log"
  fi
}
# mount_at PATH OPTIONS...: mounts below the root folder until the end
mount_at() {
  path=$1
  shift
  mount "$@" "$root/$path" || { echo "acceptance_package.sh: cannot mount $root/$path" >&2; exit 4; }
  mounted="$path $mounted"
}
# dash runs no EXIT trap on a signal that has no trap of its own.
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -z "$root" ]; then
  command -v debootstrap > /dev/null || { echo "acceptance_package.sh: found no debootstrap; expected it, or a FOLDER" >&2; exit 4; }
  made=$(mktemp -d /var/tmp/lpu_cluster_clean.XXXXXX)
  root=$made
fi
trap finish EXIT
if [ -n "$made" ]; then
  debootstrap --variant=minbase bookworm "$root" > "$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; exit 4; }
  cp /etc/hosts /etc/resolv.conf "$root/etc/"
else
  # A folder of the caller's keeps its files: ours lie over them. A link may lead out of it.
  for file in etc/hosts etc/resolv.conf; do
    if [ -f "$root/$file" ] && [ ! -L "$root/$file" ]; then
      mount_at "$file" --bind "/$file"
    fi
  done
fi

mount_at proc -t proc proc
mount_at sys -t sysfs sys
mount_at dev --bind /dev
# Otherwise the next one would also appear on the system's own /dev.
mount --make-private "$root/dev"
mount_at dev/shm -t tmpfs tmpfs
copy=$(mktemp --suffix=.deb "$root/tmp/lpu_cluster.XXXXXX")
cat "$package" > "$copy"
chmod 644 "$copy"

inside() {
  chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_hwloc_base_binding_policy=none "$@"
}
# holds WHAT PATTERN COMMAND...: the command succeeds and prints it
misses=0
holds() {
  what=$1
  pattern=$2
  shift 2
  if output=$("$@" 2>&1) && printf '%s\n' "$output" | grep -qE -e "$pattern"; then
    echo "PASS $what: $(printf '%s\n' "$output" | grep -E -m 1 -e "$pattern" | sed 's/^ *//')"
  else
    echo "MISS $what: $(printf '%s\n' "$output" | tail -n 3)"
    misses=$((misses + 1))
  fi
}

inside apt-get -q update -o APT::Update::Error-Mode=any > /dev/null ||
  { echo "acceptance_package.sh: apt-get update failed in $root; expected a mirror that answers" >&2; exit 1; }
begin=$(date +%s)
# Recommended packages draw reports; man pages need man-db, which a minimal Debian does without, as it does without pages.
# Images for containers leave man pages out.
holds "installs" "Setting up lpu-cluster" inside apt-get -q install -y --no-install-recommends \
  -o "DPkg::Options::=--path-include=/usr/share/man/*" "/tmp/${copy##*/}" man-db
echo "     $(($(date +%s) - begin)) s"
holds "version" "^lpu_cluster [0-9]" inside lpu_cluster --version
holds "man page" "^LPU_CLUSTER\\(1\\)" inside sh -c "man lpu_cluster | cat"
holds "presets" "llama-3-8b" inside lpu_cluster list models
holds "plan" "tokens/s a user" inside lpu_cluster plan --model llama-3-8b
holds "four ranks" "ranks +4 on 1 host" inside mpirun -np 4 --oversubscribe -q lpu_cluster run --model llama-3-8b --tokens 2
holds "text" "^ROMEO:" inside mpirun -np 4 --oversubscribe -q lpu_cluster generate --prompt ROMEO: --max-new-tokens 8 --chips 4
# shellcheck disable=SC2016  # a shell inside expands it
holds "one fingerprint" "^equal$" inside sh -c '
  one=$(lpu_cluster run --model llama-3-8b --tokens 2 | grep fingerprint)
  four=$(mpirun -np 4 --oversubscribe -q lpu_cluster run --model llama-3-8b --tokens 2 | grep fingerprint)
  [ "$one" = "$four" ] && echo equal'
holds "removes" "Removing lpu-cluster" inside apt-get -q remove -y lpu-cluster
if [ -e "$root/usr/share/lpu_cluster" ] || [ -e "$root/usr/bin/lpu_cluster" ]; then
  echo "MISS nothing is left: $(ls -d "$root"/usr/share/lpu_cluster "$root"/usr/bin/lpu_cluster 2> /dev/null)"
  misses=$((misses + 1))
fi
[ "$misses" -eq 0 ] || { echo "acceptance_package.sh: $misses missed" >&2; exit 1; }
