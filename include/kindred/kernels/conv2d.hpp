#pragma once
// Two-dimensional convolution (cross-correlation, as everywhere in this field) of NHWC images:
//   y[b,i,j,o] = sum over p, q, c of x[b, i stride + p - padding, j stride + q - padding, c]
//                                    w[p, q, c, o]
// where c runs over the channels of the group of o. Depthwise: groups = C = O, w [kh,kw,1,C].
//
// Pointwise convolutions (1 x 1) of which a map is BF16 round their other factors to BF16, too, and
// sum up in T; all others compute in T with the maps as they are.

#include <kindred/core/run.hpp>
#include <kindred/core/shape.hpp>
#include <kindred/kernels/activation.hpp>
#include <kindred/kernels/conv2d_geometry.hpp>

namespace kindred::kernels {

/// The extents of a convolution, after all shapes were checked. Throws ShapeError naming `place`.
inline Conv2dExtents check_conv2d(const char* place, const Conv2dGeometry& geometry, const Shape& x,
                                  const Shape& w, const Shape& y) {
  if (w.rank() != 4) throw ShapeError(text(place, ": w must be [kh,kw,C/groups,O], got ", w));
  const Shape expected = geometry.output_shape(x, w[3]);
  const auto check = [place](const char* argument, const Shape& got, const Shape& wanted) {
    if (got != wanted) check_shape(text(place, ": ", argument).c_str(), got, wanted);
  };
  check("w", w, geometry.weight_shape(x[3], w[3]));
  check("y", y, expected);
  return geometry.extents(x, y);
}

/// The weights of a convolution as inference reads them fastest; empty where that is the form that
/// they have.
template <class T>
struct PreparedWeight {
  const T* full = nullptr;
  const BFloat16* rounded = nullptr;  ///< for a product of BF16 factors

  PreparedWeight() = default;
  PreparedWeight(const T* p) : full(p) {}
  explicit operator bool() const { return full != nullptr || rounded != nullptr; }
};

/// Made once for all passes; empty in training. For passes that store BF16, those of pointwise
/// convolutions are BF16.
template <class Context, class T>
PreparedWeight<T> conv2d_prepared(const Run<Context, T>& run, const Conv2dGeometry& geometry,
                                  const ParameterRef& weight) {
  PreparedWeight<T> prepared;
  if constexpr (requires { Context::prepares_weights; }) {
    const View<const T> w = run.parameter(weight);
    if constexpr (StoresBF16<Context, T>)
      if (run.storage == Storage::bf16 && geometry.pointwise()) {
        const std::int64_t size = (conv2d_rounded_size(run.ctx, w.shape) + 1) / 2;  // of T
        prepared.rounded = reinterpret_cast<const BFloat16*>(run.prepared(weight, size, [&](T* to) {
          conv2d_pack_rounded(run.ctx, w.shape, w.data, reinterpret_cast<BFloat16*>(to));
        }));
        return prepared;
      }
    const std::int64_t size = conv2d_packed_size<T>(run.ctx, geometry, w.shape);
    if (size > 0)
      prepared.full = run.prepared(
          weight, size, [&](T* to) { conv2d_pack(run.ctx, geometry, w.shape, w.data, to); });
  }
  return prepared;
}

/// y = activation(scale[o] conv(x) + shift[o]), x [B,H,W,C] -> y [B,H',W',O] with w
/// [kh,kw,C/groups,O]: a convolution with folded batch norm (or with a bias) for inference. scale
/// and shift are [O] or empty (data null) for 1 and 0; `prepared` is what conv2d_prepared gives for
/// w, or empty. x and y may be BF16.
template <class Context, class Y>
void conv2d_forward(
    Context& ctx, const Conv2dGeometry& geometry, InMap<ComputeOf<Y>> x, In<ComputeOf<Y>> w,
    In<ComputeOf<Y>> scale, In<ComputeOf<Y>> shift, Activation activation, View<Y> y,
    [[maybe_unused]] PreparedWeight<std::type_identity_t<ComputeOf<Y>>> prepared = {}) {
  using T = ComputeOf<Y>;
  const auto e = check_conv2d("conv2d_forward", geometry, x.shape, w.shape, y.shape);
  if (scale.data != nullptr) check_shape("conv2d_forward: scale", scale.shape, {e.out_channels});
  if (shift.data != nullptr) check_shape("conv2d_forward: shift", shift.shape, {e.out_channels});
  dispatch_activation(activation, [](auto) {});  // refuses an unknown one before the threads start
  if constexpr (StoresBF16<Context, T>)
    if (x.is_rounded() || !std::is_same_v<Y, T> || prepared.rounded != nullptr)
      return with_elements<Context>(x, [&](auto from) {
        conv2d_forward_rounded(ctx, e, from.data, w.data, scale.data, shift.data, activation,
                               prepared.rounded, y.data);
      });
  if constexpr (std::is_same_v<Y, T>) {
    const View<const T> from = x;
    if constexpr (requires { Context::prepares_weights; })
      if (prepared.full != nullptr)
        return conv2d_forward_packed(ctx, e, from.data, prepared.full, scale.data, shift.data,
                                     activation, y.data);
    conv2d_forward(ctx, e, from.data, w.data, scale.data, shift.data, activation, y.data);
  }
}

/// y = conv(x), as training has it.
template <class Context, class Y>
void conv2d_forward(Context& ctx, const Conv2dGeometry& geometry, InMap<ComputeOf<Y>> x,
                    In<ComputeOf<Y>> w, View<Y> y) {
  conv2d_forward(ctx, geometry, x, w, {}, {}, Activation::identity, y);
}

/// Assigns dx [B,H,W,C] from dy [B,H',W',O].
template <class Context, class T>
void conv2d_backward_input(Context& ctx, const Conv2dGeometry& geometry, InMap<T> dy, In<T> w,
                           View<T> dx) {
  const auto e = check_conv2d("conv2d_backward_input", geometry, dx.shape, w.shape, dy.shape);
  with_elements<Context>(
      dy, [&](auto from) { conv2d_backward_input(ctx, e, from.data, w.data, dx.data); });
}

/// Adds the gradient to dw [kh,kw,C/groups,O].
template <class Context, class T>
void conv2d_backward_weight(Context& ctx, const Conv2dGeometry& geometry, InMap<T> x, InMap<T> dy,
                            View<T> dw) {
  const auto e = check_conv2d("conv2d_backward_weight", geometry, x.shape, dw.shape, dy.shape);
  with_elements<Context>(x, [&](auto from) {
    with_elements<Context>(dy, [&](auto upstream) {
      conv2d_backward_weight(ctx, e, from.data, upstream.data, dw.data);
    });
  });
}

}  // namespace kindred::kernels
