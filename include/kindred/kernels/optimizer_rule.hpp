#pragma once
// What one optimizer step does to one element: a rule. Every update calls these, on the processor
// in vectors (V is a vector of T) and on a GPU one by one (V is T), on flat arrays and on the rows
// of one tile alike.
//
// rule(p, moments..., g) takes the parameter, the optimizer's state of it and its gradient, and
// changes all but the last; `moments` says how many arrays of state there are. lr and the decay are
// those of the element: with all multipliers in them. Steps t count from 1.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include <kindred/core/error.hpp>
#include <kindred/core/macros.hpp>

namespace kindred {

/// SGD, Paddle's rule, with coupled L2 decay: p -= lr (g + l2 p).
template <class T>
struct SgdRule {
  static constexpr const char* name = "SGD";
  static constexpr std::size_t moments = 0;
  T lr, l2;

  template <class V>
  KINDRED_HD void operator()(V& p, V g) const {
    p = p - V(lr) * (g + V(l2) * p);
  }
};

/// SGD with momentum, Paddle's rule, with coupled L2 decay (Paddle's L2Decay):
///   g' = g + l2 p,  v = momentum v + g',  p -= lr v        (nesterov: p -= lr (g' + momentum v)).
template <class T>
struct MomentumRule {
  static constexpr const char* name = "Momentum";
  static constexpr std::size_t moments = 1;
  T lr, momentum, l2;
  bool nesterov;

  template <class V>
  KINDRED_HD void operator()(V& p, V& v, V g) const {
    const V gradient = g + V(l2) * p;
    v = V(momentum) * v + gradient;
    const V step = nesterov ? V(gradient + V(momentum) * v) : v;
    p = p - V(lr) * step;
  }
};

/// lr and epsilon of Adam with its bias corrections: lr sqrt(1 - beta2^t)/(1 - beta1^t) and
/// eps sqrt(1 - beta2^t). Throws ConfigError for a step below 1.
struct AdamRates {
  double rate, eps;
  AdamRates(double lr, double beta1, double beta2, double epsilon, std::int64_t step) {
    if (step < 1) throw ConfigError(text("Adam: steps count from 1, got ", step));
    const double t = static_cast<double>(step);
    const double root2 = std::sqrt(1 - std::pow(beta2, t));
    rate = lr * root2 / (1 - std::pow(beta1, t));
    eps = epsilon * root2;
  }
};

/// Adam, Paddle's rule (Kingma and Ba, "Adam", ICLR 2015), with coupled L2 decay, at step t:
///   g' = g + l2 p,  m = beta1 m + (1 - beta1) g',  v = beta2 v + (1 - beta2) g'^2,
///   p -= lr sqrt(1 - beta2^t)/(1 - beta1^t) m / (sqrt(v) + eps sqrt(1 - beta2^t)).
template <class T>
struct AdamRule {
  static constexpr const char* name = "Adam";
  static constexpr std::size_t moments = 2;
  T rate, beta1, beta2, eps, l2;

  AdamRule(T lr, T b1, T b2, T epsilon, T decay, std::int64_t step)
      : AdamRule(AdamRates(lr, b1, b2, epsilon, step), b1, b2, decay) {}

  template <class V>
  KINDRED_HD void operator()(V& p, V& m, V& v, V g) const {
    using std::sqrt;
    const V gradient = g + V(l2) * p;
    m = V(beta1) * m + V(T(1) - beta1) * gradient;
    v = V(beta2) * v + V(T(1) - beta2) * gradient * gradient;
    p = p - V(rate) * m / (sqrt(v) + V(eps));
  }

 private:
  AdamRule(const AdamRates& r, T b1, T b2, T decay)
      : rate(T(r.rate)), beta1(b1), beta2(b2), eps(T(r.eps)), l2(decay) {}
};

/// AdamW, Paddle's rule (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR
/// 2019), at step t:
///   p *= 1 - lr decay,  m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
///   p -= lr sqrt(1 - beta2^t)/(1 - beta1^t) m / (sqrt(v) + eps sqrt(1 - beta2^t)).
template <class T>
struct AdamWRule {
  static constexpr const char* name = "AdamW";
  static constexpr std::size_t moments = 2;
  T rate, beta1, beta2, eps, shrink;

  AdamWRule(T lr, T b1, T b2, T epsilon, T decay, std::int64_t step)
      : AdamWRule(AdamRates(lr, b1, b2, epsilon, step), b1, b2, 1 - lr * decay) {}

  template <class V>
  KINDRED_HD void operator()(V& p, V& m, V& v, V g) const {
    using std::sqrt;
    m = V(beta1) * m + V(T(1) - beta1) * g;
    v = V(beta2) * v + V(T(1) - beta2) * g * g;
    p = V(shrink) * p - V(rate) * m / (sqrt(v) + V(eps));
  }

 private:
  AdamWRule(const AdamRates& r, T b1, T b2, T factor)
      : rate(T(r.rate)), beta1(b1), beta2(b2), eps(T(r.eps)), shrink(factor) {}
};

/// RMSProp, Paddle's rule (Tieleman and Hinton, lecture 6.5, 2012), with coupled L2 decay:
///   g' = g + l2 p,  s = rho s + (1 - rho) g'^2,  v = momentum v + lr g' / sqrt(s + eps),  p -= v.
template <class T>
struct RmspropRule {
  static constexpr const char* name = "RMSProp";
  static constexpr std::size_t moments = 2;
  T lr, rho, momentum, eps, l2;

  template <class V>
  KINDRED_HD void operator()(V& p, V& s, V& v, V g) const {
    using std::sqrt;
    const V gradient = g + V(l2) * p;
    s = V(rho) * s + V(T(1) - rho) * gradient * gradient;
    v = V(momentum) * v + V(lr) * gradient / sqrt(V(s + V(eps)));
    p = p - v;
  }
};

/// Centred RMSProp (Graves, "Generating Sequences With Recurrent Neural Networks", 2013): as
/// RmspropRule, with a = rho a + (1 - rho) g' and sqrt(s - a^2 + eps).
template <class T>
struct CenteredRmspropRule {
  static constexpr const char* name = "RMSProp, centered";
  static constexpr std::size_t moments = 3;
  T lr, rho, momentum, eps, l2;

  template <class V>
  KINDRED_HD void operator()(V& p, V& s, V& v, V& a, V g) const {
    using std::sqrt;
    const V gradient = g + V(l2) * p;
    s = V(rho) * s + V(T(1) - rho) * gradient * gradient;
    a = V(rho) * a + V(T(1) - rho) * gradient;
    v = V(momentum) * v + V(lr) * gradient / sqrt(V(s - a * a + V(eps)));
    p = p - v;
  }
};

}  // namespace kindred
