#include <cmath>
#include <cstring>

#include <kindred/core/bfloat16.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

/// The definition: of the two BF16 beside x, as numbers of double, the nearer one, then the even.
std::uint16_t nearest(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  const auto upper = static_cast<std::uint16_t>(u >> 16);
  if (std::isnan(x)) return upper | 0x40;
  if (std::isinf(x)) return upper;
  if (std::abs(x) < std::numeric_limits<float>::min()) return upper & 0x8000;
  const auto magnitude = [](std::uint32_t half) {
    return half == 0x7F80 ? std::ldexp(1.0, 128) : double(float_of(half << 16));
  };
  const std::uint32_t below = upper & 0x7FFF, above = below + 1;
  const double value = std::abs(double(x));
  const double down = value - magnitude(below), up = magnitude(above) - value;
  const bool take_above = up < down || (up == down && above % 2 == 0);
  return static_cast<std::uint16_t>((upper & 0x8000) | (take_above ? above : below));
}

/// Every upper half with lower halves around the ties and at the ends.
std::vector<float> tricky_floats() {
  std::vector<float> values;
  for (std::uint32_t upper = 0; upper <= 0xFFFF; ++upper)
    for (const std::uint32_t lower :
         {0x0000u, 0x0001u, 0x3C5Au, 0x7FFFu, 0x8000u, 0x8001u, 0xB123u, 0xFFFFu})
      values.push_back(float_of(upper << 16 | lower));
  return values;
}

}  // namespace

TEST_CASE("BF16: rounding is to the nearest, ties to even, for every exponent and sign") {
  std::size_t wrong = 0;
  for (const float x : tricky_floats()) wrong += to_bfloat16(x).bits != nearest(x);
  CHECK(wrong == 0);
  CHECK(to_float(to_bfloat16(1.00390625f)) == 1.0f);       // 1 + 2^-8: a tie, 1 is even
  CHECK(to_float(to_bfloat16(1.01171875f)) == 1.015625f);  // 1 + 3 2^-8: a tie, up
  CHECK(std::isinf(to_float(to_bfloat16(3.4e38f))));       // beyond the largest BF16
  CHECK(to_float(to_bfloat16(3.38e38f)) < 3.4e38f);
  CHECK(std::isnan(to_float(to_bfloat16(float_of(0x7F800001u)))));  // payload below the cut
  CHECK(to_bfloat16(-1e-40f).bits == 0x8000);                       // a subnormal
}

TEST_CASE("BF16: from BF16 to float and back gives the same bits, but for NaN and subnormals") {
  std::size_t wrong = 0;
  for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const BFloat16 x{static_cast<std::uint16_t>(bits)};
    const float f = to_float(x);
    if (std::isnan(f) || std::fpclassify(f) == FP_SUBNORMAL) continue;
    wrong += to_bfloat16(f) != x;
  }
  CHECK(wrong == 0);
}

TEST_CASE("BF16: vectors, by instruction and by integers, round as the scalar definition") {
  const std::vector<float> values = tricky_floats();
  const auto n = static_cast<std::int64_t>(values.size());
  constexpr std::int64_t width = cpu::vector_size<float>;
  std::vector<BFloat16> by_vectors(values.size()), portable(values.size());
  cpu::convert<float>(values.data(), n, by_vectors.data());
  for (std::int64_t i = 0; i + width <= n; i += width)
    cpu::store_bfloat16_portable(portable.data() + i,
                                 cpu::Vector<float>::load_unaligned(values.data() + i));
  std::vector<float> back(values.size());
  cpu::convert<float>(by_vectors.data(), n, back.data());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const BFloat16 expected = to_bfloat16(values[i]);
    const float exact = to_float(expected);
    wrong += by_vectors[i] != expected || portable[i] != expected ||
             std::memcmp(&back[i], &exact, sizeof exact) != 0;
  }
  CHECK(wrong == 0);
}

TEST_CASE("BF16: a length that is no multiple of a vector is converted to its end, not beyond") {
  for (std::int64_t n = 0; n < 40; ++n) {
    const auto values = random_values<float>(n, 3);
    std::vector<BFloat16> to(static_cast<std::size_t>(n) + 1, BFloat16{0x1234});
    cpu::convert<float>(values.data(), n, to.data());
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(to[i] == to_bfloat16(values[i]));
    CHECK(to.back().bits == 0x1234);
  }
}
