#!/usr/bin/env bash
# Builds the CUDA tests and benchmarks and runs them on the GPU of this machine:
#   bash tests/run_gpu.sh [--deps DIR]... [--build-dir DIR] [--report FILE] [--peers]
#   bash tests/run_gpu.sh --make-deps DIR
# It needs the CUDA toolkit, g++ and CMake. --deps names a folder to look for Eigen, xtensor, xsimd
# and cuBLAS in, where they are not installed; --make-deps makes such a folder (headers alone) from
# the Debian packages of the machine it runs on. Writes one report: what was built, the tests,
# the benchmarks, compute-sanitizer on a short set; with --peers also the same steps in PyTorch, which
# takes long where it compiles. Exit status: 0 all passed, 1 something failed,
# 77 there is no GPU.
set -uo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")

build=$root/build_gpu
report=''
peers=false
deps=()
prefixes=''
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,11s/^# //p' "$root/tests/run_gpu.sh"; exit 0 ;;
    --peers) peers=true; shift ;;
    --deps | --make-deps | --build-dir | --report)
      if (($# < 2)); then echo "run_gpu.sh: $1 needs a value" >&2; exit 2; fi
      case $1 in
        --deps) deps+=("$(realpath "$2")") ;;
        --build-dir) build=$(realpath -m "$2") ;;
        --report) report=$(realpath -m "$2") ;;
        --make-deps)
          mkdir -p "$2"
          for package in libeigen3-dev libxtensor-dev xtl-dev libxsimd-dev nlohmann-json3-dev; do
            dpkg -L "$package" | grep -v /usr/share/doc/ | while read -r file; do
              if [[ -f $file && ! -L $file ]]; then cp --parents "$file" "$2"; fi
            done || exit 1
          done
          du -sh "$2"
          exit 0 ;;
      esac
      shift 2 ;;
    *) echo "run_gpu.sh: unknown option $1" >&2; exit 2 ;;
  esac
done
cd "$root" || exit 1
for folder in ${deps[@]+"${deps[@]}"}; do prefixes+="$folder;$folder/usr;"; done
# cuBLAS of Python's packages of CUDA, for a toolkit that comes without it.
for header in $(python3 -c 'import glob, sysconfig
print(*glob.glob(sysconfig.get_path("purelib") + "/nvidia/*/include/cublas_v2.h"))' 2>/dev/null); do
  prefixes+="${header%/include/*};"
done
report=${report:-$build/gpu_report.txt}
mkdir -p "$build" "$(dirname "$report")"

failures=0
# part TITLE COMMAND...: its output and its end go to the terminal and into the report.
part() {
  local title=$1 status
  shift
  printf '\n==== %s\n' "$title"
  "$@"
  status=$?
  if ((status != 0)); then
    printf '==== FAILED (%d): %s\n' "$status" "$title"
    failures=$((failures + 1))
  fi
  return "$status"
}

machine() {
  date -u
  git log -1 --format='revision %h %s' 2>/dev/null || echo "revision unknown: no git here"
  "$nvcc" --version | tail -n 2
  g++ --version | head -n 1
  nproc
  nvidia-smi || echo "no nvidia-smi"
}

build_all() {
  if [[ ! -x $nvcc ]]; then
    echo "nvcc was not found: this needs the CUDA toolkit"
    return 1
  fi
  local generator='Unix Makefiles' keep_going=(-k)
  if command -v ninja >/dev/null; then generator=Ninja keep_going=(-k 0); fi
  cmake -S . -B "$build" -G "$generator" -DCMAKE_BUILD_TYPE=Release -DKINDRED_TESTS=OFF \
    -DKINDRED_EXAMPLES=OFF -DKINDRED_CUDA_TESTS=ON -DKINDRED_CUDA_BENCHMARKS=ON \
    "-DCMAKE_PREFIX_PATH=$prefixes" "-DCMAKE_CUDA_ARCHITECTURES=$architectures" &&
    cmake --build "$build" --parallel "$(nproc)" --target cuda_programs -- "${keep_going[@]}"
}

# The cases in float of every test under one tool, all tests at once; what takes too long is said, and
# is no failure.
sanitize() {
  local tool=$1 logs=$build/sanitizer/$1 test log status worst=0
  rm -rf "$logs"
  mkdir -p "$logs"
  for test in "$build"/tests/cuda/test_cuda_*; do
    [[ -x $test && $test != *emulat* ]] || continue
    (
      log=$logs/${test##*/test_cuda_}
      timeout 60 "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 5 "$test" \
        '<float>' >"$log" 2>&1
      echo $? >"$log.status"
    ) &
  done
  wait
  for log in "$logs"/*.status; do
    status=$(<"$log")
    printf -- '-- %s %s: ' "$tool" "$(basename "$log" .status)"
    case $status in
      0) tail -n 1 "${log%.status}" ;;
      124) echo "not finished within 60 s" ;;
      *)
        echo "exit status $status"
        tail -n 20 "${log%.status}"
        worst=1 ;;
    esac
  done
  return "$worst"
}

benchmarks() {
  local program worst=0
  for program in "$build"/benchmarks/gpu/benchmark_gpu_*; do
    if [[ ! -x $program ]]; then
      echo "no GPU benchmark was built"
      continue
    fi
    printf -- '-- %s\n' "${program##*/benchmark_gpu_}"
    timeout 120 "$program" || worst=1
  done
  return "$worst"
}

compare_with_pytorch() {
  python3 benchmarks/compare_pytorch_gpu.py --program "$build/benchmarks/gpu/benchmark_gpu_steps"
}

everything() {
  part "machine" machine
  part "build" build_all  # what was built is run even if something was not
  if ! nvidia-smi -L 2>/dev/null | grep -q .; then
    printf '\n********************************************************\n'
    printf '**  NO CUDA DEVICE: BUILT, BUT NOTHING WAS RUN.       **\n'
    printf '********************************************************\n'
    if ((failures == 0)); then return 77; else return 1; fi
  fi
  part "tests" ctest --test-dir "$build" --output-on-failure --parallel 4 -R '^cuda\.'
  part "benchmarks" benchmarks  # before the sanitizers, which take longest
  if [[ -x $sanitizer ]]; then
    for tool in memcheck racecheck initcheck; do part "$tool" sanitize "$tool"; done
  else
    part "compute-sanitizer is not installed" false
  fi
  if $peers; then part "PyTorch" compare_with_pytorch; fi
  printf '\n%d parts failed\n' "$failures"
  ((failures == 0))
}

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
# The GPU of this machine alone where there is one: that builds in half the time.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
architectures='80-real;90'
if [[ $capability =~ ^[0-9]+\.[0-9]+$ ]]; then architectures=${capability/./}-real; fi
everything 2>&1 | tee "$report"
status=${PIPESTATUS[0]}
printf 'report: %s\n' "$report"
exit "$status"
