#pragma once
// Nearest-neighbour enlargement of a map onto a finer one, as feature pyramids add their levels.

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// y[b,h,w,c] += x[b, floor(h H'/H), floor(w W'/W), c]. x [B,H',W',C], y [B,H,W,C] with H' <= H and
/// W' <= W.
template <class Context, class T>
void upsample_add(Context& ctx, In<T> x, View<T> y) {
  check_shape("upsample_add: x", x.shape, {y.dim(0), x.dim(1), x.dim(2), y.dim(3)});
  if (x.dim(1) > y.dim(1) || x.dim(2) > y.dim(2) || (x.size() == 0) != (y.size() == 0))
    throw ShapeError(text("upsample_add: x ", x.shape, " is not coarser than y ", y.shape));
  upsample_add(ctx, y.dim(0), x.dim(1), x.dim(2), y.dim(1), y.dim(2), y.dim(3), x.data, y.data);
}

/// The gradient of x: assigns to dx [B,H',W',C] the sums of dy [B,H,W,C] over the pixels that each
/// pixel of x was added to.
template <class Context, class T>
void upsample_add_backward(Context& ctx, In<T> dy, View<T> dx) {
  check_shape("upsample_add_backward: dx", dx.shape, {dy.dim(0), dx.dim(1), dx.dim(2), dy.dim(3)});
  if (dx.dim(1) > dy.dim(1) || dx.dim(2) > dy.dim(2) || (dx.size() == 0) != (dy.size() == 0))
    throw ShapeError(
        text("upsample_add_backward: dx ", dx.shape, " is not coarser than dy ", dy.shape));
  upsample_add_backward(ctx, dy.dim(0), dx.dim(1), dx.dim(2), dy.dim(1), dy.dim(2), dy.dim(3),
                        dy.data, dx.data);
}

}  // namespace kindred::kernels
