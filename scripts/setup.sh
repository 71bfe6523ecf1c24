#!/bin/sh
# Installs the Debian 12 packages that the build and the tests need; does nothing where all are there.
#
#   scripts/setup.sh [browser]      browser: also Chromium and what drives it, 140 MB to fetch, for the tests labelled so
set -eu

packages="ca-certificates cmake dpkg-dev file g++ git libbenchmark-dev libboost-graph1.81-dev libboost-json1.81-dev
libboost-program-options1.81-dev libboost1.81-dev libcereal-dev libgtest-dev libhwy-dev libopenmpi-dev libspdlog-dev
man-db munge ninja-build openmpi-bin openssh-client python3 python3-jsonschema python3-matplotlib python3-pandas slurm-wlm"
case "${1:-}" in
  "") ;;
  browser) packages="$packages chromium-driver fonts-dejavu-core python3-selenium" ;;
  *) echo "setup.sh: found $1; expected nothing, or browser" >&2; exit 2 ;;
esac

if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
  echo "setup.sh: found no dpkg and apt-get; expected Debian 12; install by hand: $(echo "$packages" | tr "\n" " ")" >&2
  exit 4
fi

missing=""
for package in $packages; do
  case "$(dpkg-query -W -f='${Status}' "$package" 2> /dev/null || true)" in
    "install ok installed") ;;
    *) missing="$missing $package" ;;
  esac
done
if [ -z "$missing" ]; then
  echo "setup.sh: all packages are there"
  exit 0
fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo > /dev/null; then
    echo "setup.sh: found neither root nor sudo; expected one of them to install:$missing" >&2
    exit 4
  fi
  as_root="sudo"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "setup.sh: installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # lists of words
if ! $as_root apt-get -q update > "$log" 2>&1 ||
   ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing >> "$log" 2>&1; then
  echo "setup.sh: apt-get failed: $(grep -E '^(E|W|Err):' "$log" | head -n 1)" >&2
  exit 4
fi
echo "setup.sh: done"
