#pragma once
// Division of every row by its Euclidean norm.

#include <type_traits>

#include <kindred/core/shape.hpp>

namespace kindred {

/// What a row is divided by; n is its norm.
enum class NormRule {
  max_eps,  ///< max(n, eps): Paddle's F.normalize (eps 1e-12). A zero row gives 0, gradient dy/eps.
  add_eps,  ///< n + eps: Paddle's pair losses (eps 1e-12). A zero row gives 0, gradient dy/eps.
  none,     ///< n: Paddle's margin heads. A zero row, there NaN, gives 0 with gradient 0 here.
};

namespace kernels {

/// y[b] = x[b] / divisor(|x[b]|): x, y [B,D]; assigns norm [B] = |x[b]|. y may be x.
template <class Context, class T>
void l2_normalize_forward(Context& ctx, NormRule rule, std::type_identity_t<T> eps, In<T> x,
                          View<T> norm, View<T> y) {
  check_shape("l2_normalize_forward: norm", norm.shape, {x.dim(0)});
  check_shape("l2_normalize_forward: y", y.shape, x.shape);
  l2_normalize_forward(ctx, x.dim(0), x.dim(1), rule, eps, x.data, norm.data, y.data);
}

/// With divisor d and y from the forward: dx = (dy - y (y.dy) d'(n) d/n) / d. Assigns dx, may be
/// dy.
template <class Context, class T>
void l2_normalize_backward(Context& ctx, NormRule rule, std::type_identity_t<T> eps, In<T> dy,
                           In<T> y, In<T> norm, View<T> dx) {
  check_shape("l2_normalize_backward: dy", dy.shape, dx.shape);
  check_shape("l2_normalize_backward: y", y.shape, dx.shape);
  check_shape("l2_normalize_backward: norm", norm.shape, {dx.dim(0)});
  l2_normalize_backward(ctx, dx.dim(0), dx.dim(1), rule, eps, dy.data, y.data, norm.data, dx.data);
}

}  // namespace kernels
}  // namespace kindred
