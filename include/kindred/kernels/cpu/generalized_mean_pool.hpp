#pragma once
// Bound by one logarithm and one exponential for each element, in both directions. Powers are taken
// of ratios to the largest element or to the mean, so that no p overflows.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

/// max(x, eps); NaN passes.
template <class V, class T>
V raised_to(const V& x, T eps) {
  if constexpr (std::is_same_v<V, T>)
    return x <= eps ? eps : x;
  else
    return xsimd::select(x <= V(eps), V(eps), x);
}

/// log(x). Without optimisation xsimd 8's does not compile for AVX-512: the intrinsics beneath it
/// are macros then, which refuse its types.
template <class V, class T>
V log_of(const V& x) {
  if constexpr (std::is_same_v<V, T>) {
    return std::log(x);
  } else {
#ifdef __OPTIMIZE__
    return xsimd::log(x);
#else
    alignas(64) T lanes[V::size];
    x.store_aligned(lanes);
    for (T& lane : lanes) lane = std::log(lane);
    return V::load_aligned(lanes);
#endif
  }
}

template <class T>
void generalized_mean_pool_forward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                   std::int64_t channels, const T* x, const T* p, T eps, T* y) {
  ctx.parallel_for(batch, [=](std::int64_t b) {
    vector_loop<T>(channels, [=](auto lane, std::int64_t c) {
      using V = typename decltype(lane)::type;
      using std::exp, std::max, xsimd::exp, xsimd::max;
      const T* in = x + b * pixels * channels + c;
      V largest(eps), sum(T(0));
      for (std::int64_t i = 0; i < pixels; ++i)
        largest = max(largest, raised_to(load_lanes<V>(in + i * channels), eps));
      for (std::int64_t i = 0; i < pixels; ++i) {
        const V ratio = raised_to(load_lanes<V>(in + i * channels), eps) / largest;
        sum += exp(V(V(*p) * log_of<V, T>(ratio)));
      }
      const V mean = sum / V(static_cast<T>(pixels));
      store_lanes(y + b * channels + c, V(largest * exp(V(log_of<V, T>(mean) / V(*p)))));
    });
  });
}

/// One image of the backward; returns its share of dp.
template <class T>
double generalized_mean_pool_backward(std::int64_t pixels, std::int64_t channels, const T* dy,
                                      const T* x, const T* y, T p, T eps, T* dx) {
  double by_power = 0;
  vector_loop<T>(channels, [&](auto lane, std::int64_t c) {
    using V = typename decltype(lane)::type;
    using std::exp, xsimd::exp;
    const V mean = load_lanes<V>(y + c), count(static_cast<T>(pixels));
    const V upstream = load_lanes<V>(dy + c), share = upstream / count;
    V entropy(T(0));  // sum of r^p ln r
    for (std::int64_t i = 0; i < pixels; ++i) {
      const V v = load_lanes<V>(x + i * channels + c), ratio = raised_to(v, eps) / mean;
      const V log_ratio = log_of<V, T>(ratio), power = exp(V(V(p) * log_ratio));
      entropy += power * log_ratio;
      const V gradient = share * power / ratio;
      if constexpr (std::is_same_v<V, T>)
        store_lanes(dx + i * channels + c, v <= eps ? T(0) : gradient);
      else
        store_lanes(dx + i * channels + c, V(xsimd::select(v <= V(eps), V(T(0)), gradient)));
    }
    const V part = upstream * mean / V(p) * entropy / count;
    if constexpr (std::is_same_v<V, T>)
      by_power += part;
    else
      by_power += xsimd::hadd(part);
  });
  return by_power;
}

template <class T>
void generalized_mean_pool_backward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                    std::int64_t channels, const T* dy, const T* x, const T* y,
                                    const T* p, T eps, T* dx, T* dp) {
  auto parts = ctx.template make<double>({batch}, "generalised mean by power");
  double* part = parts.data;
  ctx.parallel_for(batch, [=](std::int64_t b) {
    const std::int64_t image = b * pixels * channels, row = b * channels;
    part[b] = generalized_mean_pool_backward(pixels, channels, dy + row, x + image, y + row, *p,
                                             eps, dx + image);
  });
  if (ctx.planning()) return;
  double sum = 0;
  for (std::int64_t b = 0; b < batch; ++b) sum += part[b];
  *dp += static_cast<T>(sum);
}

}  // namespace kindred::cpu
