#pragma once
// Bound by memory: the forward reads x and writes y, the backward reads dy and x and writes dx.

#include <cstdint>

#include <kindred/kernels/cuda/image_channels.cuh>

namespace kindred::cuda {

template <class T>
struct ChannelScaleForward {
  __device__ void operator()(T s, T& y, T x) const { y = s * x; }
};

template <class T>
void channel_scale_forward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                           std::int64_t channels, const T* x, const T* s, T* y) {
  transform_images(ctx, "channel_scale_forward", batch, pixels, channels, ChannelScaleForward<T>{},
                   s, y, x);
}

/// dx = dy s on the way; what is summed is dy x.
template <class T>
struct ChannelScaleBackward {
  const T *dy, *x;
  T* dx;
  __device__ T operator()(std::int64_t i, T s) const {
    const T g = dy[i], in = x[i];  // before the store: dx may be either
    dx[i] = g * s;
    return g * in;
  }
};

template <class T>
void channel_scale_backward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                            std::int64_t channels, const T* dy, const T* x, const T* s, T* dx,
                            T* ds) {
  sum_over_pixels(ctx, "channel_scale_backward", batch, pixels, channels,
                  ChannelScaleBackward<T>{dy, x, dx}, s, T(1), ds);
}

}  // namespace kindred::cuda
