#pragma once
// kindred: deep metric learning. This header is the CPU face: compose, train, evaluate and run
// models. It needs Eigen, xtensor and xsimd alone. Beside it stand, each with its own dependency:
//   kindred/io/...      weights and arrays in files        (nlohmann-json)
//   kindred/train/...   Trainer, checkpoints               (nlohmann-json)
//   kindred/data/...    image lists, transforms, loader    (OpenCV)
//   kindred/config/...  models and training from YAML      (yaml-cpp)

#include <kindred/components.hpp>
#include <kindred/eval/binary_codes.hpp>
#include <kindred/eval/class_report.hpp>
#include <kindred/eval/classification.hpp>
#include <kindred/eval/clustering.hpp>
#include <kindred/eval/hamming.hpp>
#include <kindred/eval/re_ranking.hpp>
#include <kindred/eval/retrieval.hpp>
#include <kindred/eval/verification.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/dropout.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/generalized_mean_pool.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/kernels/cpu/upsample_add.hpp>
