#pragma once
// One Philox call gives the numbers of four elements; computing the mask twice costs less than
// storing it.

#include <cstddef>
#include <cstdint>

#include <kindred/core/random.hpp>
#include <kindred/kernels/cuda/launch.cuh>
#include <kindred/kernels/dropout.hpp>

namespace kindred::cuda {

template <class T>
struct DropoutInference {
  T factor;
  __device__ void operator()(T& y, T x) const { y = factor * x; }
};

/// The four elements from 4 quad on.
template <class T>
struct DropoutTraining {
  RandomKey key;
  float threshold;
  T kept;
  std::int64_t n;
  const T* x;
  T* y;
  __device__ void operator()(std::int64_t quad) const {
    const auto words = philox(key, static_cast<std::uint64_t>(quad));
    for (std::size_t j = 0; j < 4; ++j) {
      const std::int64_t i = 4 * quad + static_cast<std::int64_t>(j);
      if (i < n) y[i] = uniform_from_bits(words[j]) >= threshold ? x[i] * kept : T(0);
    }
  }
};

template <class T>
void dropout_forward(Context& ctx, std::int64_t n, T p, DropoutMode mode, bool training,
                     const RandomKey& key, const T* x, T* y) {
  const bool upscale = mode == DropoutMode::upscale_in_train;
  if (!training) {
    const T factor = upscale ? T(1) : T(1) - p;
    transform(ctx, "dropout_forward", n, DropoutInference<T>{factor}, y, x);
    return;
  }
  const T kept = upscale && p < T(1) ? T(1) / (T(1) - p) : T(1);
  const float threshold = static_cast<float>(p);  // the same mask in float and double
  for_each(ctx, "dropout_forward", divide_up<std::int64_t>(n, 4),
           DropoutTraining<T>{key, threshold, kept, n, x, y});
}

}  // namespace kindred::cuda
