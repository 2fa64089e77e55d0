#!/usr/bin/env bash
# Builds the benchmarks, measures everything and writes the tables to benchmarks/results/:
#   bash benchmarks/run_all.sh [--build-dir DIR] [--repeats 5] [--python P] [--paddle-python P]
# Half an hour at most on two cores, which must be idle. --python is an interpreter with
# requirements.txt, --paddle-python one with requirements-paddle.txt; libraries that are missing
# are named in the table as not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build repeats=5 python=python3 paddle_python=
while (($#)); do
  case $1 in
    --help | -h) sed -n '2,6s/^# //p' benchmarks/run_all.sh; exit 0 ;;
    --build-dir | --repeats | --python | --paddle-python)
      if (($# < 2)); then echo "run_all.sh: $1 needs a value" >&2; exit 2; fi
      name=${1#--} name=${name/build-dir/build}
      declare "${name//-/_}=$2"
      shift 2 ;;
    *) echo "run_all.sh: unknown option $1" >&2; exit 2 ;;
  esac
done

cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DKINDRED_BENCHMARKS=ON
programs=(roofline gemm layers margin_softmax pplcnet retrieval)
cmake --build "$build" --target "${programs[@]/#/benchmark_}" --parallel "$(nproc)"

results=benchmarks/results
mkdir -p "$results"
# measure NAME COMMAND...: the table appears only when it is complete.
measure() {
  local name=$1
  shift
  echo "== $name, $(date +%T)" >&2
  "$@" >"$results/$name.tmp"
  mv "$results/$name.tmp" "$results/$name.md"
}
google=(--benchmark_repetitions="$repeats" --benchmark_enable_random_interleaving=true)
report=("$python" benchmarks/report.py)
programs=$build/benchmarks

measure roofline "${report[@]}" "Limits of the machine" "$programs/roofline" "${google[@]}"
measure gemm "${report[@]}" "Matrix products" "$programs/gemm" --threads 1 --rounds "$repeats"
measure layers "${report[@]}" "Convolution layers" "$programs/layers" --rounds "$repeats"
measure margin_softmax "${report[@]}" "The margin step and its matrix product" \
  "$programs/margin_softmax" "${google[@]}"
measure peers "$python" benchmarks/compare_peers.py --programs "$programs" --repeats "$repeats" \
  ${paddle_python:+--paddle-python "$paddle_python"}
measure retrieval "${report[@]}" "Metrics of a whole test set" "$programs/retrieval" \
  --benchmark_filter=Ranking
echo "The tables are in $results/." >&2
