#pragma once
// Counter-based random numbers: the value depends on (seed, stream, step, index) alone, never on
// the order or the thread in which it is asked for. So a resumed run and a run with another number
// of threads draw the same numbers.

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>

#include <kindred/core/macros.hpp>

namespace kindred {

/// The seed of a run; its own type so that it cannot be confused with another number.
struct Seed {
  std::uint64_t value = 0;
};

/// Names one sequence of random numbers.
struct RandomKey {
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  ///< who draws: a layer, a sampler, a transform
  std::uint64_t step = 0;    ///< when: a training step, an epoch, an image
};

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
/// Returns four 32-bit words for position `index` of the sequence `key`.
KINDRED_HD inline std::array<std::uint32_t, 4> philox(const RandomKey& key, std::uint64_t index) {
  // The 128-bit counter holds index and step; the 64-bit key mixes seed and stream.
  const std::uint64_t mixed = key.seed ^ (key.stream * 0x9E3779B97F4A7C15ull);
  std::uint32_t k0 = static_cast<std::uint32_t>(mixed),
                k1 = static_cast<std::uint32_t>(mixed >> 32);
  std::uint32_t c0 = static_cast<std::uint32_t>(index),
                c1 = static_cast<std::uint32_t>(index >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(key.step);
  std::uint32_t c3 = static_cast<std::uint32_t>(key.step >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

/// Uniform number in [0, 1) with 24 random bits (exact in float).
KINDRED_HD inline float uniform_from_bits(std::uint32_t bits) {
  return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f);
}

/// Stable 64-bit id of a name (FNV-1a), to be used as RandomKey::stream.
constexpr std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325ull;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return hash;
}

/// The sequence of one RandomKey read from the front; a UniformRandomBitGenerator.
class RandomSequence {
 public:
  using result_type = std::uint32_t;
  explicit RandomSequence(const RandomKey& key) : key_(key) {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return 0xFFFFFFFFu; }
  result_type operator()() {
    if (used_ == 4) {
      words_ = philox(key_, index_++);
      used_ = 0;
    }
    return words_[static_cast<std::size_t>(used_++)];
  }

  /// Uniform in [0, 1).
  double uniform() {
    const std::uint64_t high = (*this)() >> 5, low = (*this)() >> 6;  // 53 bits
    return static_cast<double>((high << 26) | low) * (1.0 / 9007199254740992.0);
  }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Uniform integer in [0, n), without modulo bias; n > 0.
  std::uint64_t below(std::uint64_t n) {
    const std::uint64_t limit = ~std::uint64_t{0} - (~std::uint64_t{0} % n + 1) % n;
    for (;;) {
      const std::uint64_t high = (*this)(), low = (*this)();
      const std::uint64_t draw = (high << 32) | low;
      if (draw <= limit) return draw % n;
    }
  }
  /// Standard normal (Box-Muller; the second value is dropped to keep the sequence simple).
  double normal() {
    const double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  /// Fisher-Yates shuffle of a random access range.
  template <class Range>
  void shuffle(Range& range) {
    for (std::size_t i = range.size(); i > 1; --i) std::swap(range[i - 1], range[below(i)]);
  }

 private:
  RandomKey key_;
  std::uint64_t index_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int used_ = 4;
};

}  // namespace kindred
