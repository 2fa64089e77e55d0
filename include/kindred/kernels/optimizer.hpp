#pragma once
// Updates of flat ranges of parameters, one pass over memory each, and the checks on gradients.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// SGD, Paddle's rule, with coupled L2 decay: p -= lr (g + l2 p).
template <class Context, class T>
void sgd_update(Context& ctx, View<T> p, In<T> g, std::type_identity_t<T> lr,
                std::type_identity_t<T> l2) {
  check_shape("sgd_update: g", g.shape, p.shape);
  sgd_update(ctx, p.size(), p.data, g.data, lr, l2);
}

/// SGD with momentum, Paddle's rule, with coupled L2 decay (Paddle's L2Decay):
///   g' = g + l2 p,  v = momentum v + g',  p -= lr v        (nesterov: p -= lr (g' + momentum v)).
template <class Context, class T>
void momentum_update(Context& ctx, View<T> p, In<T> g, View<T> v, std::type_identity_t<T> lr,
                     std::type_identity_t<T> momentum, std::type_identity_t<T> l2, bool nesterov) {
  check_shape("momentum_update: g", g.shape, p.shape);
  check_shape("momentum_update: v", v.shape, p.shape);
  momentum_update(ctx, p.size(), p.data, g.data, v.data, lr, momentum, l2, nesterov);
}

/// AdamW, Paddle's rule (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR
/// 2019), at step t = 1, 2, ...:
///   p *= 1 - lr decay,  m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
///   p -= lr sqrt(1 - beta2^t)/(1 - beta1^t) m / (sqrt(v) + eps sqrt(1 - beta2^t)).
template <class Context, class T>
void adamw_update(Context& ctx, View<T> p, In<T> g, View<T> m, View<T> v,
                  std::type_identity_t<T> lr, std::type_identity_t<T> beta1,
                  std::type_identity_t<T> beta2, std::type_identity_t<T> eps,
                  std::type_identity_t<T> decay, std::int64_t step) {
  check_shape("adamw_update: g", g.shape, p.shape);
  check_shape("adamw_update: m", m.shape, p.shape);
  check_shape("adamw_update: v", v.shape, p.shape);
  if (step < 1) throw ConfigError(text("adamw_update: steps count from 1, got ", step));
  const double t = static_cast<double>(step);
  const double bias1 = 1 - std::pow(static_cast<double>(beta1), t);
  const double root2 = std::sqrt(1 - std::pow(static_cast<double>(beta2), t));
  adamw_update(ctx, p.size(), p.data, g.data, m.data, v.data, static_cast<T>(lr * root2 / bias1),
               beta1, beta2, static_cast<T>(eps * root2), static_cast<T>(1 - lr * decay));
}

/// Adam, Paddle's rule (Kingma and Ba, "Adam", ICLR 2015), with coupled L2 decay, at step t = 1,
/// 2, ...:
///   g' = g + l2 p,  m = beta1 m + (1 - beta1) g',  v = beta2 v + (1 - beta2) g'^2,
///   p -= lr sqrt(1 - beta2^t)/(1 - beta1^t) m / (sqrt(v) + eps sqrt(1 - beta2^t)).
template <class Context, class T>
void adam_update(Context& ctx, View<T> p, In<T> g, View<T> m, View<T> v, std::type_identity_t<T> lr,
                 std::type_identity_t<T> beta1, std::type_identity_t<T> beta2,
                 std::type_identity_t<T> eps, std::type_identity_t<T> l2, std::int64_t step) {
  check_shape("adam_update: g", g.shape, p.shape);
  check_shape("adam_update: m", m.shape, p.shape);
  check_shape("adam_update: v", v.shape, p.shape);
  if (step < 1) throw ConfigError(text("adam_update: steps count from 1, got ", step));
  const double t = static_cast<double>(step);
  const double bias1 = 1 - std::pow(static_cast<double>(beta1), t);
  const double root2 = std::sqrt(1 - std::pow(static_cast<double>(beta2), t));
  adam_update(ctx, p.size(), p.data, g.data, m.data, v.data, static_cast<T>(lr * root2 / bias1),
              beta1, beta2, static_cast<T>(eps * root2), l2);
}

/// RMSProp, Paddle's rule (Tieleman and Hinton, lecture 6.5, 2012), with coupled L2 decay:
///   g' = g + l2 p,  s = rho s + (1 - rho) g'^2,  v = momentum v + lr g' / sqrt(s + eps),  p -= v.
template <class Context, class T>
void rmsprop_update(Context& ctx, View<T> p, In<T> g, View<T> s, View<T> v,
                    std::type_identity_t<T> lr, std::type_identity_t<T> rho,
                    std::type_identity_t<T> momentum, std::type_identity_t<T> eps,
                    std::type_identity_t<T> l2) {
  check_shape("rmsprop_update: g", g.shape, p.shape);
  check_shape("rmsprop_update: s", s.shape, p.shape);
  check_shape("rmsprop_update: v", v.shape, p.shape);
  rmsprop_update(ctx, p.size(), p.data, g.data, s.data, v.data, lr, rho, momentum, eps, l2);
}

/// Centred RMSProp (Graves, "Generating Sequences With Recurrent Neural Networks", 2013): as
/// rmsprop_update, with a = rho a + (1 - rho) g' and sqrt(s - a^2 + eps).
template <class Context, class T>
void centered_rmsprop_update(Context& ctx, View<T> p, In<T> g, View<T> s, View<T> v, View<T> a,
                             std::type_identity_t<T> lr, std::type_identity_t<T> rho,
                             std::type_identity_t<T> momentum, std::type_identity_t<T> eps,
                             std::type_identity_t<T> l2) {
  check_shape("centered_rmsprop_update: g", g.shape, p.shape);
  check_shape("centered_rmsprop_update: s", s.shape, p.shape);
  check_shape("centered_rmsprop_update: v", v.shape, p.shape);
  check_shape("centered_rmsprop_update: a", a.shape, p.shape);
  centered_rmsprop_update(ctx, p.size(), p.data, g.data, s.data, v.data, a.data, lr, rho, momentum,
                          eps, l2);
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
