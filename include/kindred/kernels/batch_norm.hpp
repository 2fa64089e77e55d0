#pragma once
// Batch normalisation fused with the activation that follows it:
//   y = act(gamma (x - mean) / sqrt(var + eps) + beta), statistics per channel.
// x is [..., C] of any rank; a row is everything but the last extent. Only the input is kept for
// the backward: the pre-activation is recomputed from it.
// Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015; conventions of Paddle.

#include <type_traits>

#include <kindred/core/map.hpp>
#include <kindred/kernels/activation.hpp>

namespace kindred::kernels {

/// Training: normalises with the mean and the biased variance of this batch.
/// x, y [..., C]; gamma, beta [C]; assigns mean and inv_std = 1/sqrt(var + eps), both [C].
/// running = momentum running + (1 - momentum) batch, with the biased variance as Paddle's CPU
/// kernel has it; skipped if the data of running_mean is null. x and y must not overlap. y can be
/// BF16 where x is.
template <class Context, class T, class Y>
void batch_norm_forward(Context& ctx, InMap<T> x, In<T> gamma, In<T> beta,
                        std::type_identity_t<T> eps, std::type_identity_t<T> momentum,
                        Activation act, View<T> mean, View<T> inv_std, View<T> running_mean,
                        View<T> running_var, View<Y> y) {
  const Shape channels{x.shape.back()};
  check_shape("batch_norm_forward: gamma", gamma.shape, channels);
  check_shape("batch_norm_forward: beta", beta.shape, channels);
  check_shape("batch_norm_forward: mean", mean.shape, channels);
  check_shape("batch_norm_forward: inv_std", inv_std.shape, channels);
  if (running_mean.data != nullptr) {
    check_shape("batch_norm_forward: running_mean", running_mean.shape, channels);
    check_shape("batch_norm_forward: running_var", running_var.shape, channels);
  }
  check_shape("batch_norm_forward: y", y.shape, x.shape);
  if (x.size() == 0)
    throw ShapeError(text("batch_norm_forward: no values to take statistics of in ", x.shape));
  const auto normalise = [&](auto from) {
    batch_norm_forward(ctx, x.shape.rows(), x.shape.back(), from.data, gamma.data, beta.data, eps,
                       momentum, act, mean.data, inv_std.data, running_mean.data, running_var.data,
                       y.data);
  };
  if constexpr (std::is_same_v<Y, T>)
    with_elements<Context>(x, normalise);
  else
    normalise(x.rounded());
}

/// Inference: normalises with given statistics mean, var [C]. y may be x.
template <class Context, class T>
void batch_norm_inference(Context& ctx, In<T> x, In<T> gamma, In<T> beta, In<T> mean, In<T> var,
                          std::type_identity_t<T> eps, Activation act, View<T> y) {
  const Shape channels{x.shape.back()};
  check_shape("batch_norm_inference: gamma", gamma.shape, channels);
  check_shape("batch_norm_inference: beta", beta.shape, channels);
  check_shape("batch_norm_inference: mean", mean.shape, channels);
  check_shape("batch_norm_inference: var", var.shape, channels);
  check_shape("batch_norm_inference: y", y.shape, x.shape);
  batch_norm_inference(ctx, x.shape.rows(), x.shape.back(), x.data, gamma.data, beta.data,
                       mean.data, var.data, eps, act, y.data);
}

/// Inference statistics as one affine map, for the epilogue of a convolution:
/// scale = gamma / sqrt(var + eps), shift = beta - mean scale; all [C].
template <class Context, class T>
void batch_norm_scale_shift(Context& ctx, In<T> gamma, In<T> beta, In<T> mean, In<T> var,
                            std::type_identity_t<T> eps, View<T> scale, View<T> shift) {
  check_shape("batch_norm_scale_shift: gamma", gamma.shape, scale.shape);
  check_shape("batch_norm_scale_shift: beta", beta.shape, scale.shape);
  check_shape("batch_norm_scale_shift: mean", mean.shape, scale.shape);
  check_shape("batch_norm_scale_shift: var", var.shape, scale.shape);
  check_shape("batch_norm_scale_shift: shift", shift.shape, scale.shape);
  batch_norm_scale_shift(ctx, scale.size(), gamma.data, beta.data, mean.data, var.data, eps,
                         scale.data, shift.data);
}

/// inv_std = 1 / sqrt(var + eps) [C]: the argument of batch_norm_backward for frozen statistics.
template <class Context, class T>
void batch_norm_inverse_std(Context& ctx, In<T> var, std::type_identity_t<T> eps, View<T> inv_std) {
  check_shape("batch_norm_inverse_std: var", var.shape, inv_std.shape);
  batch_norm_inverse_std(ctx, inv_std.size(), var.data, eps, inv_std.data);
}

/// With g = dy act'(pre-activation) and u = (x - mean) inv_std, over R rows:
///   dbeta += sum g,  dgamma += sum g u   (skipped where the data is null),
///   dx = gamma inv_std (g - sum(g)/R - u sum(g u)/R)   if `training` (batch statistics),
///   dx = gamma inv_std g                               otherwise (frozen statistics).
/// Assigns dx, which may be dy, or BF16; mean and inv_std are those that the forward used.
template <class Context, class T, class DX>
void batch_norm_backward(Context& ctx, In<T> dy, InMap<T> x, In<T> gamma, In<T> beta, In<T> mean,
                         In<T> inv_std, Activation act, View<DX> dx, View<T> dgamma, View<T> dbeta,
                         bool training = true) {
  const Shape channels{x.shape.back()};
  check_shape("batch_norm_backward: dy", dy.shape, x.shape);
  check_shape("batch_norm_backward: gamma", gamma.shape, channels);
  check_shape("batch_norm_backward: beta", beta.shape, channels);
  check_shape("batch_norm_backward: mean", mean.shape, channels);
  check_shape("batch_norm_backward: inv_std", inv_std.shape, channels);
  check_shape("batch_norm_backward: dx", dx.shape, x.shape);
  if (dgamma.data != nullptr) check_shape("batch_norm_backward: dgamma", dgamma.shape, channels);
  if (dbeta.data != nullptr) check_shape("batch_norm_backward: dbeta", dbeta.shape, channels);
  with_elements<Context>(x, [&](auto from) {
    batch_norm_backward(ctx, x.shape.rows(), x.shape.back(), dy.data, from.data, gamma.data,
                        beta.data, mean.data, inv_std.data, act, dx.data, dgamma.data, dbeta.data,
                        training);
  });
}

}  // namespace kindred::kernels
