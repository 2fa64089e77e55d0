#pragma once
// Bound by memory: every array is read or written once.

#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

template <class T>
void activation_forward(Context& ctx, Activation act, std::int64_t n, const T* x, T* y) {
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
      using V = typename decltype(lane)::type;
      store_lanes(y + i, activate<A>(load_lanes<V>(x + i)));
    });
  });
}

template <class T>
void activation_backward(Context& ctx, Activation act, std::int64_t n, const T* dy, const T* x,
                         T* dx) {
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
      using V = typename decltype(lane)::type;
      store_lanes(dx + i, V(load_lanes<V>(dy + i) * activate_derivative<A>(load_lanes<V>(x + i))));
    });
  });
}

template <class T>
void fill(Context& ctx, std::int64_t n, T value, T* y) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    store_lanes(y + i, V(value));
  });
}

template <class T>
void copy(Context& ctx, std::int64_t n, const T* x, T* y) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    store_lanes(y + i, load_lanes<V>(x + i));
  });
}

template <class T>
void add(Context& ctx, std::int64_t n, const T* a, const T* b, T* y) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    store_lanes(y + i, V(load_lanes<V>(a + i) + load_lanes<V>(b + i)));
  });
}

template <class T>
void multiply(Context& ctx, std::int64_t n, const T* a, const T* b, T* y) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    store_lanes(y + i, V(load_lanes<V>(a + i) * load_lanes<V>(b + i)));
  });
}

template <class T>
void scale_add(Context& ctx, std::int64_t n, T a, const T* x, T* y) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    store_lanes(y + i, V(load_lanes<V>(y + i) + V(a) * load_lanes<V>(x + i)));
  });
}

}  // namespace kindred::cpu
