#pragma once
// Vectors of float from and to BF16 in memory. Both ways of rounding give the same bits, those of
// to_bfloat16(), so that results do not depend on what a machine has.

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <kindred/core/bfloat16.hpp>
#include <kindred/kernels/cpu/simd.hpp>

namespace kindred::cpu {

inline float load_bfloat16(const BFloat16* p, std::type_identity<float>) { return to_float(*p); }
inline void store_bfloat16_portable(BFloat16* p, float v) { *p = to_bfloat16(v); }

#ifdef __CUDACC__  // nvcc does not know the conversions of vectors

inline Vector<float> load_bfloat16(const BFloat16* p, std::type_identity<Vector<float>>) {
  alignas(64) float values[vector_size<float>];
  for (std::int64_t i = 0; i < vector_size<float>; ++i) values[i] = to_float(p[i]);
  return Vector<float>::load_aligned(values);
}
inline void store_bfloat16_portable(BFloat16* p, const Vector<float>& v) {
  alignas(64) float values[vector_size<float>];
  v.store_aligned(values);
  for (std::int64_t i = 0; i < vector_size<float>; ++i) p[i] = to_bfloat16(values[i]);
}

#else

using BFloat16Lanes [[gnu::vector_size(vector_size<float> * 2)]] = std::uint16_t;
using FloatBitLanes [[gnu::vector_size(vector_size<float> * 4)]] = std::uint32_t;

inline Vector<float> load_bfloat16(const BFloat16* p, std::type_identity<Vector<float>>) {
  BFloat16Lanes halves;
  std::memcpy(&halves, p, sizeof halves);
  const FloatBitLanes words = __builtin_convertvector(halves, FloatBitLanes) << 16;
  Vector<float> v;
  std::memcpy(&v, &words, sizeof v);
  return v;
}
/// In integer arithmetic.
inline void store_bfloat16_portable(BFloat16* p, const Vector<float>& v) {
  FloatBitLanes u;
  std::memcpy(&u, &v, sizeof u);
  const FloatBitLanes upper = u >> 16;
  FloatBitLanes rounded = (u + 0x7FFFu + (upper & 1u)) >> 16;
  rounded = (u & 0x7F800000u) == 0 ? upper & 0x8000u : rounded;
  rounded = (u & 0x7FFFFFFFu) > 0x7F800000u ? upper | 0x40u : rounded;
  const BFloat16Lanes halves = __builtin_convertvector(rounded, BFloat16Lanes);
  std::memcpy(p, &halves, sizeof halves);
}

#endif

/// V is Vector<float> or float.
template <class V>
inline V load_bfloat16(const BFloat16* p) {
  return load_bfloat16(p, std::type_identity<V>{});
}
/// By the instruction where the target has it.
template <class V>
inline void store_bfloat16(BFloat16* p, const V& v) {
#if defined(__AVX512BF16__) && !defined(__CUDACC__)
  if constexpr (sizeof(V) == 64) {
    const auto halves = _mm512_cvtneps_pbh(v);
    std::memcpy(p, &halves, sizeof halves);
    return;
  }
#endif
  store_bfloat16_portable(p, v);
}

}  // namespace kindred::cpu
