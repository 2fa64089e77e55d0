#pragma once
// Moves B*P*C*sizeof(T) bytes once in each direction; P = pixels. Bound by memory.

#include <cstdint>

#include <kindred/kernels/cuda/bfloat16.cuh>
#include <kindred/kernels/cuda/image_channels.cuh>

namespace kindred::cuda {

template <class X>
struct PoolTerm {
  using T = ComputeOf<X>;
  const X* x;
  __device__ T operator()(std::int64_t i, T) const { return widened(x[i]); }
};

template <class X, class T>
void global_average_pool_forward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                 std::int64_t channels, const X* x, T* y) {
  sum_over_pixels(ctx, "global_average_pool_forward", batch, pixels, channels, PoolTerm<X>{x},
                  static_cast<const T*>(nullptr), T(1) / static_cast<T>(pixels), y);
}

template <class T>
struct PoolBackward {
  T factor;
  __device__ void operator()(T dy, T& dx) const { dx = factor * dy; }
};

template <class T>
void global_average_pool_backward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                  std::int64_t channels, const T* dy, T* dx) {
  transform_images(ctx, "global_average_pool_backward", batch, pixels, channels,
                   PoolBackward<T>{T(1) / static_cast<T>(pixels)}, dy, dx);
}

}  // namespace kindred::cuda
