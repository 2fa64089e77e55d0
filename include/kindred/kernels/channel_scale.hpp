#pragma once
// One factor per image and channel, the multiplication of squeeze-and-excitation:
// y[b,h,w,c] = x[b,h,w,c] s[b,c]. Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// x, y [B,H,W,C], s [B,C]. y may be x.
template <class Context, class T>
void channel_scale_forward(Context& ctx, In<T> x, In<T> s, View<T> y) {
  check_shape("channel_scale_forward: s", s.shape, {x.dim(0), x.dim(3)});
  check_shape("channel_scale_forward: y", y.shape, x.shape);
  channel_scale_forward(ctx, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), x.data, s.data, y.data);
}

/// dx = dy s and ds[b,c] = sum over h, w of dy x: assigns both. dx may be dy or x.
template <class Context, class T>
void channel_scale_backward(Context& ctx, In<T> dy, In<T> x, In<T> s, View<T> dx, View<T> ds) {
  check_shape("channel_scale_backward: dy", dy.shape, x.shape);
  check_shape("channel_scale_backward: s", s.shape, {x.dim(0), x.dim(3)});
  check_shape("channel_scale_backward: dx", dx.shape, x.shape);
  check_shape("channel_scale_backward: ds", ds.shape, s.shape);
  channel_scale_backward(ctx, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), dy.data, x.data, s.data,
                         dx.data, ds.data);
}

}  // namespace kindred::kernels
