#pragma once
// One Philox call gives the numbers of four elements; computing the mask twice costs less than
// storing it. Each direction reads an array and writes one.

#include <algorithm>
#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/core/random.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/dropout.hpp>

namespace kindred::cpu {

template <class T>
void dropout_forward(Context& ctx, std::int64_t n, T p, DropoutMode mode, bool training,
                     const RandomKey& key, const T* x, T* y) {
  const bool upscale = mode == DropoutMode::upscale_in_train;
  if (!training) {
    const T factor = upscale ? T(1) : T(1) - p;
    parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
      using V = typename decltype(lane)::type;
      store_lanes(y + i, V(V(factor) * load_lanes<V>(x + i)));
    });
    return;
  }
  const T kept = upscale && p < T(1) ? T(1) / (T(1) - p) : T(1);
  const float threshold = static_cast<float>(p);  // the same mask in float and double
  const std::int64_t quads = (n + 3) / 4;
  ctx.parallel_ranges(quads, 1 << 12, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t quad = begin; quad < end; ++quad) {
      const auto words = philox(key, static_cast<std::uint64_t>(quad));
      const std::int64_t count = std::min<std::int64_t>(4, n - 4 * quad);
      for (std::int64_t j = 0; j < count; ++j) {
        const bool keep = uniform_from_bits(words[static_cast<std::size_t>(j)]) >= threshold;
        y[4 * quad + j] = keep ? x[4 * quad + j] * kept : T(0);
      }
    }
  });
}

}  // namespace kindred::cpu
