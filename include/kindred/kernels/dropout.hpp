#pragma once
// Dropout: every element is zeroed with probability p, independently. No mask is stored: element i
// is kept if the i-th uniform number of the RandomKey is >= p, in the forward and in the backward.
// Source: Srivastava et al., JMLR 2014; modes of Paddle.

#include <type_traits>

#include <kindred/core/random.hpp>
#include <kindred/core/shape.hpp>

namespace kindred {

/// Where the expectation is put right (names of Paddle).
enum class DropoutMode {
  upscale_in_train,    ///< training: kept elements are divided by 1 - p; inference: identity
  downscale_in_infer,  ///< training: kept elements stay as they are; inference: times 1 - p
};

namespace kernels {

/// y = dropout(x); y may be x. The key is used in training only. Throws ConfigError unless p is in
/// [0, 1]; at p = 1 the training output is 0.
template <class Context, class T>
void dropout_forward(Context& ctx, std::type_identity_t<T> p, DropoutMode mode, bool training,
                     const RandomKey& key, In<T> x, View<T> y) {
  check_shape("dropout_forward: y", y.shape, x.shape);
  if (!(p >= 0 && p <= 1)) throw ConfigError(text("dropout: p must be in [0, 1], got ", p));
  dropout_forward(ctx, x.size(), p, mode, training, key, x.data, y.data);
}

/// The gradient of the training forward with the same p, mode and key: assigns dx, may be dy.
template <class Context, class T>
void dropout_backward(Context& ctx, std::type_identity_t<T> p, DropoutMode mode,
                      const RandomKey& key, In<T> dy, View<T> dx) {
  check_shape("dropout_backward: dx", dx.shape, dy.shape);
  if (!(p >= 0 && p <= 1)) throw ConfigError(text("dropout: p must be in [0, 1], got ", p));
  // The mask multiplies, so the forward is its own derivative.
  dropout_forward(ctx, dy.size(), p, mode, true, key, dy.data, dx.data);
}

}  // namespace kernels
}  // namespace kindred
