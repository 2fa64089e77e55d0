#pragma once
// The losses between a model and its teacher by their names in YAML. To be included in
// one file of a program that reads models from YAML: it registers them on the processor.

#include <kindred/config/distillation_entries.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>

namespace kindred::config::detail {

inline const bool distillation_registered = register_distillation<Cpu>();

}  // namespace kindred::config::detail
