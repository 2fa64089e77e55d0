#pragma once
// Loops over contiguous elements in vectors, with the rest one by one, from one generic body.

#include <cstdint>
#include <type_traits>

#include <kindred/kernels/cpu/bfloat16.hpp>

namespace kindred::cpu {

/// V is Vector<T> or T: the body of a vector_loop is written once for both. Memory may hold BF16
/// where V is of float.
template <class V, class T>
inline V load_lanes(const T* p) {
  if constexpr (std::is_same_v<V, T>)
    return *p;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return load_bfloat16<V>(p);
  else
    return V::load_unaligned(p);
}
template <class V, class T>
inline void store_lanes(T* p, const V& v) {
  if constexpr (std::is_same_v<V, T>)
    *p = v;
  else if constexpr (std::is_same_v<T, BFloat16>)
    store_bfloat16(p, v);
  else
    v.store_unaligned(p);
}

/// a b + c
template <class V, class T>
inline V multiply_add(const V& a, const V& b, const V& c) {
  if constexpr (std::is_same_v<V, T>)
    return a * b + c;
  else
    return xsimd::fma(a, b, c);
}

/// Calls body(std::type_identity<V>, i) so that [0, n) is covered, i counting up.
template <class T, class Body>
inline void vector_loop(std::int64_t n, Body&& body) {
  std::int64_t i = 0;
  for (; i + vector_size<T> <= n; i += vector_size<T>) body(std::type_identity<Vector<T>>{}, i);
  for (; i < n; ++i) body(std::type_identity<T>{}, i);
}

/// to[i] = from[i], exactly or rounded to BF16: X and Y are T or BFloat16.
template <class T, class X, class Y>
inline void convert(const X* from, std::int64_t n, Y* to) {
  vector_loop<T>(n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    store_lanes(to + i, load_lanes<V>(from + i));
  });
}

/// Elements of one chunk of an elementwise kernel: large enough to pay for the scheduling.
inline constexpr std::int64_t elementwise_chunk = 1 << 15;

/// vector_loop over [0, n) on all threads.
template <class T, class Context, class Body>
inline void parallel_vector_loop(Context& ctx, std::int64_t n, Body&& body) {
  ctx.parallel_ranges(n, elementwise_chunk, [&](std::int64_t begin, std::int64_t end) {
    vector_loop<T>(end - begin, [&](auto lane, std::int64_t i) { body(lane, begin + i); });
  });
}

}  // namespace kindred::cpu
