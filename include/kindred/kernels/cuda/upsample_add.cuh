#pragma once
// Bound by memory: the fine map is read (and, forward, written) once.

#include <cstdint>

#include <kindred/kernels/cuda/launch.cuh>

namespace kindred::cuda {

/// Extents of a coarse and a fine map.
struct UpsampleExtents {
  std::int64_t coarse_h, coarse_w, height, width, channels;
};

template <class T>
struct UpsampleAdd {
  UpsampleExtents e;
  const T* x;
  T* y;
  __device__ void operator()(std::int64_t i) const {
    const std::int64_t at = quotient(i, e.channels), c = i - at * e.channels;
    const std::int64_t row = quotient(at, e.width), w = at - row * e.width;
    const std::int64_t b = quotient(row, e.height);
    const std::int64_t from = quotient((row - b * e.height) * e.coarse_h, e.height);
    const std::int64_t pixel =
        (b * e.coarse_h + from) * e.coarse_w + quotient(w * e.coarse_w, e.width);
    y[i] += x[pixel * e.channels + c];
  }
};

template <class T>
void upsample_add(Context& ctx, std::int64_t batch, std::int64_t coarse_h, std::int64_t coarse_w,
                  std::int64_t height, std::int64_t width, std::int64_t channels, const T* x,
                  T* y) {
  for_each(ctx, "upsample_add", batch * height * width * channels,
           UpsampleAdd<T>{{coarse_h, coarse_w, height, width, channels}, x, y});
}

template <class T>
struct UpsampleAddBackward {
  UpsampleExtents e;
  const T* dy;
  T* dx;
  __device__ void operator()(std::int64_t i) const {
    const std::int64_t at = quotient(i, e.channels), c = i - at * e.channels;
    const std::int64_t row = quotient(at, e.coarse_w), w = at - row * e.coarse_w;
    const std::int64_t b = quotient(row, e.coarse_h);
    // The fine h with floor(h H'/H) = this row, and the fine w likewise.
    const std::int64_t h = row - b * e.coarse_h;
    const std::int64_t begin_h = (h * e.height + e.coarse_h - 1) / e.coarse_h;
    const std::int64_t end_h = ((h + 1) * e.height + e.coarse_h - 1) / e.coarse_h;
    const std::int64_t begin_w = (w * e.width + e.coarse_w - 1) / e.coarse_w;
    const std::int64_t end_w = ((w + 1) * e.width + e.coarse_w - 1) / e.coarse_w;
    T sum = 0;
    for (std::int64_t y = begin_h; y < end_h; ++y)
      for (std::int64_t x = begin_w; x < end_w; ++x)
        sum += dy[((b * e.height + y) * e.width + x) * e.channels + c];
    dx[i] = sum;
  }
};

template <class T>
void upsample_add_backward(Context& ctx, std::int64_t batch, std::int64_t coarse_h,
                           std::int64_t coarse_w, std::int64_t height, std::int64_t width,
                           std::int64_t channels, const T* dy, T* dx) {
  for_each(ctx, "upsample_add_backward", batch * coarse_h * coarse_w * channels,
           UpsampleAddBackward<T>{{coarse_h, coarse_w, height, width, channels}, dy, dx});
}

}  // namespace kindred::cuda
