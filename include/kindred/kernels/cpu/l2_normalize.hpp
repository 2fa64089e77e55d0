#pragma once
// Rows are short (a feature has 64 to 2048 elements): one pass for the sum in double, which
// neither overflows nor underflows for any float row, and one to write. Memory moves every array
// once, since a row stays in L1 between the passes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <kindred/core/context.hpp>
#include <kindred/kernels/l2_normalize.hpp>

namespace kindred::cpu {

/// What a row of norm n is divided by; infinity stands for "the result is 0".
template <class T>
T norm_divisor(NormRule rule, T eps, T n) {
  switch (rule) {
    case NormRule::max_eps:
      return std::max(n, eps);
    case NormRule::add_eps:
      return n + eps;
    case NormRule::none:
      break;
  }
  return n == T(0) ? std::numeric_limits<T>::infinity() : n;
}

/// a.b in double: four partial sums, so that the additions overlap.
template <class T>
double dot_double(std::int64_t n, const T* a, const T* b) {
  double sum[4] = {0, 0, 0, 0};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int j = 0; j < 4; ++j) sum[j] += static_cast<double>(a[i + j]) * b[i + j];
  for (; i < n; ++i) sum[0] += static_cast<double>(a[i]) * b[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/// Rows per chunk of a kernel over feature rows of `dim` elements.
inline std::int64_t feature_rows_per_chunk(std::int64_t dim) {
  return std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(dim, 1));
}

template <class T>
void l2_normalize_forward(Context& ctx, std::int64_t batch, std::int64_t dim, NormRule rule, T eps,
                          const T* x, T* norm, T* y) {
  ctx.parallel_ranges(batch, feature_rows_per_chunk(dim), [=](std::int64_t b, std::int64_t end) {
    for (; b < end; ++b) {
      const T* in = x + b * dim;
      norm[b] = static_cast<T>(std::sqrt(dot_double(dim, in, in)));
      const T divisor = norm_divisor(rule, eps, norm[b]);
      for (std::int64_t d = 0; d < dim; ++d) y[b * dim + d] = in[d] / divisor;
    }
  });
}

template <class T>
void l2_normalize_backward(Context& ctx, std::int64_t batch, std::int64_t dim, NormRule rule, T eps,
                           const T* dy, const T* y, const T* norm, T* dx) {
  ctx.parallel_ranges(batch, feature_rows_per_chunk(dim), [=](std::int64_t b, std::int64_t end) {
    for (; b < end; ++b) {
      const T n = norm[b], divisor = norm_divisor(rule, eps, n);
      const T *g = dy + b * dim, *out = y + b * dim;
      // d divisor / d n is 0 where the floor eps is used, else 1.
      const bool moves = n > T(0) && !(rule == NormRule::max_eps && n <= eps);
      const T along = moves ? static_cast<T>(dot_double(dim, g, out)) * (divisor / n) : T(0);
      for (std::int64_t d = 0; d < dim; ++d) dx[b * dim + d] = (g[d] - out[d] * along) / divisor;
    }
  });
}

}  // namespace kindred::cpu
