#pragma once
// One row per group: one pass for the sum in double, which neither overflows nor underflows for any
// float row, and one to write; the second finds the row in the cache.

#include <cmath>
#include <cstdint>
#include <limits>

#include <kindred/kernels/cuda/pair_rows.cuh>
#include <kindred/kernels/l2_normalize.hpp>

namespace kindred::cuda {

/// What a row of norm n is divided by; infinity stands for "the result is 0".
template <class T>
__device__ T norm_divisor(NormRule rule, T eps, T n) {
  switch (rule) {
    case NormRule::max_eps:
      return n < eps ? eps : n;  // keeps NaN
    case NormRule::add_eps:
      return n + eps;
    case NormRule::none:
      break;
  }
  return n == T(0) ? std::numeric_limits<T>::infinity() : n;
}

/// a.b in double.
template <class Group, class T>
__device__ double dot_double(const Group& group, std::int64_t n, const T* a, const T* b) {
  return group.sum(n, [&](std::int64_t i) { return static_cast<double>(a[i]) * b[i]; });
}

template <class T>
struct NormalizeForward {
  std::int64_t dim;
  NormRule rule;
  T eps;
  const T* x;
  T *norm, *y;
  template <class Group>
  __device__ void operator()(const Group& group, std::int64_t b) const {
    const T* in = x + b * dim;
    T* out = y + b * dim;
    const T n = static_cast<T>(std::sqrt(dot_double(group, dim, in, in)));
    const T divisor = norm_divisor(rule, eps, n);
    group.for_each(dim, [&](std::int64_t d) { out[d] = in[d] / divisor; });
    group.once([&] { norm[b] = n; });
  }
};

template <class T>
void l2_normalize_forward(Context& ctx, std::int64_t batch, std::int64_t dim, NormRule rule, T eps,
                          const T* x, T* norm, T* y) {
  for_pair_rows(ctx, batch, dim, NormalizeForward<T>{dim, rule, eps, x, norm, y});
}

template <class T>
struct NormalizeBackward {
  std::int64_t dim;
  NormRule rule;
  T eps;
  const T *dy, *y, *norm;
  T* dx;
  template <class Group>
  __device__ void operator()(const Group& group, std::int64_t b) const {
    const T n = norm[b], divisor = norm_divisor(rule, eps, n);
    const T *g = dy + b * dim, *out = y + b * dim;
    // d divisor / d n is 0 where the floor eps is used, else 1.
    const bool moves = n > T(0) && !(rule == NormRule::max_eps && n <= eps);
    const T dot = static_cast<T>(dot_double(group, dim, g, out));
    const T along = moves ? dot * (divisor / n) : T(0);
    group.for_each(dim,
                   [&](std::int64_t d) { dx[b * dim + d] = (g[d] - out[d] * along) / divisor; });
  }
};

template <class T>
void l2_normalize_backward(Context& ctx, std::int64_t batch, std::int64_t dim, NormRule rule, T eps,
                           const T* dy, const T* y, const T* norm, T* dx) {
  for_pair_rows(ctx, batch, dim, NormalizeBackward<T>{dim, rule, eps, dy, y, norm, dx});
}

}  // namespace kindred::cuda
