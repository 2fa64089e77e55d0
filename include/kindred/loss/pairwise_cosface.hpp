#pragma once
// Pairwise CosFace.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_i log(1 + sum_n e^(gamma (s_in + margin)) sum_p e^(-gamma s_ip)), s the cosine
/// similarity of the features [B,D], p the other rows of the label, n those of other labels. Active
/// are the rows with both; the others contribute 0. Source: Sun et al., "Circle Loss", CVPR 2020,
/// eq. 3; PaddleClas ppcls/loss/pairwisecosface.py, where a missing side is worth e^-99999999, the
/// same in any precision.
class PairwiseCosface : public PairLoss<PairwiseCosface> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.35;
    double gamma = 64;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "PairwiseCosface"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit PairwiseCosface(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(config_.margin), T(config_.gamma)};
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
      const auto pull = [&](std::int64_t j) { return -gamma * m[j]; };
      const auto push = [&](std::int64_t j) { return gamma * (m[j] + margin); };
      if (group.count(p.batch, positive) == 0 || group.count(p.batch, negative) == 0)
        return p.nothing(group, i);
      const T pulled = log_sum_exp(group, p.batch, false, positive, pull);
      const T pushed = log_sum_exp(group, p.batch, false, negative, push);
      const T share = gamma * sigmoid(pulled + pushed);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = positive(j)   ? -share * std::exp(pull(j) - pulled)
               : negative(j) ? share * std::exp(push(j) - pushed)
                             : T(0);
      });
      p.finish(group, i, softplus(pulled + pushed), T(1));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
