#!/usr/bin/env bash
# From a fresh clone to a trained network and a report, in minutes. See --help.
set -euo pipefail
export LC_ALL=C.UTF-8  # decimal points
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<HELP
Usage: bash examples/quickstart.sh [options]

Installs the Debian packages that are missing, builds, draws Chinese characters in the typefaces of
this machine, trains a network on some of them, and tests it on characters it has never seen.

  --characters N   characters to draw, a fifth of them for the test    [3000]
  --epochs N       passes over the training set                        [as in the YAML file]
  --scale S        width of PPLCNet: 0.25, 0.35, 0.5, 0.75, 1.0 to 2.5 [as in the YAML file]
  --size PX        side of the images in pixels                        [64]
  --device D       cpu, or cuda where there are nvcc and an NVIDIA GPU  [cpu]
  --seed N         chooses characters, first weights and batches       [42]
  --build-dir DIR  where to build                                      [build]
  --out DIR        where data, checkpoints and the report go           [BUILD/quickstart]
HELP
}

characters=3000 epochs='' scale='' size=64 device=cpu seed=42 build=build out=''
while (($#)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --characters | --epochs | --scale | --size | --device | --seed | --build-dir | --out)
      if (($# < 2)); then echo "quickstart.sh: $1 needs a value" >&2; exit 2; fi
      case $1 in
        --characters) characters=$2 ;;
        --epochs) epochs=$2 ;;
        --scale) scale=$2 ;;
        --size) size=$2 ;;
        --device) device=$2 ;;
        --seed) seed=$2 ;;
        --build-dir) build=$2 ;;
        --out) out=$2 ;;
      esac
      shift 2 ;;
    *) echo "quickstart.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done
case $device in
  cpu) rec=rec ;;
  cuda | gpu) rec=rec_cuda ;;
  *) echo "quickstart.sh: --device is $device, but must be cpu or cuda" >&2; exit 2 ;;
esac
out=${out:-$build/quickstart}
programs=$build/examples

# step NAME COMMAND...: runs it, says how long it took, and keeps the time for the report.
times=()
step() {
  local name=$1 begin=$EPOCHREALTIME seconds
  shift
  printf '\n== %s\n' "$name"
  "$@"
  seconds=$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
  printf '   %s: %s s\n' "$name" "$seconds"
  times+=(--time "$name=$seconds")
}

configure() {
  local options=()
  # An existing build folder keeps its generator and its options.
  if [[ ! -f $build/CMakeCache.txt ]]; then
    options=(-DCMAKE_BUILD_TYPE=Release -DKINDRED_TESTS=OFF)
    if command -v ninja >/dev/null; then options+=(-G Ninja); fi
  fi
  cmake -S . -B "$build" -DKINDRED_EXAMPLES=ON "${options[@]}"
  if [[ $rec == rec_cuda ]] && ! grep -q '^CMAKE_CUDA_COMPILER:' "$build/CMakeCache.txt"; then
    echo "quickstart.sh: --device cuda needs nvcc, which was not found; put it in PATH" >&2
    exit 1
  fi
}

printf '== Packages\n'
bash cmake/install_packages.sh build fonts
step "Configure" configure
step "Build" cmake --build "$build" --parallel "$(nproc)" --target render_glyphs "$rec" report
step "Draw the characters" "$programs/render_glyphs" --out "$out/data" \
  --characters "$characters" --size "$size" --seed "$seed" --distortion 1

classes() { awk '{ n = $2 } END { print n + 1 }' "$1"; }  # labels rise from 0
train=$(classes "$out/data/train_list.txt")
test=$(classes "$out/data/test_list.txt")

# ---- Training and evaluation -----------------------------------------------------------------
# `rec` leaves metrics.jsonl, results.json and rankings.json in $out/run for the report; their
# formats stand in examples/quickstart/report.cpp.
config=(-c examples/configs/quickstart.yaml
  -o "Global.output_dir=$out/run"
  -o "Global.device=$device"
  -o "Global.seed=$seed"
  -o "Global.image_shape=[3, $size, $size]"
  -o "Arch.Head.class_num=$train"
  -o "DataLoader.Train.dataset.image_root=$out/data"
  -o "DataLoader.Train.dataset.cls_label_path=$out/data/train_list.txt"
  -o "DataLoader.Train.dataset.transform_ops.1.ResizeImage.size=$size"
  -o "DataLoader.Eval.dataset.image_root=$out/data"
  -o "DataLoader.Eval.dataset.cls_label_path=$out/data/test_list.txt"
  -o "DataLoader.Eval.dataset.transform_ops.1.ResizeImage.size=$size")
if [[ -n $epochs ]]; then config+=(-o "Global.epochs=$epochs"); fi
if [[ -n $scale ]]; then config+=(-o "Arch.Backbone.scale=$scale"); fi

step "Train" "$programs/$rec" train "${config[@]}"
step "Compare with raw pixels and the untrained network" "$programs/$rec" compare "${config[@]}"
step "Extract the features of the test set" \
  "$programs/$rec" extract "${config[@]}" --out "$out/test_features.npy"
read -r image _ <"$out/data/test_list.txt"
step "Answer a query" "$programs/$rec" query "${config[@]}" \
  --features "$out/test_features.npy" --image "$out/data/$image"
# ----------------------------------------------------------------------------------------------

faces=$(awk -F '\t' '!/^#/ && $2 > 0' "$out/data/faces.txt" | wc -l)
printf '\n== Metrics on characters never seen in training\n'
"$programs/report" "$out/run" --out "$out/report.html" --light-ink \
  --title "Chinese characters, found by their look" \
  --about "A network learned to tell $train Chinese characters apart, drawn in $faces typefaces, \
slightly turned, scaled and shifted. It is tested on $test characters that it has never seen: \
every test image asks for the other images of its character." \
  --setting "characters=$train to train, $test to test" --setting "image size=$size" \
  "${times[@]}"
