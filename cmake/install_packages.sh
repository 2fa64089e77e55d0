#!/usr/bin/env bash
# Installs the Debian packages that are missing for what is named, and nothing else:
#   bash cmake/install_packages.sh [build] [fonts] [tests] [ci] [neon]
# Installs with apt-get, through sudo when not run as root; does nothing where all is there.
set -euo pipefail

declare -A packages=(
  [build]="g++ cmake ninja-build libeigen3-dev libxtensor-dev libxsimd-dev
    libopencv-core-dev libopencv-imgproc-dev libopencv-imgcodecs-dev libyaml-cpp-dev
    nlohmann-json3-dev libcli11-dev libfmt-dev libfreetype-dev libfontconfig-dev"
  [fonts]="fonts-noto-cjk fonts-wqy-zenhei fonts-wqy-microhei fonts-arphic-uming
    fonts-arphic-ukai fonts-ipafont fonts-vlgothic fonts-droid-fallback"
  [tests]="catch2 libbenchmark-dev libdnnl-dev"
  [ci]="clang-format"
  [neon]="g++-aarch64-linux-gnu qemu-user"
)

wanted=()
for group in "$@"; do
  if [[ -z ${packages[$group]:-} ]]; then
    echo "install_packages.sh: no group \"$group\"; there are: ${!packages[*]}" >&2
    exit 2
  fi
  read -r -d '' -a names <<<"${packages[$group]}" || true
  wanted+=("${names[@]}")
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "This is not a Debian system: install what these Debian packages hold, if it is missing:"
  printf '  %s\n' "${wanted[@]}"
  exit 0
fi

missing=()
for package in "${wanted[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "All ${#wanted[@]} Debian packages are installed."
  exit 0
fi

as_root=(env)
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "Debian packages are missing, and this is neither root nor is there sudo. As root:" >&2
    echo "  apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo env)
fi
apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -q -y)

install() { "${apt[@]}" install --no-install-recommends "${missing[@]}"; }

echo "Installing ${#missing[@]} missing Debian packages: ${missing[*]}"
# The lists of packages are renewed only where the present ones do not know a package ...
if ! apt-get --simulate install "${missing[@]}" >/dev/null 2>&1; then
  echo "Renewing apt's lists of packages first, which do not know all of these."
  "${apt[@]}" update
fi
# ... or are so old that the mirror no longer has the versions that they name.
if ! install; then
  echo "That failed; once more with new lists of packages."
  "${apt[@]}" update
  install
fi
