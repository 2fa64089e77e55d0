#pragma once
// One factor per image and channel, the multiplication of squeeze-and-excitation:
// y[b,h,w,c] = x[b,h,w,c] s[b,c]. Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.

#include <type_traits>

#include <kindred/core/map.hpp>

namespace kindred::kernels {

/// x, y [B,H,W,C], both BF16 or none, s [B,C]. y may be x.
template <class Context, class Y>
void channel_scale_forward(Context& ctx, InMap<ComputeOf<Y>> x, In<ComputeOf<Y>> s, View<Y> y) {
  check_shape("channel_scale_forward: s", s.shape, {x.dim(0), x.dim(3)});
  check_shape("channel_scale_forward: y", y.shape, x.shape);
  View<const Y> from;
  if constexpr (std::is_same_v<Y, BFloat16>)
    from = x.rounded();
  else
    from = x;
  channel_scale_forward(ctx, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), from.data, s.data, y.data);
}

/// dx = dy s and ds[b,c] = sum over h, w of dy x: assigns both. dx may be dy or x.
template <class Context, class T>
void channel_scale_backward(Context& ctx, In<T> dy, InMap<T> x, In<T> s, View<T> dx, View<T> ds) {
  check_shape("channel_scale_backward: dy", dy.shape, x.shape);
  check_shape("channel_scale_backward: s", s.shape, {x.dim(0), x.dim(3)});
  check_shape("channel_scale_backward: dx", dx.shape, x.shape);
  check_shape("channel_scale_backward: ds", ds.shape, s.shape);
  with_elements<Context>(x, [&](auto from) {
    channel_scale_backward(ctx, x.dim(0), x.dim(1) * x.dim(2), x.dim(3), dy.data, from.data, s.data,
                           dx.data, ds.data);
  });
}

}  // namespace kindred::kernels
