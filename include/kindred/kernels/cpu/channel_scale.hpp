#pragma once
// Bound by memory: the forward reads x and writes y, the backward reads dy and x and writes dx.

#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

template <class T, class X>
void channel_scale_forward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                           std::int64_t channels, const X* x, const T* s, X* y) {
  ctx.parallel_for(batch, [=](std::int64_t b) {
    const T* factor = s + b * channels;
    for (std::int64_t p = 0; p < pixels; ++p) {
      const X* in = x + (b * pixels + p) * channels;
      X* out = y + (b * pixels + p) * channels;
      vector_loop<T>(channels, [=](auto lane, std::int64_t c) {
        using V = typename decltype(lane)::type;
        store_lanes(out + c, V(load_lanes<V>(in + c) * load_lanes<V>(factor + c)));
      });
    }
  });
}

template <class T, class X>
void channel_scale_backward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                            std::int64_t channels, const T* dy, const X* x, const T* s, T* dx,
                            T* ds) {
  ctx.parallel_for(batch, [=](std::int64_t b) {
    const T* factor = s + b * channels;
    T* sum = ds + b * channels;
    for (std::int64_t c = 0; c < channels; ++c) sum[c] = 0;
    for (std::int64_t p = 0; p < pixels; ++p) {
      const std::int64_t row = (b * pixels + p) * channels;
      vector_loop<T>(channels, [=](auto lane, std::int64_t c) {
        using V = typename decltype(lane)::type;
        const V g = load_lanes<V>(dy + row + c);
        const V in = load_lanes<V>(x + row + c);  // before the store: dx may be x
        store_lanes(sum + c, V(load_lanes<V>(sum + c) + g * in));
        store_lanes(dx + row + c, V(g * load_lanes<V>(factor + c)));
      });
    }
  });
}

}  // namespace kindred::cpu
