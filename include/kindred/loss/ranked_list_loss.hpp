#pragma once
// Ranked list loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// With e_j = d_ij - (alpha - margin) over the positives with e_j > 0, weighted by w_j = e^(Tp
/// e_j), and f_j = alpha - d_ij over the negatives with f_j > 0, weighted by v_j = e^(Tn f_j):
///   L = mean_i (1 - imbalance) sum w e / (sum w + 1e-5 B) + imbalance sum v f / (sum v + 1e-5 B),
/// d the Euclidean distance of the features [B,D] divided by max(norm, 1e-12). The weights take
/// part in the gradient. Active are the pairs in the sums. Source: Wang et al., "Ranked List Loss
/// for Deep Metric Learning", CVPR 2019; pytorch-metric-learning RankedListLoss, whose default
/// alpha is 1 + margin / 2. There a negative at a distance of exactly 0 is left out; here it
/// counts, with gradient 0. Throws ConfigError unless imbalance is in [0, 1].
class RankedListLoss : public PairLoss<RankedListLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.4;
    double Tn = 10;
    double imbalance = 0.5;
    double alpha = 1.2;
    double Tp = 0;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "RankedListLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::distance;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit RankedListLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.imbalance >= 0 && config.imbalance <= 1))
      throw ConfigError(text(name(), ": imbalance must be in [0, 1], got ", config.imbalance));
  }
  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs,         T(config_.alpha), T(config_.margin), T(config_.imbalance),
                  T(config_.Tp), T(config_.Tn)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T alpha, margin, imbalance, tp, tn;

    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) { c[j] = T(0); });
      const T pull = side(
          group, c, T(1), (T(1) - imbalance), tp, [&](std::int64_t j) { return p.positive(i, j); },
          [&](std::int64_t j) { return m[j] - (alpha - margin); });
      const T push = side(
          group, c, T(-1), imbalance, tn, [&](std::int64_t j) { return p.negative(i, j); },
          [&](std::int64_t j) { return alpha - m[j]; });
      p.finish(group, i, pull + push,
               T(group.count(p.batch, [&](std::int64_t j) { return c[j] != T(0); })));
    }

    /// scale times the weighted mean of the excesses above 0; adds its derivative to c, where the
    /// excess grows with the distance times `sign`.
    template <class Group, class Keep, class Excess>
    KINDRED_HD T side(const Group& group, T* c, T sign, T scale, T temperature, Keep&& keep,
                      Excess&& excess) const {
      const std::int64_t n = pairs.batch;
      // !(<= 0), so that a NaN shows
      const auto in = [&](std::int64_t j) { return keep(j) && !(excess(j) <= T(0)); };
      const auto weight = [&](std::int64_t j) { return std::exp(temperature * excess(j)); };
      const T sum =
          T(1e-5) * T(n) + group.sum(n, [&](std::int64_t j) { return in(j) ? weight(j) : T(0); });
      const T mean =
          group.sum(n, [&](std::int64_t j) { return in(j) ? weight(j) * excess(j) : T(0); }) / sum;
      group.for_each(n, [&](std::int64_t j) {
        if (in(j))
          c[j] = sign * scale * weight(j) * (T(1) + temperature * (excess(j) - mean)) / sum;
      });
      return scale * mean;
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
