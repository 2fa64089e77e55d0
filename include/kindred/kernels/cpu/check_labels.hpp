#pragma once

#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/check_labels.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>

namespace kindred::cpu {

inline void check_labels(Context& ctx, const char* place, const std::int64_t* labels,
                         std::int64_t batch, std::int64_t classes) {
  if (!ctx.planning()) check_labels(place, labels, batch, classes);
}

}  // namespace kindred::cpu
