#pragma once

#include <cstdint>

#include <kindred/kernels/check_labels.hpp>
#include <kindred/kernels/cuda/launch.cuh>

namespace kindred::cuda {

/// Notes in *error whether a label is no class; nothing else reads or writes it meanwhile.
struct CheckLabels {
  const std::int64_t* labels;
  std::int64_t classes;
  int* error;
  __device__ void operator()(std::int64_t i) const {
    if (labels[i] < 0 || labels[i] >= classes) store_same(error, 1);
  }
};

/// The host cannot know before the kernel has run: Context::synchronize() throws the DataError.
inline void check_labels(Context& ctx, const char* place, const std::int64_t* labels,
                         std::int64_t batch, std::int64_t classes) {
  for_each(ctx, place, batch, CheckLabels{labels, classes, ctx.label_error()});
}

}  // namespace kindred::cuda
