#pragma once
// Bound by memory: the fine map is read (and, forward, written) once.

#include <algorithm>
#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

template <class T>
void upsample_add(Context& ctx, std::int64_t batch, std::int64_t coarse_h, std::int64_t coarse_w,
                  std::int64_t height, std::int64_t width, std::int64_t channels, const T* x,
                  T* y) {
  ctx.parallel_for(batch * height, [=](std::int64_t row) {
    const std::int64_t b = row / height, from = row % height * coarse_h / height;
    for (std::int64_t w = 0; w < width; ++w) {
      const T* in = x + ((b * coarse_h + from) * coarse_w + w * coarse_w / width) * channels;
      T* out = y + (row * width + w) * channels;
      vector_loop<T>(channels, [=](auto lane, std::int64_t c) {
        using V = typename decltype(lane)::type;
        store_lanes(out + c, V(load_lanes<V>(out + c) + load_lanes<V>(in + c)));
      });
    }
  });
}

template <class T>
void upsample_add_backward(Context& ctx, std::int64_t batch, std::int64_t coarse_h,
                           std::int64_t coarse_w, std::int64_t height, std::int64_t width,
                           std::int64_t channels, const T* dy, T* dx) {
  ctx.parallel_for(batch * coarse_h, [=](std::int64_t row) {
    const std::int64_t b = row / coarse_h, i = row % coarse_h;
    // The fine rows h with floor(h H'/H) = i.
    const std::int64_t begin = (i * height + coarse_h - 1) / coarse_h;
    const std::int64_t end = ((i + 1) * height + coarse_h - 1) / coarse_h;
    T* out = dx + row * coarse_w * channels;
    std::fill(out, out + coarse_w * channels, T(0));
    for (std::int64_t h = begin; h < end; ++h)
      for (std::int64_t w = 0; w < width; ++w) {
        const T* in = dy + ((b * height + h) * width + w) * channels;
        T* sum = out + w * coarse_w / width * channels;
        vector_loop<T>(channels, [=](auto lane, std::int64_t c) {
          using V = typename decltype(lane)::type;
          store_lanes(sum + c, V(load_lanes<V>(sum + c) + load_lanes<V>(in + c)));
        });
      }
  });
}

}  // namespace kindred::cpu
