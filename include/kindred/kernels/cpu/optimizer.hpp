#pragma once
// Bound by memory: every array is read once and written once.

#include <cmath>
#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

template <class T>
void sgd_update(Context& ctx, std::int64_t n, T* p, const T* g, T lr, T l2) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    const V parameter = load_lanes<V>(p + i);
    const V gradient = load_lanes<V>(g + i) + V(l2) * parameter;
    store_lanes(p + i, V(parameter - V(lr) * gradient));
  });
}

template <class T>
void momentum_update(Context& ctx, std::int64_t n, T* p, const T* g, T* v, T lr, T momentum, T l2,
                     bool nesterov) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    const V parameter = load_lanes<V>(p + i);
    const V gradient = load_lanes<V>(g + i) + V(l2) * parameter;
    const V velocity = V(momentum) * load_lanes<V>(v + i) + gradient;
    const V step = nesterov ? V(gradient + V(momentum) * velocity) : velocity;
    store_lanes(v + i, velocity);
    store_lanes(p + i, V(parameter - V(lr) * step));
  });
}

/// rate and eps with the bias corrections already in them; shrink = 1 - lr decay.
template <class T>
void adamw_update(Context& ctx, std::int64_t n, T* p, const T* g, T* m, T* v, T rate, T beta1,
                  T beta2, T eps, T shrink) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    using std::sqrt;
    using xsimd::sqrt;
    const V gradient = load_lanes<V>(g + i);
    const V first = V(beta1) * load_lanes<V>(m + i) + V(T(1) - beta1) * gradient;
    const V second = V(beta2) * load_lanes<V>(v + i) + V(T(1) - beta2) * gradient * gradient;
    store_lanes(m + i, first);
    store_lanes(v + i, second);
    const V parameter = V(shrink) * load_lanes<V>(p + i);
    store_lanes(p + i, V(parameter - V(rate) * first / (sqrt(second) + V(eps))));
  });
}

/// rate and eps with the bias corrections already in them.
template <class T>
void adam_update(Context& ctx, std::int64_t n, T* p, const T* g, T* m, T* v, T rate, T beta1,
                 T beta2, T eps, T l2) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    using std::sqrt;
    using xsimd::sqrt;
    const V parameter = load_lanes<V>(p + i);
    const V gradient = load_lanes<V>(g + i) + V(l2) * parameter;
    const V first = V(beta1) * load_lanes<V>(m + i) + V(T(1) - beta1) * gradient;
    const V second = V(beta2) * load_lanes<V>(v + i) + V(T(1) - beta2) * gradient * gradient;
    store_lanes(m + i, first);
    store_lanes(v + i, second);
    store_lanes(p + i, V(parameter - V(rate) * first / (sqrt(second) + V(eps))));
  });
}

template <class T>
void rmsprop_update(Context& ctx, std::int64_t n, T* p, const T* g, T* s, T* v, T lr, T rho,
                    T momentum, T eps, T l2) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    using std::sqrt;
    using xsimd::sqrt;
    const V parameter = load_lanes<V>(p + i);
    const V gradient = load_lanes<V>(g + i) + V(l2) * parameter;
    const V square = V(rho) * load_lanes<V>(s + i) + V(T(1) - rho) * gradient * gradient;
    const V step = V(momentum) * load_lanes<V>(v + i) + V(lr) * gradient / sqrt(V(square + V(eps)));
    store_lanes(s + i, square);
    store_lanes(v + i, step);
    store_lanes(p + i, V(parameter - step));
  });
}

template <class T>
void centered_rmsprop_update(Context& ctx, std::int64_t n, T* p, const T* g, T* s, T* v, T* a, T lr,
                             T rho, T momentum, T eps, T l2) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    using std::sqrt;
    using xsimd::sqrt;
    const V parameter = load_lanes<V>(p + i);
    const V gradient = load_lanes<V>(g + i) + V(l2) * parameter;
    const V square = V(rho) * load_lanes<V>(s + i) + V(T(1) - rho) * gradient * gradient;
    const V mean = V(rho) * load_lanes<V>(a + i) + V(T(1) - rho) * gradient;
    const V step = V(momentum) * load_lanes<V>(v + i) +
                   V(lr) * gradient / sqrt(V(square - mean * mean + V(eps)));
    store_lanes(s + i, square);
    store_lanes(a + i, mean);
    store_lanes(v + i, step);
    store_lanes(p + i, V(parameter - step));
  });
}

/// rest = 1 - decay.
template <class T>
void moving_average_update(Context& ctx, std::int64_t n, T* average, const T* value, T decay,
                           T rest) {
  parallel_vector_loop<T>(ctx, n, [=](auto lane, std::int64_t i) {
    using V = typename decltype(lane)::type;
    store_lanes(average + i,
                V(V(decay) * load_lanes<V>(average + i) + V(rest) * load_lanes<V>(value + i)));
  });
}

/// term(value) summed over x: in vectors within a chunk, in double and in chunk order above.
template <class T, class Term>
double sum_of_terms(Context& ctx, std::int64_t n, const T* x, Term&& term) {
  const std::int64_t chunks = (n + elementwise_chunk - 1) / elementwise_chunk;
  auto partial = ctx.make<T>({chunks}, "partial sums");
  ctx.parallel_ranges(n, elementwise_chunk, [&](std::int64_t begin, std::int64_t end) {
    Vector<T> lanes(T(0));
    T rest = 0;
    vector_loop<T>(end - begin, [&](auto lane, std::int64_t i) {
      using V = typename decltype(lane)::type;
      if constexpr (std::is_same_v<V, T>)
        rest += term(x[begin + i]);
      else
        lanes += term(load_lanes<V>(x + begin + i));
    });
    partial[begin / elementwise_chunk] = xsimd::hadd(lanes) + rest;
  });
  double sum = 0;
  if (!ctx.planning())
    for (std::int64_t i = 0; i < chunks; ++i) sum += partial[i];
  return sum;
}

template <class T>
void all_finite(Context& ctx, std::int64_t n, const T* x, T* finite) {
  // v - v is 0 for a finite v and NaN for every other.
  const double sum = sum_of_terms(ctx, n, x, [](auto v) { return decltype(v)(v - v); });
  if (!ctx.planning()) *finite = sum == 0 ? T(1) : T(0);
}

template <class T>
void sum_of_squares(Context& ctx, std::int64_t n, const T* x, T* sum) {
  const double total = sum_of_terms(ctx, n, x, [](auto v) { return decltype(v)(v * v); });
  if (!ctx.planning()) *sum = static_cast<T>(total);
}

}  // namespace kindred::cpu
