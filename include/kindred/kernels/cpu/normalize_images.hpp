#pragma once
// Bound by memory: a byte is read and a number written.

#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/normalize_images.hpp>

namespace kindred::cpu {

template <class T>
void normalize_images(Context& ctx, std::int64_t n, const std::uint8_t* pixels,
                      const PixelTable& table, T* images) {
  ctx.parallel_ranges(n / 3, 1 << 13, [=, &table](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = 3 * begin; i < 3 * end; i += 3)
      for (std::size_t c = 0; c < 3; ++c) {
        const auto at = i + static_cast<std::int64_t>(c);
        images[at] = static_cast<T>(table.at(pixels[at], c));
      }
  });
}

}  // namespace kindred::cpu
