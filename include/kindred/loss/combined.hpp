#pragma once
// A weighted sum of losses.

#include <algorithm>
#include <tuple>
#include <utility>

#include <kindred/loss/loss.hpp>

namespace kindred::loss {

namespace detail {

/// Settings side by side as a plain aggregate, so that `{{.weight = 1}, {.margin = 0.5f}}` works
/// with designated initialisers inside (a tuple would not take them).
template <class... C>
struct Settings;
template <class A>
struct Settings<A> {
  A first;
};
template <class A, class B>
struct Settings<A, B> {
  A first;
  B second;
};
template <class A, class B, class C>
struct Settings<A, B, C> {
  A first;
  B second;
  C third;
};
template <class A, class B, class C, class D>
struct Settings<A, B, C, D> {
  A first;
  B second;
  C third;
  D fourth;
};

template <std::size_t I, class S>
const auto& get(const S& s) {
  if constexpr (I == 0)
    return s.first;
  else if constexpr (I == 1)
    return s.second;
  else if constexpr (I == 2)
    return s.third;
  else
    return s.fourth;
}

}  // namespace detail

/// L = sum_k weight_k L_k for one to four losses; each Config has its `weight`.
/// Source: CombinedLoss of PaddleClas. There the weight of a single loss is ignored; here it
/// counts.
template <class... Losses>
class Combined {
  static_assert(sizeof...(Losses) >= 1 && sizeof...(Losses) <= 4,
                "loss::Combined takes one to four losses; nest a Combined for more");

 public:
  using Config = detail::Settings<typename Losses::Config...>;

  static constexpr const char* name() { return "Combined"; }
  static constexpr std::int64_t entries() { return (Losses::entries() + ...); }

  Combined(const Config& config, const Scope& scope)
      : Combined(config, scope, std::index_sequence_for<Losses...>{}) {}

  LogitUse logit_use() const {
    LogitUse most = LogitUse::none;
    for_each([&](const auto& loss) { most = std::max(most, loss.logit_use()); });
    return most;
  }
  bool reads(FeatureFrom from) const {
    bool any = false;
    for_each([&](const auto& loss) { any = any || loss.reads(from); });
    return any;
  }
  void describe(LossReport* report) const {
    for_each([&](const auto& loss) {
      loss.describe(report);
      report += loss.entries();
    });
  }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    T* place = report.data;
    for_each([&](const auto& loss) {
      loss.evaluate(run, in, gradient, View<T>{place, {loss.entries() * report_size}});
      place += loss.entries() * report_size;
    });
  }

 private:
  template <std::size_t... I>
  Combined(const Config& config, const Scope& scope, std::index_sequence<I...>)
      : losses_(Losses(detail::get<I>(config),
                       (scope / std::to_string(I)).of_loss(Losses::name()))...) {}
  template <class F>
  void for_each(F&& f) const {
    std::apply([&](const auto&... loss) { (f(loss), ...); }, losses_);
  }

  std::tuple<Losses...> losses_;
};

}  // namespace kindred::loss
