#pragma once
// Bound by memory: every array is read or written once.

#include <cstdint>

#include <kindred/kernels/activation.hpp>
#include <kindred/kernels/cuda/launch.cuh>

namespace kindred::cuda {

template <Activation act, class T>
struct ActivationForward {
  __device__ void operator()(T& y, T x) const { y = activate(act, x); }
};

template <class T>
void activation_forward(Context& ctx, Activation act, std::int64_t n, const T* x, T* y) {
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    transform(ctx, "activation_forward", n, ActivationForward<A, T>{}, y, x);
  });
}

template <Activation act, class T>
struct ActivationBackward {
  __device__ void operator()(T& dx, T dy, T x) const { dx = dy * activate_derivative(act, x); }
};

template <class T>
void activation_backward(Context& ctx, Activation act, std::int64_t n, const T* dy, const T* x,
                         T* dx) {
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    transform(ctx, "activation_backward", n, ActivationBackward<A, T>{}, dx, dy, x);
  });
}

template <class T>
struct Fill {
  T value;
  __device__ void operator()(T& y) const { y = value; }
};

template <class T>
void fill(Context& ctx, std::int64_t n, T value, T* y) {
  transform(ctx, "fill", n, Fill<T>{value}, y);
}

template <class T>
struct Copy {
  __device__ void operator()(T& y, T x) const { y = x; }
};

template <class T>
void copy(Context& ctx, std::int64_t n, const T* x, T* y) {
  transform(ctx, "copy", n, Copy<T>{}, y, x);
}

template <class T>
struct Add {
  __device__ void operator()(T& y, T a, T b) const { y = a + b; }
};

template <class T>
void add(Context& ctx, std::int64_t n, const T* a, const T* b, T* y) {
  transform(ctx, "add", n, Add<T>{}, y, a, b);
}

template <class T>
struct Multiply {
  __device__ void operator()(T& y, T a, T b) const { y = a * b; }
};

template <class T>
void multiply(Context& ctx, std::int64_t n, const T* a, const T* b, T* y) {
  transform(ctx, "multiply", n, Multiply<T>{}, y, a, b);
}

template <class T>
struct ScaleAdd {
  T a;
  __device__ void operator()(T& y, T x) const { y += a * x; }
};

template <class T>
void scale_add(Context& ctx, std::int64_t n, T a, const T* x, T* y) {
  transform(ctx, "scale_add", n, ScaleAdd<T>{a}, y, x);
}

}  // namespace kindred::cuda
