#pragma once
// Global average pooling: y[b,c] = mean over h, w of x[b,h,w,c].

#include <kindred/core/map.hpp>

namespace kindred::kernels {

/// x [B,H,W,C] -> y [B,C].
template <class Context, class T>
void global_average_pool_forward(Context& ctx, InMap<T> x, View<T> y) {
  check_shape("global_average_pool_forward: y", y.shape, {x.dim(0), x.dim(3)});
  with_elements<Context>(x, [&](auto from) {
    global_average_pool_forward(ctx, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), from.data, y.data);
  });
}

/// dx[b,h,w,c] = dy[b,c] / (H W): assigns dx [B,H,W,C] from dy [B,C].
template <class Context, class T>
void global_average_pool_backward(Context& ctx, In<T> dy, View<T> dx) {
  check_shape("global_average_pool_backward: dy", dy.shape, {dx.dim(0), dx.dim(3)});
  global_average_pool_backward(ctx, dx.dim(0), dx.dim(1) * dx.dim(2), dx.dim(3), dy.data, dx.data);
}

}  // namespace kindred::kernels
