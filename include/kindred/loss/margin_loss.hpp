#pragma once
// Margin loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// Over all triplets of a row i, a positive p and a negative n: L = sum (max(0, d_ip - beta +
/// margin) + max(0, beta - d_in + margin)) / number of terms above 0, d the Euclidean distance of
/// the features [B,D] divided by max(norm, 1e-12). Active are those terms; without any the loss is
/// 0.
/// Source: Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017, with a fixed
/// boundary beta; pytorch-metric-learning MarginLoss (learn_beta False, triplets_per_anchor "all").
class MarginLoss : public PairLoss<MarginLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.2;
    double beta = 1.2;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "MarginLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::distance;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit MarginLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(config_.margin), T(config_.beta)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T margin, beta;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const auto negative = [&](std::int64_t j) { return p.negative(i, j); };
      // A positive pair is in as many triplets as the row has negatives, and the reverse; unless a
      // miner has counted them.
      const T np = T(group.count(p.batch, positive)), nn = T(group.count(p.batch, negative));
      const auto triplets = [&](std::int64_t j) {
        return p.counts_triplets ? p.selected[i * p.batch + j] : positive(j) ? nn : np;
      };
      const auto hinge = [&](std::int64_t j) {
        if (!positive(j) && !negative(j)) return T(0);
        const T h = (positive(j) ? m[j] - beta : beta - m[j]) + margin;
        return h < T(0) ? T(0) : h;
      };
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = hinge(j) == T(0) ? T(0) : positive(j) ? triplets(j) : -triplets(j);
      });
      const auto times = [&](std::int64_t j) { return c[j] < T(0) ? -c[j] : c[j]; };
      const T loss = group.sum(p.batch, [&](std::int64_t j) { return times(j) * hinge(j); });
      p.finish(group, i, loss, group.sum(p.batch, times));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
