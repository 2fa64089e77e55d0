#pragma once
// Operations on arrays of equal shape, element by element. Outputs may be inputs.

#include <type_traits>

#include <kindred/core/shape.hpp>
#include <kindred/kernels/activation.hpp>

namespace kindred::kernels {

/// y = act(x).
template <class Context, class T>
void activation_forward(Context& ctx, Activation act, In<T> x, View<T> y) {
  check_shape("activation_forward: y", y.shape, x.shape);
  activation_forward(ctx, act, x.size(), x.data, y.data);
}

/// dx = dy act'(x): x is the input of the forward.
template <class Context, class T>
void activation_backward(Context& ctx, Activation act, In<T> dy, In<T> x, View<T> dx) {
  check_shape("activation_backward: dy", dy.shape, x.shape);
  check_shape("activation_backward: dx", dx.shape, x.shape);
  activation_backward(ctx, act, x.size(), dy.data, x.data, dx.data);
}

/// y = value.
template <class Context, class T>
void fill(Context& ctx, std::type_identity_t<T> value, View<T> y) {
  fill(ctx, y.size(), value, y.data);
}

/// y = x.
template <class Context, class T>
void copy(Context& ctx, In<T> x, View<T> y) {
  check_shape("copy: x", x.shape, y.shape);
  copy(ctx, y.size(), x.data, y.data);
}

/// y = a + b.
template <class Context, class T>
void add(Context& ctx, In<T> a, In<T> b, View<T> y) {
  check_shape("add: a", a.shape, y.shape);
  check_shape("add: b", b.shape, y.shape);
  add(ctx, y.size(), a.data, b.data, y.data);
}

/// y = a b.
template <class Context, class T>
void multiply(Context& ctx, In<T> a, In<T> b, View<T> y) {
  check_shape("multiply: a", a.shape, y.shape);
  check_shape("multiply: b", b.shape, y.shape);
  multiply(ctx, y.size(), a.data, b.data, y.data);
}

/// y += a x.
template <class Context, class T>
void scale_add(Context& ctx, std::type_identity_t<T> a, In<T> x, View<T> y) {
  check_shape("scale_add: x", x.shape, y.shape);
  scale_add(ctx, y.size(), a, x.data, y.data);
}

}  // namespace kindred::kernels
