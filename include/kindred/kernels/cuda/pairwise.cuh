#pragma once
// Matrix products carry the work; the rest is O(B^2).

#include <cstdint>

#include <kindred/kernels/cuda/gemm.cuh>
#include <kindred/kernels/cuda/pair_rows.cuh>

namespace kindred::cuda {

template <class T>
void gram_matrix(Context& ctx, std::int64_t batch, std::int64_t dim, const T* x, T* g) {
  gemm(ctx, Transpose::no, Transpose::yes, batch, batch, dim, x, dim, x, dim, g, batch, false);
}

/// The diagonal of a Gram matrix: the squared norms.
template <class T>
struct Diagonal {
  std::int64_t batch;
  const T* g;
  T* squares;
  __device__ void operator()(std::int64_t i) const { squares[i] = g[i * batch + i]; }
};

/// Element (i,j) of a Gram matrix becomes the squared distance.
template <class T>
struct DistanceFromGram {
  std::int64_t batch;
  const T* squares;
  T floor;
  T* d2;
  __device__ void operator()(std::int64_t i, std::int64_t j) const {
    const T d = squares[i] + squares[j] - 2 * d2[i * batch + j];
    d2[i * batch + j] = d < floor ? floor : d;  // keeps NaN
  }
};

template <class T>
void squared_distances(Context& ctx, std::int64_t batch, std::int64_t dim, const T* x, T floor,
                       T* d2) {
  auto squares = ctx.template make<T>({batch}, "squared norms");
  gram_matrix(ctx, batch, dim, x, d2);
  for_each(ctx, "squared_distances", batch, Diagonal<T>{batch, d2, squares.data});
  for_each_pair(ctx, "squared_distances", batch, batch,
                DistanceFromGram<T>{batch, squares.data, floor, d2});
}

/// Row i of S = C + C^T, or of 2 (diag(S 1) - S) if `laplacian`.
template <class T>
struct SymmetricRow {
  std::int64_t batch;
  bool laplacian;
  const T* coefficients;
  T* matrix;
  template <class Group>
  __device__ void operator()(const Group& group, std::int64_t i) const {
    T* row = matrix + i * batch;
    const T sum = group.sum(batch, [&](std::int64_t j) {
      const T both = coefficients[i * batch + j] + coefficients[j * batch + i];
      row[j] = laplacian ? -2 * both : both;
      return both;
    });
    if (!laplacian) return;
    group.once([&] { row[i] += 2 * sum; });
  }
};

/// dx += S x with S = C + C^T, or dx += 2 (diag(S 1) - S) x if `laplacian`.
template <class T>
void symmetric_product(Context& ctx, std::int64_t batch, std::int64_t dim, const T* coefficients,
                       bool laplacian, const T* x, T* dx) {
  auto matrix = ctx.template make<T>({batch, batch}, "symmetric coefficients");
  for_pair_rows(ctx, batch, batch, SymmetricRow<T>{batch, laplacian, coefficients, matrix.data});
  gemm(ctx, Transpose::no, Transpose::no, batch, dim, batch, static_cast<const T*>(matrix.data),
       batch, x, dim, dx, dim, true);
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

}  // namespace kindred::cuda
