#pragma once
// Bound by memory: the forward reads x and writes y, the backward reads dy and x and writes dx.

#include <cstdint>

#include <kindred/kernels/cuda/bfloat16.cuh>
#include <kindred/kernels/cuda/image_channels.cuh>

namespace kindred::cuda {

template <class X>
struct ChannelScaleForward {
  __device__ void operator()(ComputeOf<X> s, X& y, X x) const { y = stored_as<X>(s * widened(x)); }
};

/// x and y both in T or both in BF16.
template <class X, class T>
void channel_scale_forward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                           std::int64_t channels, const X* x, const T* s, X* y) {
  transform_images(ctx, "channel_scale_forward", batch, pixels, channels, ChannelScaleForward<X>{},
                   s, y, x);
}

/// dx = dy s on the way; what is summed is dy x.
template <class X, class T>
struct ChannelScaleBackward {
  const T* dy;
  const X* x;
  T* dx;
  __device__ T operator()(std::int64_t i, T s) const {
    const T g = dy[i], in = widened(x[i]);  // before the store: dx may be either
    dx[i] = g * s;
    return g * in;
  }
};

template <class X, class T>
void channel_scale_backward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                            std::int64_t channels, const T* dy, const X* x, const T* s, T* dx,
                            T* ds) {
  sum_over_pixels(ctx, "channel_scale_backward", batch, pixels, channels,
                  ChannelScaleBackward<X, T>{dy, x, dx}, s, T(1), ds);
}

}  // namespace kindred::cuda
