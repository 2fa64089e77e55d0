#pragma once
// Updates of flat ranges of parameters, one pass over memory each, and the checks on gradients.

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <kindred/core/shape.hpp>
#include <kindred/kernels/optimizer_rule.hpp>

namespace kindred::kernels {

/// One optimizer step on flat arrays: rule(p[i], moments[i]..., g[i]) for every i; none if
/// `allowed` is not null and *allowed is 0 when the kernel runs.
template <class Context, class Rule, class T>
void apply_rule(Context& ctx, const Rule& rule, View<T> p, In<T> g,
                const std::array<View<T>, Rule::moments>& moments,
                const std::type_identity_t<T>* allowed = nullptr) {
  // The texts only where they are needed: a step allocates nothing.
  if (g.shape != p.shape) check_shape(text(Rule::name, ": gradient").c_str(), g.shape, p.shape);
  std::array<T*, Rule::moments> state{};
  std::size_t k = 0;
  for (const View<T>& m : moments) {
    if (m.shape != p.shape) check_shape(text(Rule::name, ": moment ", k).c_str(), m.shape, p.shape);
    state[k++] = m.data;
  }
  apply_rule(ctx, rule, p.size(), p.data, g.data, state, allowed);
}

/// The moving average of weights: average = decay average + (1 - decay) value.
template <class Context, class T>
void moving_average_update(Context& ctx, View<T> average, In<T> value,
                           std::type_identity_t<T> decay) {
  check_shape("moving_average_update: value", value.shape, average.shape);
  moving_average_update(ctx, average.size(), average.data, value.data, decay,
                        static_cast<T>(1 - decay));
}

/// finite[0] = 1 if no element of x is NaN or infinite, else 0.
template <class Context, class T>
void all_finite(Context& ctx, In<T> x, View<T> finite) {
  check_shape("all_finite: finite", finite.shape, {1});
  all_finite(ctx, x.size(), x.data, finite.data);
}

/// sum[0] = sum of x^2, in an order that depends on the size alone.
template <class Context, class T>
void sum_of_squares(Context& ctx, In<T> x, View<T> sum) {
  check_shape("sum_of_squares: sum", sum.shape, {1});
  sum_of_squares(ctx, x.size(), x.data, sum.data);
}

}  // namespace kindred::kernels
