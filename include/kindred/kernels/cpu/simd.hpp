#pragma once
// Vectors of the compile target's instruction set, and the activations on them.

#include <cstdint>
#include <limits>
#include <type_traits>

// GCC 12 takes the deliberately undefined operands of its own AVX-512 intrinsics for a mistake
// (bug 105593); the warnings point into the compiler's headers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <kindred/kernels/activation.hpp>

namespace kindred::cpu {

template <class T>
using Vector = xsimd::batch<T>;

/// Elements of T in one vector register.
template <class T>
inline constexpr std::int64_t vector_size = static_cast<std::int64_t>(xsimd::batch<T>::size);

/// activation(x) elementwise; the same formulas as activate(Activation, T).
template <Activation A, class T, class Arch>
inline xsimd::batch<T, Arch> activate(const xsimd::batch<T, Arch>& x) {
  using V = xsimd::batch<T, Arch>;
  [[maybe_unused]] const V zero(T(0)), one(T(1)), half(T(0.5));
  if constexpr (A == Activation::identity) return x;
  // x second: the instructions return their second argument if one is NaN.
  if constexpr (A == Activation::relu) return xsimd::max(zero, x);
  if constexpr (A == Activation::relu6) return xsimd::min(V(T(6)), xsimd::max(zero, x));
  if constexpr (A == Activation::hardswish)
    return x * xsimd::min(xsimd::max(xsimd::fma(x, V(T(1.0 / 6)), half), zero), one);
  if constexpr (A == Activation::hardsigmoid)
    return xsimd::min(xsimd::max(xsimd::fma(x, V(T(1.0 / 6)), half), zero), one);
  if constexpr (A == Activation::hardsigmoid_0_2)
    return xsimd::min(xsimd::max(xsimd::fma(x, V(T(0.2)), half), zero), one);
  if constexpr (A == Activation::sigmoid) return one / (one + xsimd::exp(-x));
  if constexpr (A == Activation::swish) return x / (one + xsimd::exp(-x));
  if constexpr (A == Activation::tanh) return xsimd::tanh(x);
  if constexpr (A == Activation::leaky_relu_0_1)
    return xsimd::select(x > zero, x, V(x * V(T(0.1))));
}

/// d activation(x) / d x elementwise; the same formulas as activate_derivative(Activation, T).
template <Activation A, class T, class Arch>
inline xsimd::batch<T, Arch> activate_derivative(const xsimd::batch<T, Arch>& x) {
  using V = xsimd::batch<T, Arch>;
  [[maybe_unused]] const V zero(T(0)), one(T(1));
  if constexpr (A == Activation::identity) return one;
  if constexpr (A == Activation::relu) return xsimd::select(x > zero, one, zero);
  if constexpr (A == Activation::relu6) return xsimd::select(x > zero && x < V(T(6)), one, zero);
  if constexpr (A == Activation::hardswish)
    return xsimd::select(x <= V(T(-3)), zero,
                         xsimd::select(x >= V(T(3)), one, xsimd::fma(x, V(T(1.0 / 3)), V(T(0.5)))));
  if constexpr (A == Activation::hardsigmoid)
    return xsimd::select(x > V(T(-3)) && x < V(T(3)), V(T(1.0 / 6)), zero);
  if constexpr (A == Activation::hardsigmoid_0_2)
    return xsimd::select(x > V(T(-2.5)) && x < V(T(2.5)), V(T(0.2)), zero);
  if constexpr (A == Activation::sigmoid) {
    const V s = one / (one + xsimd::exp(-x));
    return s * (one - s);
  }
  if constexpr (A == Activation::swish) {
    const V s = one / (one + xsimd::exp(-x));
    return s * (one + x * (one - s));
  }
  if constexpr (A == Activation::tanh) {
    const V t = xsimd::tanh(x);
    return one - t * t;
  }
  if constexpr (A == Activation::leaky_relu_0_1) return xsimd::select(x > zero, one, V(T(0.1)));
}

/// The scalar forms with the activation fixed at compile time, for the ends of vector loops.
template <Activation A, class T>
requires std::is_floating_point_v<T>
inline T activate(T x) { return kindred::activate(A, x); }
template <Activation A, class T>
requires std::is_floating_point_v<T>
inline T activate_derivative(T x) { return kindred::activate_derivative(A, x); }

/// Most activations without exp as one formula with numbers for the choice, so that a tile can
/// apply them to its registers without being compiled for each:
///   line(x) = min(max(slope x + offset, low), high),  activation(x) = line(x) or, gated, x
///   line(x).
template <class T>
struct ClampedLine {
  T slope = 1, offset = 0;
  T low = -std::numeric_limits<T>::infinity(), high = std::numeric_limits<T>::infinity();
  bool gated = false;

  static bool holds(Activation a) {
    return a != Activation::sigmoid && a != Activation::swish && a != Activation::tanh &&
           a != Activation::leaky_relu_0_1;
  }
  /// For an activation that it holds.
  explicit ClampedLine(Activation a) : gated(a == Activation::hardswish) {
    if (a == Activation::identity) return;
    low = 0;
    if (a == Activation::relu) return;
    high = a == Activation::relu6 ? T(6) : T(1);
    if (a == Activation::relu6) return;
    slope = a == Activation::hardsigmoid_0_2 ? T(0.2) : T(1.0 / 6);
    offset = T(0.5);
  }
};

}  // namespace kindred::cpu
