#!/bin/sh
# The Debian package on a machine that has nothing but Debian 12: it installs, runs alone and under MPI, and has its man page.
#
#   scripts/acceptance_package.sh PACKAGE.deb [FOLDER]
#
# FOLDER: a Debian 12 to change root into; without, debootstrap makes one in a temporary folder. Needs root, and a mirror.
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
root=${2:-}
made=""
finish() {
  for mounted in dev/shm dev sys proc; do
    umount "$root/$mounted" 2> /dev/null || true
  done
  if [ -n "$made" ]; then
    rm -rf --one-file-system "$made"
  fi
}
trap finish EXIT
if [ -z "$root" ]; then
  command -v debootstrap > /dev/null || { echo "acceptance_package.sh: found no debootstrap; expected it, or a FOLDER" >&2; exit 4; }
  made=$(mktemp -d /var/tmp/lpu_cluster_clean.XXXXXX)
  root=$made
  debootstrap --variant=minbase bookworm "$root" > "$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; exit 4; }
  rm -f "$root.log"
fi

mount -t proc proc "$root/proc"
mount -t sysfs sys "$root/sys"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
cp /etc/hosts /etc/resolv.conf "$root/etc/"
cp "$package" "$root/tmp/lpu_cluster.deb"

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

inside apt-get -q update > /dev/null
begin=$(date +%s)
# Recommended packages draw reports; man pages need man-db, which a minimal Debian does without, as it does without pages.
rm -f "$root/etc/dpkg/dpkg.cfg.d/docker"
holds "installs" "Setting up lpu-cluster" inside apt-get -q install -y --no-install-recommends /tmp/lpu_cluster.deb man-db
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
