#pragma once
// Bound by memory: every array is read once and written once.

#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>

#include <kindred/kernels/cuda/launch.cuh>
#include <kindred/kernels/cuda/sum.cuh>

namespace kindred::cuda {

/// A rule that changes nothing where *allowed is 0; null allows it.
template <class Rule, class T>
struct RuleIfAllowed {
  Rule rule;
  const T* allowed;
  template <class... M>
  __device__ void operator()(T& p, M&... others) const {
    if (allowed == nullptr || *allowed != T(0)) rule(p, others...);
  }
};

/// Only if *allowed is not 0 when the kernel runs, or `allowed` is null.
template <class Rule, class T>
void apply_rule(Context& ctx, const Rule& rule, std::int64_t n, T* p, const T* g,
                const std::array<T*, Rule::moments>& moments, const T* allowed) {
  std::apply(
      [&](auto*... m) {
        transform(ctx, Rule::name, n, RuleIfAllowed<Rule, T>{rule, allowed}, p, m..., g);
      },
      moments);
}
template <class Rule, class T>
void apply_rule_in_chunk(Context& ctx, const Rule& rule, std::int64_t n, T* p, const T* g,
                         const std::array<T*, Rule::moments>& moments, const T* allowed) {
  apply_rule(ctx, rule, n, p, g, moments, allowed);
}

template <class T>
struct MovingAverageUpdate {
  T decay, rest;
  __device__ void operator()(T& average, T value) const {
    average = decay * average + rest * value;
  }
};

/// rest = 1 - decay.
template <class T>
void moving_average_update(Context& ctx, std::int64_t n, T* average, const T* value, T decay,
                           T rest) {
  transform(ctx, "moving_average_update", n, MovingAverageUpdate<T>{decay, rest}, average, value);
}

template <class T>
struct NotFinite {
  /// 0 for a finite v and NaN for every other.
  __device__ T operator()(T v) const { return v - v; }
};
template <class T>
struct IsZero {
  __device__ T operator()(double sum) const { return sum == 0 ? T(1) : T(0); }
};

template <class T>
void all_finite(Context& ctx, std::int64_t n, const T* x, T* finite) {
  sum_of_terms(ctx, "all_finite", n, x, NotFinite<T>{}, IsZero<T>{}, finite);
}

template <class T>
struct Square {
  __device__ T operator()(T v) const { return v * v; }
};
template <class T>
struct Round {
  __device__ T operator()(double sum) const { return static_cast<T>(sum); }
};

template <class T>
void sum_of_squares(Context& ctx, std::int64_t n, const T* x, T* sum) {
  sum_of_terms(ctx, "sum_of_squares", n, x, Square<T>{}, Round<T>{}, sum);
}

}  // namespace kindred::cuda
