#pragma once
// Binary codes of features, and the Hamming distances of one code to many.

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/shape.hpp>

namespace kindred::eval {

/// How a feature becomes a bit, as Global.feature_binarize of PaddleClas.
enum class Binarize {
  sign,   ///< 1 for x > 0: features around 0, as of a neck Tanh
  round,  ///< 1 for round(x) > 0, so x >= 0.5: features in [0, 1], as of a sigmoid
};

namespace detail {

inline constexpr std::int64_t most_code_bytes = 8191;  // distances and a mark fit 16 bits

inline void check_finite_features(const char* place, View<const float> x) {
  if (x.shape.rank() != 2 || x.size() == 0)
    throw ShapeError(text(place, ": expected features [N, D], got ", x.shape));
  for (std::int64_t i = 0; i < x.size(); ++i)
    if (!std::isfinite(x[i]))
      throw NumericError(text(place, ": row ", i / x.dim(1), " is not finite"));
}

inline std::int64_t popcount(std::uint64_t x) {
#if defined(__POPCNT__) || defined(__ARM_NEON)
  return std::popcount(x);
#else
  // Without the instruction: sums of neighbouring bits, which compilers turn into vector code.
  x -= (x >> 1) & 0x5555555555555555u;
  x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
  x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
  x += x >> 8;
  x += x >> 16;
  x += x >> 32;
  return static_cast<std::int64_t>(x & 0x7F);
#endif
}

inline std::uint64_t load_word(const std::uint8_t* from) {
  std::uint64_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

/// Codes of a whole number of 64-bit words, known to the compiler: it fills whole vectors.
template <std::size_t words>
void word_distances(const std::uint8_t* query, const std::uint8_t* codes, std::int64_t n,
                    std::uint16_t* distances) {
  std::uint64_t q[words];
  std::memcpy(q, query, sizeof q);
  for (std::int64_t j = 0; j < n; ++j) {
    std::int64_t sum = 0;
    for (std::size_t w = 0; w < words; ++w)
      sum += popcount(q[w] ^ load_word(codes + (static_cast<std::size_t>(j) * words + w) * 8));
    distances[j] = static_cast<std::uint16_t>(sum);
  }
}

inline void byte_distances(const std::uint8_t* query, const std::uint8_t* codes, std::int64_t bytes,
                           std::int64_t n, std::uint16_t* distances) {
  for (std::int64_t j = 0; j < n; ++j) {
    const std::uint8_t* code = codes + j * bytes;
    std::int64_t sum = 0, b = 0;
    for (; b + 8 <= bytes; b += 8) sum += popcount(load_word(query + b) ^ load_word(code + b));
    for (; b < bytes; ++b) sum += popcount(std::uint64_t{query[b]} ^ code[b]);
    distances[j] = static_cast<std::uint16_t>(sum);
  }
}

/// Hamming distances of a query code with n codes of `bytes` bytes each.
inline void hamming_distances(const std::uint8_t* query, const std::uint8_t* codes,
                              std::int64_t bytes, std::int64_t n, std::uint16_t* distances) {
  switch (bytes) {
    case 8:
      return word_distances<1>(query, codes, n, distances);
    case 16:
      return word_distances<2>(query, codes, n, distances);
    case 32:
      return word_distances<4>(query, codes, n, distances);
    case 64:
      return word_distances<8>(query, codes, n, distances);
    default:
      return byte_distances(query, codes, bytes, n, distances);
  }
}

}  // namespace detail

/// The real-valued form of codes, as PaddleClas evaluates them: x [N,D] to sign(x), where sign(0) =
/// 0, or to 2 round(x) - 1, halves away from zero. Throws ShapeError, NumericError.
inline std::vector<float> binarize(View<const float> x, Binarize how = Binarize::sign) {
  detail::check_finite_features("binarize", x);
  std::vector<float> y(static_cast<std::size_t>(x.size()));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const float v = x.data[i];
    y[i] = how == Binarize::sign ? static_cast<float>(v > 0) - static_cast<float>(v < 0)
                                 : 2 * std::round(v) - 1;
  }
  return y;
}

/// Packed codes of features x [N,D]: bytes [N, ceil(D/8)], column 0 in the highest bit of the first
/// byte, zeros behind the last column. So numpy.packbits packs, and Binarize in PaddleClas'
/// deploy/python/postprocess.py; FAISS reads it (for D a multiple of 8).
/// Throws ShapeError, NumericError (features that are not finite, with the row).
inline std::vector<std::uint8_t> pack_codes(View<const float> x, Binarize how = Binarize::sign) {
  detail::check_finite_features("pack_codes", x);
  const std::int64_t columns = x.dim(1), bytes = (columns + 7) / 8;
  const float limit = how == Binarize::sign ? std::numeric_limits<float>::denorm_min() : 0.5f;
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(x.dim(0) * bytes));
  for (std::int64_t i = 0; i < x.dim(0); ++i)
    for (std::int64_t c = 0; c < columns; ++c)
      if (x.row(i)[c] >= limit)
        codes[static_cast<std::size_t>(i * bytes + c / 8)] |=
            static_cast<std::uint8_t>(0x80u >> (c % 8));
  return codes;
}

/// Hamming distance of two packed codes of the same number of bytes.
inline std::int64_t hamming_distance(View<const std::uint8_t> a, View<const std::uint8_t> b) {
  check_shape("hamming_distance", b.shape, a.shape);
  if (a.size() > detail::most_code_bytes)
    throw ShapeError(text("hamming_distance: codes have at most ", detail::most_code_bytes,
                          " bytes, not ", a.size()));
  std::uint16_t distance = 0;
  detail::hamming_distances(a.data, b.data, a.size(), 1, &distance);
  return distance;
}

}  // namespace kindred::eval
