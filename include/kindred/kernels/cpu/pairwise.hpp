#pragma once
// Matrix products carry the work: 2 B^2 D operations in each direction on 2 B D + B^2 numbers. The
// rest reads and writes a B x B matrix once or twice.

#include <algorithm>
#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/gemm.hpp>

namespace kindred::cpu {

template <class T>
void gram_matrix(Context& ctx, std::int64_t batch, std::int64_t dim, const T* x, T* g) {
  gemm(ctx, Transpose::no, Transpose::yes, batch, batch, dim, x, dim, x, dim, g, batch, false);
}

template <class T>
void squared_distances(Context& ctx, std::int64_t batch, std::int64_t dim, const T* x, T floor,
                       T* d2) {
  auto squares = ctx.template make<T>({batch}, "squared norms");
  gram_matrix(ctx, batch, dim, x, d2);
  if (ctx.planning()) return;
  for (std::int64_t i = 0; i < batch; ++i) squares[i] = d2[i * batch + i];
  const T* s = squares.data;
  ctx.parallel_for(batch, [=](std::int64_t i) {
    T* row = d2 + i * batch;
    for (std::int64_t j = 0; j < batch; ++j) {
      const T d = s[i] + s[j] - 2 * row[j];
      row[j] = d < floor ? floor : d;  // keeps NaN
    }
  });
}

/// dx += S x with S = C + C^T, or dx += 2 (diag(S 1) - S) x if `laplacian`.
template <class T>
void symmetric_product(Context& ctx, std::int64_t batch, std::int64_t dim, const T* coefficients,
                       bool laplacian, const T* x, T* dx) {
  auto matrix = ctx.template make<T>({batch, batch}, "symmetric coefficients");
  T* m = matrix.data;
  ctx.parallel_for(batch, [=](std::int64_t i) {
    T* row = m + i * batch;
    T sum = 0;
    for (std::int64_t j = 0; j < batch; ++j) {
      const T both = coefficients[i * batch + j] + coefficients[j * batch + i];
      sum += both;
      row[j] = laplacian ? -2 * both : both;
    }
    if (laplacian) row[i] += 2 * sum;
  });
  gemm(ctx, Transpose::no, Transpose::no, batch, dim, batch, m, batch, x, dim, dx, dim, true);
}

template <class T>
void gram_matrix_backward(Context& ctx, std::int64_t batch, std::int64_t dim, const T* coefficients,
                          const T* x, T* dx) {
  symmetric_product(ctx, batch, dim, coefficients, false, x, dx);
}

template <class T>
void pairwise_backward(Context& ctx, std::int64_t batch, std::int64_t dim, const T* coefficients,
                       const T* x, T* dx) {
  symmetric_product(ctx, batch, dim, coefficients, true, x, dx);
}

}  // namespace kindred::cpu
