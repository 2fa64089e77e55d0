#pragma once
// Circle loss on pairs.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L_i = log(1 + sum_n e^(gamma a_n (s_in - m)) sum_p e^(-gamma a_p (s_ip - 1 + m))), with
/// a_p = max(0, 1 + m - s_ip), a_n = max(0, s_in + m) taken as constants in the gradient, as the
/// paper does; s the cosine similarity of the features [B,D]. L = mean of the L_i > 0, which are
/// the active ones; rows without a positive or a negative have none. Source: Sun et al., "Circle
/// Loss", CVPR 2020, eq. 4-7; pytorch-metric-learning CircleLoss.
class CircleLoss : public PairLoss<CircleLoss> {
 public:
  struct Config {
    double weight = 1;
    double m = 0.4;
    double gamma = 80;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "CircleLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit CircleLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(config_.m), T(config_.gamma)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T margin, gamma;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const auto negative = [&](std::int64_t j) { return p.negative(i, j); };
      const auto clip = [](T x) { return x > T(0) ? x : T(0); };
      const auto slope_p = [&](std::int64_t j) { return -gamma * clip(T(1) + margin - m[j]); };
      const auto slope_n = [&](std::int64_t j) { return gamma * clip(m[j] + margin); };
      const auto pull = [&](std::int64_t j) { return slope_p(j) * (m[j] - (T(1) - margin)); };
      const auto push = [&](std::int64_t j) { return slope_n(j) * (m[j] - margin); };
      if (group.count(p.batch, positive) == 0 || group.count(p.batch, negative) == 0)
        return p.nothing(group, i);
      const T pulled = log_sum_exp(group, p.batch, false, positive, pull);
      const T pushed = log_sum_exp(group, p.batch, false, negative, push);
      const T share = sigmoid(pulled + pushed), loss = softplus(pulled + pushed);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = positive(j)   ? share * slope_p(j) * std::exp(pull(j) - pulled)
               : negative(j) ? share * slope_n(j) * std::exp(push(j) - pushed)
                             : T(0);
      });
      p.finish(group, i, loss, T(loss != T(0)));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
