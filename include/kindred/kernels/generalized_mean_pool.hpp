#pragma once
// Generalised-mean pooling: y[b,c] = (mean over h, w of max(x[b,h,w,c], eps)^p)^(1/p), between
// average pooling (p = 1) and maximum pooling (p -> infinity).
// Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2018.

#include <type_traits>

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// x [B,H,W,C] -> y [B,C]; p [1] > 0, eps > 0.
template <class Context, class T>
void generalized_mean_pool_forward(Context& ctx, In<T> x, In<T> p, std::type_identity_t<T> eps,
                                   View<T> y) {
  check_shape("generalized_mean_pool_forward: y", y.shape, {x.dim(0), x.dim(3)});
  check_shape("generalized_mean_pool_forward: p", p.shape, {1});
  if (x.dim(1) * x.dim(2) == 0)
    throw ShapeError(text("generalized_mean_pool_forward: no pixels in ", x.shape));
  generalized_mean_pool_forward(ctx, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), x.data, p.data, eps,
                                y.data);
}

/// With u = max(x, eps) and r = u / y: assigns dx = dy r^(p-1) / (H W) where x > eps, 0 elsewhere,
/// and adds sum over b, c of dy y/p mean(r^p ln r) to dp [1]. y is the output of the forward.
template <class Context, class T>
void generalized_mean_pool_backward(Context& ctx, In<T> dy, In<T> x, In<T> y, In<T> p,
                                    std::type_identity_t<T> eps, View<T> dx, View<T> dp) {
  check_shape("generalized_mean_pool_backward: dy", dy.shape, {x.dim(0), x.dim(3)});
  check_shape("generalized_mean_pool_backward: y", y.shape, dy.shape);
  check_shape("generalized_mean_pool_backward: p", p.shape, {1});
  check_shape("generalized_mean_pool_backward: dx", dx.shape, x.shape);
  check_shape("generalized_mean_pool_backward: dp", dp.shape, {1});
  generalized_mean_pool_backward(ctx, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), dy.data, x.data,
                                 y.data, p.data, eps, dx.data, dp.data);
}

}  // namespace kindred::kernels
