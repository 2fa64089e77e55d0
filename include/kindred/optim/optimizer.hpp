#pragma once
// Optimizers: flat loops over all parameters that know kinds and multipliers, not layers.

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <type_traits>
#include <variant>
#include <vector>

#include <kindred/core/parameters.hpp>
#include <kindred/core/row_update.hpp>
#include <kindred/core/shape.hpp>
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

/// A stretch of the flat buffers in which all parameters are treated alike.
struct Range {
  std::int64_t begin = 0, end = 0;  ///< in the parameters and in the moments
  double lr = 1;                    ///< factor of the learning rate
  double decay = 0;                 ///< weight decay
  std::int64_t gradient = 0;        ///< its first element in the gradients
};

/// The range of one parameter.
inline Range range_of(const ParameterInfo& p, double weight_decay, Kinds no_decay) {
  return {p.offset, p.offset + p.shape.size(), p.lr_multiplier,
          no_decay.contains(p.kind) ? 0 : weight_decay * p.decay_multiplier, p.gradient_offset};
}

/// Those of the table's parameters that `which` accepts, in as few ranges as possible, with
/// `weight_decay` resolved. Parameters with a zero learning-rate multiplier are left out: they are
/// frozen. So are those without a stored gradient, see Scope::updated_in_tile and RowStep.
template <class Which>
std::vector<Range> ranges(const ParameterTable& table, double weight_decay, Kinds no_decay,
                          Which&& which) {
  std::vector<Range> out;
  for (const ParameterInfo& p : table.entries()) {
    if (p.kind == ParameterKind::buffer || p.updated_in_tile) continue;
    if (p.lr_multiplier == 0 || !which(p)) continue;
    const Range own = range_of(p, weight_decay, no_decay);
    if (!out.empty() && out.back().lr == own.lr && out.back().decay == own.decay &&
        own.begin - out.back().end < 16)  // only padding, which stays zero, lies between
      out.back().end = own.end;
    else
      out.push_back(own);
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
  /// Where kernels read whether the step may be taken: nothing changes if it is 0. Null: it may.
  const T* allowed = nullptr;

  /// The elements of a range in the first `count` moments.
  template <std::size_t count>
  std::array<View<T>, count> state(const Range& r) const {
    std::array<View<T>, count> views{};
    std::size_t k = 0;
    for (View<T>& view : views) view = {moments[k++].data() + r.begin, {r.end - r.begin}};
    return views;
  }
};

/// One step of an optimizer on every range.
template <class O, class Context, class T, class Array>
void update_ranges(const O& optimizer, Context& ctx, std::span<const Range> all,
                   const Update<T, Array>& u) {
  for (const Range& r : all)
    optimizer.template with_rule<T>(u.lr * r.lr, r.decay, u.step, [&](const auto& rule) {
      constexpr std::size_t moments = std::remove_cvref_t<decltype(rule)>::moments;
      const std::int64_t n = r.end - r.begin;
      kernels::apply_rule(ctx, rule, View<T>{u.parameters.data() + r.begin, {n}},
                          View<const T>{u.gradients.data() + r.gradient, {n}},
                          u.template state<moments>(r), u.allowed);
    });
}

/// An optimizer is a description: `with_rule` gives the rule of one step for elements with a
/// learning rate and a decay (kernels/optimizer_rule.hpp), `update` applies it to every range,
/// unless *allowed of the Update is 0, `moments()` says how many flat arrays of state it needs
/// (they start at zero). One without `with_rule` need not heed `allowed`.
template <class O>
concept Optimizer = requires(const O& o) {
  { o.name() } -> std::convertible_to<const char*>;
  { o.moments() } -> std::convertible_to<std::size_t>;
  { o.weight_decay } -> std::convertible_to<double>;
  { o.no_decay } -> std::convertible_to<Kinds>;
};

/// An optimizer that can take its step within the pass: that a head with update_in_tile can use,
/// and that Trainer launches with the pass, before the host knows whether all was finite.
template <class O, class T>
concept HasRule = requires(const O& o) {
  o.template with_rule<T>(1., 0., std::int64_t{1}, [](const auto&) {});
};

/// p -= lr (g + weight_decay p). Weight decay is coupled (L2).
/// Source: paddle.optimizer.SGD with L2Decay.
struct SGD {
  double weight_decay = 0;
  Kinds no_decay{};  ///< kinds without weight decay, besides what components exempt themselves

  static constexpr const char* name() { return "SGD"; }
  static constexpr std::size_t moments() { return 0; }

  template <class T, class F>
  void with_rule(double lr, double decay, std::int64_t /*step*/, F&& f) const {
    f(SgdRule<T>{T(lr), T(decay)});
  }
  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    update_ranges(*this, ctx, all, u);
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

  template <class T, class F>
  void with_rule(double lr, double decay, std::int64_t /*step*/, F&& f) const {
    f(MomentumRule<T>{T(lr), T(momentum), T(decay), use_nesterov});
  }
  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    update_ranges(*this, ctx, all, u);
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

  template <class T, class F>
  void with_rule(double lr, double decay, std::int64_t step, F&& f) const {
    f(AdamRule<T>(T(lr), T(beta1), T(beta2), T(epsilon), T(decay), step));
  }
  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    update_ranges(*this, ctx, all, u);
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

  template <class T, class F>
  void with_rule(double lr, double decay, std::int64_t step, F&& f) const {
    f(AdamWRule<T>(T(lr), T(beta1), T(beta2), T(epsilon), T(decay), step));
  }
  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    update_ranges(*this, ctx, all, u);
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

  template <class T, class F>
  void with_rule(double lr, double decay, std::int64_t /*step*/, F&& f) const {
    if (centered)
      f(CenteredRmspropRule<T>{T(lr), T(rho), T(momentum), T(epsilon), T(decay)});
    else
      f(RmspropRule<T>{T(lr), T(rho), T(momentum), T(epsilon), T(decay)});
  }
  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    update_ranges(*this, ctx, all, u);
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
  template <class T, class F>
  void with_rule(double lr, double decay, std::int64_t step, F&& f) const {
    std::visit([&](const auto& o) { o.template with_rule<T>(lr, decay, step, f); }, rule);
  }
  template <class Context, class T, class Array>
  void update(Context& ctx, std::span<const Range> all, const Update<T, Array>& u) const {
    update_ranges(*this, ctx, all, u);
  }
};

/// One step of an optimizer on one parameter, a part at a time, with gradients that are never
/// stored: what TrainSession hands to a head with update_in_tile. Lasts as long as the step.
template <class Context, class T, class Array, class O>
class RowStep final : public RowUpdate<Context, T> {
 public:
  /// `range` is the whole parameter; the gradients of `update` are not used.
  RowStep(const O& optimizer, const Range& range, const Update<T, Array>& update)
      : optimizer_(&optimizer), range_(range), update_(update) {}

  void operator()(Context& ctx, std::int64_t begin, std::int64_t n, const T* g,
                  const T* allowed) const override {
    optimizer_->template with_rule<T>(
        update_.lr * range_.lr, range_.decay, update_.step, [&](const auto& rule) {
          constexpr std::size_t moments = std::remove_cvref_t<decltype(rule)>::moments;
          const std::int64_t first = range_.begin + begin;
          std::array<T*, moments> state{};
          std::size_t k = 0;
          for (T*& m : state) m = update_.moments[k++].data() + first;
          apply_rule_in_chunk(ctx, rule, n, update_.parameters.data() + first, g, state, allowed);
        });
  }

 private:
  const O* optimizer_;
  Range range_;
  Update<T, Array> update_;
};

}  // namespace kindred::optim
