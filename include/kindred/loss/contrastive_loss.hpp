#pragma once
// Contrastive loss on cosine similarities.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = 1/B sum_i ( sum_{y_j = y_i, s_ij < 1 - epsilon} (1 - s_ij) + sum_{y_j != y_i, s_ij > margin}
/// s_ij ), s = x x^T of the features [B,D], divided by max(norm, 1e-12) if `normalize_feature`.
/// Active are the pairs in the sums. Source: PaddleClas ppcls/loss/contrasiveloss.py.
class ContrastiveLoss : public PairLoss<ContrastiveLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.5;
    bool normalize_feature = true;
    double epsilon = 1e-5;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "ContrastiveLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit ContrastiveLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return config_.normalize_feature; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(config_.margin), T(1 - config_.epsilon)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T margin, nearly_one;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = !p.chosen(i, j) ? T(0) : p.same(i, j) ? -T(m[j] < nearly_one) : T(m[j] > margin);
      });
      const T loss = group.sum(
          p.batch, [&](std::int64_t j) { return c[j] < T(0) ? T(1) - m[j] : c[j] * m[j]; });
      p.finish(group, i, loss,
               T(group.count(p.batch, [&](std::int64_t j) { return c[j] != T(0); })));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
