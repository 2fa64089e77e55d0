#pragma once
// Optimizers: flat loops over all parameters that know kinds and multipliers, not layers.

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <variant>
#include <vector>

#include <kindred/core/parameters.hpp>
#include <kindred/kernels/optimizer.hpp>

namespace kindred::optim {

/// A set of parameter kinds.
class Kinds {
 public:
  constexpr Kinds() = default;
  constexpr Kinds(std::initializer_list<ParameterKind> kinds) {
    for (ParameterKind kind : kinds) bits_ |= 1u << static_cast<unsigned>(kind);
  }
  friend constexpr Kinds operator|(Kinds a, Kinds b) {
    a.bits_ |= b.bits_;
    return a;
  }
  constexpr bool contains(ParameterKind kind) const {
    return (bits_ >> static_cast<unsigned>(kind)) & 1u;
  }

 private:
  unsigned bits_ = 0;
};

/// A stretch of the flat buffer in which all parameters are treated alike.
struct Range {
  std::int64_t begin = 0, end = 0;
  double lr = 1;     ///< factor of the learning rate
  double decay = 0;  ///< weight decay
};

/// Those of the table's parameters that `which` accepts, in as few ranges as possible, with
/// `weight_decay` resolved. Parameters with a zero learning-rate multiplier are left out: they are
/// frozen.
template <class Which>
std::vector<Range> ranges(const ParameterTable& table, double weight_decay, Kinds no_decay,
                          Which&& which) {
  std::vector<Range> out;
  for (const ParameterInfo& p : table.entries()) {
    if (p.kind == ParameterKind::buffer || p.lr_multiplier == 0 || !which(p)) continue;
    const double decay = no_decay.contains(p.kind) ? 0 : weight_decay * p.decay_multiplier;
    const std::int64_t end = p.offset + p.shape.size();
    if (!out.empty() && out.back().lr == p.lr_multiplier && out.back().decay == decay &&
        p.offset - out.back().end < 16)  // only padding, which stays zero, lies between
      out.back().end = end;
    else
      out.push_back({p.offset, end, p.lr_multiplier, decay});
  }
  return out;
}
inline std::vector<Range> ranges(const ParameterTable& table, double weight_decay, Kinds no_decay) {
  return ranges(table, weight_decay, no_decay, [](const ParameterInfo&) { return true; });
}

/// Everything an update reads and writes, made once and filled in for every step; all arrays are
/// flat, in the layout of the table, where the kernels of the context can use them.
template <class T, class Array = std::vector<T>>
struct Update {
  std::span<T> parameters;
  std::span<const T> gradients;
  std::span<Array> moments;  ///< Array = RecModel::Array
  double lr = 0;
  std::int64_t step = 1;  ///< counts from 1

  template <class Whole>
  static auto part(Whole&& whole, const Range& r) {
    return View<std::remove_reference_t<decltype(whole[0])>>{whole.data() + r.begin,
                                                             {r.end - r.begin}};
  }
};

/// An optimizer is a description: `update` applies one step to every range, `moments()` says how
/// many flat arrays of state it needs (they start at zero).
template <class O>
concept Optimizer = requires(const O& o) {
  { o.name() } -> std::convertible_to<const char*>;
  { o.moments() } -> std::convertible_to<std::size_t>;
  { o.weight_decay } -> std::convertible_to<double>;
  { o.no_decay } -> std::convertible_to<Kinds>;
};

/// p -= lr (g + weight_decay p). Weight decay is coupled (L2).
/// Source: paddle.optimizer.SGD with L2Decay.
struct SGD {
  double weight_decay = 0;
  Kinds no_decay{};  ///< kinds without weight decay, besides what components exempt themselves

  static constexpr const char* name() { return "SGD"; }
  static constexpr std::size_t moments() { return 0; }

  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    for (const Range& r : all)
      kernels::sgd_update(ctx, u.part(u.parameters, r), u.part(u.gradients, r), T(u.lr * r.lr),
                          T(r.decay));
  }
};

/// v = momentum v + (g + weight_decay p); p -= lr v; with use_nesterov p -= lr (g' + momentum v).
/// Weight decay is coupled (L2). Source: paddle.optimizer.Momentum with L2Decay.
struct Momentum {
  double momentum = 0.9;
  double weight_decay = 0;
  bool use_nesterov = false;
  Kinds no_decay{};  ///< kinds without weight decay, besides what components exempt themselves

  static constexpr const char* name() { return "Momentum"; }
  static constexpr std::size_t moments() { return 1; }

  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    for (const Range& r : all)
      kernels::momentum_update(ctx, u.part(u.parameters, r), u.part(u.gradients, r),
                               u.part(u.moments[0], r), T(u.lr * r.lr), T(momentum), T(r.decay),
                               use_nesterov);
  }
};

/// g' = g + weight_decay p; m = b1 m + (1 - b1) g'; v = b2 v + (1 - b2) g'^2;
/// p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon sqrt(1 - b2^t)).
/// Weight decay is coupled (L2). Source: paddle.optimizer.Adam with L2Decay.
struct Adam {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  Kinds no_decay{};  ///< kinds without weight decay, besides what components exempt themselves

  static constexpr const char* name() { return "Adam"; }
  static constexpr std::size_t moments() { return 2; }

  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    for (const Range& r : all)
      kernels::adam_update(ctx, u.part(u.parameters, r), u.part(u.gradients, r),
                           u.part(u.moments[0], r), u.part(u.moments[1], r), T(u.lr * r.lr),
                           T(beta1), T(beta2), T(epsilon), T(r.decay), u.step);
  }
};

/// p *= 1 - lr weight_decay; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
/// p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon sqrt(1 - b2^t)).
/// Weight decay is decoupled. Source: paddle.optimizer.AdamW.
struct AdamW {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  Kinds no_decay{};  ///< kinds without weight decay, besides what components exempt themselves

  static constexpr const char* name() { return "AdamW"; }
  static constexpr std::size_t moments() { return 2; }

  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    for (const Range& r : all)
      kernels::adamw_update(ctx, u.part(u.parameters, r), u.part(u.gradients, r),
                            u.part(u.moments[0], r), u.part(u.moments[1], r), T(u.lr * r.lr),
                            T(beta1), T(beta2), T(epsilon), T(r.decay), u.step);
  }
};

/// g' = g + weight_decay p; s = rho s + (1 - rho) g'^2;
/// v = momentum v + lr g' / sqrt(s + epsilon); p -= v. With `centered` the root is that of
/// s - a^2 + epsilon, where a = rho a + (1 - rho) g'. Weight decay is coupled (L2).
/// Source: paddle.optimizer.RMSProp with L2Decay; defaults of PaddleClas, which has no `centered`.
struct RMSProp {
  double rho = 0.95;
  double momentum = 0;
  double epsilon = 1e-6;
  bool centered = false;
  double weight_decay = 0;
  Kinds no_decay{};  ///< kinds without weight decay, besides what components exempt themselves

  static constexpr const char* name() { return "RMSProp"; }
  std::size_t moments() const { return centered ? 3 : 2; }

  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    for (const Range& r : all) {
      const auto p = u.part(u.parameters, r);
      const auto g = u.part(u.gradients, r);
      const auto square = u.part(u.moments[0], r), velocity = u.part(u.moments[1], r);
      const T rate = T(u.lr * r.lr);
      if (centered)
        kernels::centered_rmsprop_update(ctx, p, g, square, velocity, u.part(u.moments[2], r), rate,
                                         T(rho), T(momentum), T(epsilon), T(r.decay));
      else
        kernels::rmsprop_update(ctx, p, g, square, velocity, rate, T(rho), T(momentum), T(epsilon),
                                T(r.decay));
    }
  }
};

/// An optimizer chosen at run time.
struct AnyOptimizer {
  using Rule = std::variant<Momentum, SGD, Adam, AdamW, RMSProp>;

  Rule rule;
  double weight_decay;
  Kinds no_decay;

  template <class O>
  requires std::constructible_from<Rule, const O&> AnyOptimizer(const O& optimizer)
      : rule(optimizer), weight_decay(optimizer.weight_decay), no_decay(optimizer.no_decay) {}

  const char* name() const {
    return std::visit([](const auto& o) { return o.name(); }, rule);
  }
  std::size_t moments() const {
    return std::visit([](const auto& o) { return o.moments(); }, rule);
  }
  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    std::visit([&](const auto& o) { o.update(ctx, all, u); }, rule);
  }
};

}  // namespace kindred::optim
