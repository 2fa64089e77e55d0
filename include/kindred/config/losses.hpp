#pragma once
// The losses on features, and on features and logits, by their names in YAML. Settings have the
// names of PaddleClas or pytorch-metric-learning, and `weight` and `feature_from` as every loss.
// To be included in one file of a program that reads models from YAML: it registers them all, and
// takes longer to compile than the rest of the configuration.

#include <kindred/config/loss_entries.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>

namespace kindred::config::detail {

inline const bool feature_losses_registered = register_losses<Cpu>();

}  // namespace kindred::config::detail
