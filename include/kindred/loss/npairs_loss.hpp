#pragma once
// N-pair loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// Rows (0,1), (2,3), ... are (anchor a_k, positive p_k) of different classes. With S = a p^T,
/// L = mean_k -log softmax(S_k)_k + 1/2 reg_lambda mean_i |x_i|^2 over all B rows; features [B,D]
/// not normalised. Active are the anchors. Of an odd batch the last row is regularised only.
/// Source: PaddleClas ppcls/loss/npairsloss.py (Sohn, "Improved Deep Metric Learning with
/// Multi-class N-pair Loss Objective", 2016), which does not look at the labels either.
class NpairsLoss : public PairLoss<NpairsLoss> {
 public:
  struct Config {
    double weight = 1;
    double reg_lambda = 0.01;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "NpairsLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::none;

  explicit NpairsLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return false; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(config_.reg_lambda)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T reg_lambda;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      T* c = p.coefficient_row(i);
      const std::int64_t anchors = p.batch / 2;
      const bool anchor = i % 2 == 0 && i / 2 < anchors;
      const auto positives = [&](std::int64_t j) { return anchor && j % 2 == 1; };
      const T lse =
          log_sum_exp(group, p.batch, false, positives, [&](std::int64_t j) { return m[j]; });
      // Every row counts 1 / B in the mean; the anchors are only B / 2.
      const T share = anchor ? T(p.batch) / T(anchors) : T(0);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = positives(j) ? share * (std::exp(m[j] - lse) - T(j == i + 1)) : T(0);
        if (j == i) c[j] += reg_lambda / T(2);
      });
      const T entropy = anchor ? share * (lse - m[i + 1]) : T(0);
      p.finish(group, i, entropy + reg_lambda / T(2) * m[i], T(anchor));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
