#pragma once
// A depthwise convolution and the pointwise one behind it, for inference in one pass: the map
// between them, which is as large as the input, is never stored whole.

#include <kindred/kernels/conv2d.hpp>

namespace kindred::kernels {

/// A batch norm with its running statistics, and the activation behind it.
template <class T>
struct FoldedNorm {
  View<const T> scale, shift;
  Activation activation;
};

/// y = act(scale conv1x1(filtered) + shift) with filtered = act'(scale' depthwise(x, w) + shift'):
/// x [B,H,W,C], w [kh,kw,1,C], y [B,H',W',O]. `packed` is what conv2d_prepared gives for the
/// weights [1,1,C,O] of the pointwise convolution; `between` and `after` are {scale, shift,
/// activation}. Where `packed` is BF16, so must be x, and y may be. Throws ShapeError. For contexts
/// that prepare weights; the numbers are those of two calls of conv2d_forward.
template <class Context, class Y>
void separable_conv2d_forward(Context& ctx, const Conv2dGeometry& depthwise, InMap<ComputeOf<Y>> x,
                              In<ComputeOf<Y>> w,
                              const FoldedNorm<std::type_identity_t<ComputeOf<Y>>>& between,
                              PreparedWeight<std::type_identity_t<ComputeOf<Y>>> packed,
                              const FoldedNorm<std::type_identity_t<ComputeOf<Y>>>& after,
                              View<Y> y) {
  using T = ComputeOf<Y>;
  const char* place = "separable_conv2d_forward";
  const Shape filtered = depthwise.output_shape(x.shape, x.shape[3]);
  const auto e = check_conv2d(place, depthwise, x.shape, w.shape, filtered);
  if (!e.depthwise()) throw ShapeError(text(place, ": w ", w.shape, " is not depthwise"));
  const auto check = [place](const char* argument, const Shape& got, const Shape& wanted) {
    if (got != wanted) check_shape(text(place, ": ", argument).c_str(), got, wanted);
  };
  const std::int64_t out = y.shape.rank() == 4 ? y.shape[3] : 0;
  check("y", y.shape, {filtered[0], filtered[1], filtered[2], out});
  check("scale", between.scale.shape, {e.channels});
  check("shift", between.shift.shape, {e.channels});
  check("scale of the pointwise", after.scale.shape, {out});
  check("shift of the pointwise", after.shift.shape, {out});
  // Refuses an unknown one before the threads start.
  const auto refuse_unknown = [](Activation a) { dispatch_activation(a, [](auto) {}); };
  refuse_unknown(between.activation);
  refuse_unknown(after.activation);
  if constexpr (StoresBF16<Context, T>)
    if (packed.rounded != nullptr)
      return separable_conv2d_forward_rounded(ctx, e, out, x.rounded().data, w.data,
                                              between.scale.data, between.shift.data,
                                              between.activation, packed.rounded, after.scale.data,
                                              after.shift.data, after.activation, y.data);
  if constexpr (std::is_same_v<Y, T>)
    separable_conv2d_forward(ctx, e, out, View<const T>(x).data, w.data, between.scale.data,
                             between.shift.data, between.activation, packed.full, after.scale.data,
                             after.shift.data, after.activation, y.data);
  else
    throw Error(text(place, ": a BF16 result needs weights prepared as BF16"));
}

}  // namespace kindred::kernels
