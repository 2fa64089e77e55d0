#pragma once
// Moves B*P*C*sizeof(T) bytes once in each direction; P = pixels. Bound by memory.

#include <cstdint>
#include <type_traits>

#include <kindred/core/bfloat16.hpp>
#include <kindred/core/context.hpp>

namespace kindred::cpu {

template <class T, class X>
void global_average_pool_forward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                 std::int64_t channels, const X* x, T* y) {
  ctx.parallel_for(batch, [=](std::int64_t b) {
    T* out = y + b * channels;
    for (std::int64_t c = 0; c < channels; ++c) out[c] = 0;
    for (std::int64_t p = 0; p < pixels; ++p) {
      const X* in = x + (b * pixels + p) * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        if constexpr (std::is_same_v<X, T>)
          out[c] += in[c];
        else
          out[c] += to_float(in[c]);
      }
    }
    for (std::int64_t c = 0; c < channels; ++c) out[c] /= static_cast<T>(pixels);
  });
}

template <class T>
void global_average_pool_backward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                  std::int64_t channels, const T* dy, T* dx) {
  ctx.parallel_for(batch, [=](std::int64_t b) {
    const T* in = dy + b * channels;
    for (std::int64_t p = 0; p < pixels; ++p) {
      T* out = dx + (b * pixels + p) * channels;
      for (std::int64_t c = 0; c < channels; ++c) out[c] = in[c] / static_cast<T>(pixels);
    }
  });
}

}  // namespace kindred::cpu
