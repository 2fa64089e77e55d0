#pragma once
// Binary codes far from each other, one for each class.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/random.hpp>

namespace kindred::loss {

/// Hash centres [num_classes, bits] of +1 and -1. If `bits` is a power of two, the first 2 bits of
/// them are the rows of the Hadamard matrix of Sylvester, H_ij = (-1)^(number of ones in i & j),
/// and then those of -H: any two differ in at least half of the bits. All others are random with as
/// many +1 as -1 (one more +1 for an odd number); each is the first of up to 20 draws that differs
/// in more than a quarter of the bits from all before it, or else the one of them that differs
/// most. Takes O(num_classes^2 bits) time for the random ones. Source: Yuan et al., "Central
/// Similarity Quantization for Efficient Image and Video Retrieval", CVPR 2020, whose code draws
/// all random centres anew until they are far enough from each other. Throws ConfigError for
/// extents that are not positive.
inline std::vector<double> hash_centers(std::int64_t num_classes, std::int64_t bits,
                                        std::uint64_t seed = 0) {
  if (num_classes < 1 || bits < 1)
    throw ConfigError(
        text("hash centres: num_classes ", num_classes, " and bits ", bits, " must be positive"));
  const auto width = static_cast<std::size_t>(bits), count = static_cast<std::size_t>(num_classes);
  const std::size_t regular = std::has_single_bit(width) ? std::min(count, 2 * width) : 0;
  std::vector<double> centers(count * width);
  for (std::size_t c = 0; c < regular; ++c)
    for (std::size_t b = 0; b < width; ++b) {
      const bool odd = std::popcount((c % width) & b) % 2 == 1;
      centers[c * width + b] = odd != (c >= width) ? -1 : 1;
    }
  const auto nearest = [&](const std::vector<double>& draw, std::size_t before) {
    std::size_t least = width;
    for (std::size_t c = 0; c < before; ++c) {
      std::size_t different = 0;
      for (std::size_t b = 0; b < width; ++b) different += centers[c * width + b] != draw[b];
      least = std::min(least, different);
    }
    return least;
  };
  for (std::size_t c = regular; c < count; ++c) {
    RandomSequence random({seed, stream_of("hash centers"), c});
    std::vector<double> draw(width, 1), best;
    std::fill_n(draw.begin(), width / 2, -1.0);
    std::size_t farthest = 0;
    for (int attempt = 0; attempt < 20 && 4 * farthest <= width; ++attempt) {
      random.shuffle(draw);
      const std::size_t distance = nearest(draw, c);
      if (!best.empty() && distance <= farthest) continue;
      farthest = distance;
      best = draw;
    }
    std::copy(best.begin(), best.end(), centers.begin() + static_cast<std::ptrdiff_t>(c * width));
  }
  return centers;
}

}  // namespace kindred::loss
