#pragma once
// Elementwise activation functions and their derivatives, one value at a time. The kernels that
// fuse them pass an Activation at run time and turn it into a compile-time constant once per call
// with dispatch_activation; vector versions are in kernels/cpu/simd.hpp.

#include <cmath>
#include <type_traits>
#include <utility>

#include <kindred/core/error.hpp>
#include <kindred/core/macros.hpp>

namespace kindred {

/// Names as in Paddle. With clip(v) = min(max(v, 0), 1):
enum class Activation {
  identity,         ///< x
  relu,             ///< max(x, 0)
  relu6,            ///< min(max(x, 0), 6)
  hardswish,        ///< x clip(x/6 + 1/2)
  hardsigmoid,      ///< clip(x/6 + 1/2)
  hardsigmoid_0_2,  ///< clip(x/5 + 1/2), the squeeze-excite gate of Paddle's MobileNetV3
  sigmoid,          ///< 1 / (1 + exp(-x))
  swish,            ///< x sigmoid(x)
  tanh,             ///< tanh(x)
  leaky_relu_0_1    ///< max(x, x/10)
};

/// activation(x) for a scalar.
template <class T>
KINDRED_HD inline T activate(Activation activation, T x) {
  const auto clip = [](T v) { return v < T(0) ? T(0) : v > T(1) ? T(1) : v; };
  switch (activation) {
    case Activation::identity:
      return x;
    case Activation::relu:
      return x < T(0) ? T(0) : x;
    case Activation::relu6:
      return x < T(0) ? T(0) : x > T(6) ? T(6) : x;
    case Activation::hardswish:
      return x * clip(x * T(1.0 / 6) + T(0.5));
    case Activation::hardsigmoid:
      return clip(x * T(1.0 / 6) + T(0.5));
    case Activation::hardsigmoid_0_2:
      return clip(x * T(0.2) + T(0.5));
    case Activation::sigmoid:
      return T(1) / (T(1) + std::exp(-x));
    case Activation::swish:
      return x / (T(1) + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::leaky_relu_0_1:
      return x > T(0) ? x : x * T(0.1);
  }
  return x;
}

/// d activation(x) / d x. At a kink the derivative of the flat side is taken, as Paddle does.
template <class T>
KINDRED_HD inline T activate_derivative(Activation activation, T x) {
  switch (activation) {
    case Activation::identity:
      return T(1);
    case Activation::relu:
      return x > T(0) ? T(1) : T(0);
    case Activation::relu6:
      return x > T(0) && x < T(6) ? T(1) : T(0);
    case Activation::hardswish:
      return x <= T(-3) ? T(0) : x >= T(3) ? T(1) : x * T(1.0 / 3) + T(0.5);
    case Activation::hardsigmoid:
      return x > T(-3) && x < T(3) ? T(1.0 / 6) : T(0);
    case Activation::hardsigmoid_0_2:
      return x > T(-2.5) && x < T(2.5) ? T(0.2) : T(0);
    case Activation::sigmoid: {
      const T s = T(1) / (T(1) + std::exp(-x));
      return s * (T(1) - s);
    }
    case Activation::swish: {
      const T s = T(1) / (T(1) + std::exp(-x));
      return s * (T(1) + x * (T(1) - s));
    }
    case Activation::tanh: {
      const T t = std::tanh(x);
      return T(1) - t * t;
    }
    case Activation::leaky_relu_0_1:
      return x > T(0) ? T(1) : T(0.1);
  }
  return T(1);
}

/// Calls f(std::integral_constant<Activation, A>{}) for the A that `activation` holds, so that the
/// choice is made once and not in the inner loop. Throws ConfigError for a value outside the enum.
template <class F>
decltype(auto) dispatch_activation(Activation activation, F&& f) {
  using A = Activation;
  switch (activation) {
    case A::identity:
      return f(std::integral_constant<A, A::identity>{});
    case A::relu:
      return f(std::integral_constant<A, A::relu>{});
    case A::relu6:
      return f(std::integral_constant<A, A::relu6>{});
    case A::hardswish:
      return f(std::integral_constant<A, A::hardswish>{});
    case A::hardsigmoid:
      return f(std::integral_constant<A, A::hardsigmoid>{});
    case A::hardsigmoid_0_2:
      return f(std::integral_constant<A, A::hardsigmoid_0_2>{});
    case A::sigmoid:
      return f(std::integral_constant<A, A::sigmoid>{});
    case A::swish:
      return f(std::integral_constant<A, A::swish>{});
    case A::tanh:
      return f(std::integral_constant<A, A::tanh>{});
    case A::leaky_relu_0_1:
      return f(std::integral_constant<A, A::leaky_relu_0_1>{});
  }
  throw ConfigError(text("unknown activation ", static_cast<int>(activation)));
}

}  // namespace kindred
