#pragma once
// BF16: the upper half of a float, for storing what is computed in float.

#include <bit>
#include <cstdint>

#include <kindred/core/macros.hpp>

namespace kindred {

/// 1 sign, 8 exponent and 7 mantissa bits: the range of float, with a relative error of at most
/// 2^-8 in rounding. A type to store; arithmetic is done in float.
struct BFloat16 {
  std::uint16_t bits;
  friend constexpr bool operator==(BFloat16 a, BFloat16 b) { return a.bits == b.bits; }
};

/// Exact.
KINDRED_HD constexpr float to_float(BFloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}
KINDRED_HD constexpr float to_float(float x) { return x; }

/// The nearest BF16, of two equally near ones the even one, as the instruction vcvtneps2bf16 has it
/// on every machine: infinities stay, what rounds beyond the largest becomes one; a NaN stays one,
/// made quiet; a subnormal (|x| < 2^-126) becomes the zero of its sign.
KINDRED_HD constexpr BFloat16 to_bfloat16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t upper = u >> 16, exponent = u & 0x7F800000u;
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<std::uint16_t>(upper | 0x40u)};
  if (exponent == 0) return {static_cast<std::uint16_t>(upper & 0x8000u)};
  return {static_cast<std::uint16_t>((u + 0x7FFFu + (upper & 1u)) >> 16)};
}

}  // namespace kindred
