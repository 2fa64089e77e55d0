#!/usr/bin/env bash
# Builds and runs all tests:
#   bash tests/run.sh [--build-dir DIR] [options of ctest, e.g. -R kernels]
# Installs the Debian packages that are missing first. Ends with ctest's summary and exit status.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build
ctest_options=()
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,4s/^# //p' "tests/run.sh"; exit 0 ;;
    --build-dir)
      if (($# < 2)); then echo "run.sh: --build-dir needs a value" >&2; exit 2; fi
      build=$2
      shift 2 ;;
    *) ctest_options+=("$1"); shift ;;
  esac
done

bash cmake/install_packages.sh build fonts tests

options=(-DCMAKE_BUILD_TYPE=Release -DKINDRED_TESTS=ON -DKINDRED_EXAMPLES=ON
  -DKINDRED_BENCHMARKS=ON)
if [[ ! -f $build/CMakeCache.txt ]]; then
  if command -v ninja >/dev/null; then options+=(-G Ninja); fi
  # One generation of GPUs, and PTX for later ones: each one more doubles nvcc's part of the time.
  options+=(-DCMAKE_CUDA_ARCHITECTURES=80)
fi
cmake -S . -B "$build" "${options[@]}"
cmake --build "$build" --parallel "$(nproc)"

if ! command -v nvcc >/dev/null && [[ ! -x /usr/local/cuda/bin/nvcc ]]; then
  cat <<'NOTE'

*********************************************************************************
**  nvcc was not found: NOTHING OF CUDA IS BUILT IN THIS RUN. Its kernels run    **
**  in emulation alone (cuda_emulated.*), which proves their numbers, not that   **
**  nvcc takes them.                                                             **
*********************************************************************************

NOTE
fi
exec ctest --test-dir "$build" --output-on-failure --parallel 2 "${ctest_options[@]}"
