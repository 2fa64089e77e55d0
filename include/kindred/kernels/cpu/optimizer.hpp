#pragma once
// Bound by memory: every array is read once and written once.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

/// rule on vector_size elements.
template <class Rule, class T>
inline void apply_rule_to_vector(const Rule& rule, T* p, const T* g,
                                 const std::array<T*, Rule::moments>& moments, std::int64_t i) {
  using V = Vector<T>;
  V parameter = load_lanes<V>(p + i);
  const V gradient = load_lanes<V>(g + i);
  [&]<std::size_t... k>(std::index_sequence<k...>) {
    V state[sizeof...(k) + 1] = {load_lanes<V>(moments[k] + i)..., V(T(0))};  // never of no element
    rule(parameter, state[k]..., gradient);
    (store_lanes(moments[k] + i, state[k]), ...);
  }
  (std::make_index_sequence<Rule::moments>{});
  store_lanes(p + i, parameter);
}

/// The rule on n elements, on the calling thread. Whatever the length, every element goes through
/// the same instructions (the last ones in a vector filled with zeros), and the function exists
/// once: so its bits do not depend on where a range begins and ends.
template <class Rule, class T>
[[gnu::noinline]] void apply_rule_serial(const Rule& rule, std::int64_t n, T* p, const T* g,
                                         const std::array<T*, Rule::moments>& moments) {
  std::int64_t i = 0;
  for (; i + vector_size<T> <= n; i += vector_size<T>) apply_rule_to_vector(rule, p, g, moments, i);
  if (i == n) return;
  T rest[2 + Rule::moments][vector_size<T>] = {};
  std::array<T*, Rule::moments> state{};
  std::copy(p + i, p + n, rest[0]);
  std::copy(g + i, g + n, rest[1]);
  for (std::size_t k = 0; k < Rule::moments; ++k) {
    state[k] = rest[2 + k];
    std::copy(moments[k] + i, moments[k] + n, state[k]);
  }
  apply_rule_to_vector<Rule, T>(rule, rest[0], rest[1], state, 0);
  std::copy(rest[0], rest[0] + (n - i), p + i);
  for (std::size_t k = 0; k < Rule::moments; ++k)
    std::copy(state[k], state[k] + (n - i), moments[k] + i);
}

/// Unless `allowed` is not null and *allowed is 0.
template <class Rule, class T>
void apply_rule(Context& ctx, const Rule& rule, std::int64_t n, T* p, const T* g,
                const std::array<T*, Rule::moments>& moments, const T* allowed) {
  if (allowed != nullptr && !ctx.planning() && *allowed == 0) return;
  ctx.parallel_ranges(n, elementwise_chunk, [&](std::int64_t begin, std::int64_t end) {
    auto state = moments;
    for (T*& m : state) m += begin;
    apply_rule_serial(rule, end - begin, p + begin, g + begin, state);
  });
}

/// The same within a chunk of parallel_for, and only if *allowed is not 0.
template <class Rule, class T>
void apply_rule_in_chunk(Context& /*ctx*/, const Rule& rule, std::int64_t n, T* p, const T* g,
                         const std::array<T*, Rule::moments>& moments, const T* allowed) {
  if (*allowed != 0) apply_rule_serial(rule, n, p, g, moments);
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
