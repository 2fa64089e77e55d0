#!/usr/bin/env bash
# Every head and every loss beside the others: the same first weights, images, batches and training
# time, several seeds, one table and one plot. About 40 minutes on two cores with the defaults.
#   bash examples/methods.sh [--build-dir build] [options of rec methods: --seconds --seeds --only]
set -euo pipefail
export LC_ALL=C.UTF-8
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build
if [[ ${1-} == --build-dir ]]; then build=$2; shift 2; fi
out=$build/methods
bash cmake/install_packages.sh build fonts
options=()
if [[ ! -f $build/CMakeCache.txt ]]; then options=(-DCMAKE_BUILD_TYPE=Release -DKINDRED_TESTS=OFF); fi
cmake -S . -B "$build" -DKINDRED_EXAMPLES=ON "${options[@]}"
cmake --build "$build" --parallel "$(nproc)" --target render_glyphs rec
"$build/examples/render_glyphs" --out "$out/data" --characters 1000 --size 64 --distortion 1

classes=$(awk '{ n = $2 } END { print n + 1 }' "$out/data/train_list.txt")
config=(-c examples/configs/quickstart.yaml
  -o "Arch.Head={name: FC, embedding_size: 256, class_num: $classes}"
  -o "DataLoader.Train.dataset.image_root=$out/data"
  -o "DataLoader.Train.dataset.cls_label_path=$out/data/train_list.txt"
  -o "DataLoader.Eval.dataset.image_root=$out/data"
  -o "DataLoader.Eval.dataset.cls_label_path=$out/data/test_list.txt")
# What all methods begin from, in the place of a network trained on ImageNet.
"$build/examples/rec" train "${config[@]}" -o Global.epochs=10 -o Global.eval_during_train=False \
  -o "Global.output_dir=$out/start"
"$build/examples/rec" methods "${config[@]}" --methods examples/configs/methods.yaml \
  -o "Arch.Backbone.pretrained=$out/start/latest.safetensors" --out "$out" "$@"
