#pragma once
// All pairs of a batch: the common ground of pair losses. A pair loss fills one matrix of
// coefficients, its derivative with respect to every pair's quantity, and ends in one product.

#include <type_traits>

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// g = x x^T: x [B,D], g [B,B].
template <class Context, class T>
void gram_matrix(Context& ctx, In<T> x, View<T> g) {
  check_shape("gram_matrix: g", g.shape, {x.dim(0), x.dim(0)});
  gram_matrix(ctx, x.dim(0), x.dim(1), x.data, g.data);
}

/// dx += (C + C^T) x, the gradient of sum C_ij x_i.x_j: coefficients [B,B], x and dx [B,D].
template <class Context, class T>
void gram_matrix_backward(Context& ctx, In<T> coefficients, In<T> x, View<T> dx) {
  check_shape("gram_matrix_backward: coefficients", coefficients.shape, {x.dim(0), x.dim(0)});
  check_shape("gram_matrix_backward: dx", dx.shape, x.shape);
  gram_matrix_backward(ctx, x.dim(0), x.dim(1), coefficients.data, x.data, dx.data);
}

/// d2_ij = max(|x_i|^2 + |x_j|^2 - 2 x_i.x_j, floor): x [B,D], d2 [B,B]. Paddle's losses clip at
/// 1e-12, which also keeps the derivative of the square root finite.
template <class Context, class T>
void squared_distances(Context& ctx, In<T> x, View<T> d2,
                       std::type_identity_t<T> floor = T(1e-12)) {
  check_shape("squared_distances: d2", d2.shape, {x.dim(0), x.dim(0)});
  squared_distances(ctx, x.dim(0), x.dim(1), x.data, floor, d2.data);
}

/// dx += 2 (diag(S 1) - S) x with S = C + C^T, the gradient of sum C_ij |x_i - x_j|^2:
/// coefficients C [B,B] (zero where the distance was clipped), x and dx [B,D].
template <class Context, class T>
void pairwise_backward(Context& ctx, In<T> coefficients, In<T> x, View<T> dx) {
  check_shape("pairwise_backward: coefficients", coefficients.shape, {x.dim(0), x.dim(0)});
  check_shape("pairwise_backward: dx", dx.shape, x.shape);
  pairwise_backward(ctx, x.dim(0), x.dim(1), coefficients.data, x.data, dx.data);
}

}  // namespace kindred::kernels
