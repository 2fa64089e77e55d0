#pragma once
// Margin loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// Over all triplets of a row i, a positive p and a negative n: L = sum (max(0, d_ip - beta +
/// margin) + max(0, beta - d_in + margin)) / number of terms above 0, d the Euclidean distance of
/// the features [B,D] divided by max(norm, 1e-12). Active are those terms; without any the loss is
/// 0.
/// With learn_beta the boundary is a parameter "beta" [1] that starts there; give it an optimizer
/// of its own by the scope MarginLoss. Source: Wu et al., "Sampling Matters in Deep Embedding
/// Learning", ICCV 2017; pytorch-metric-learning MarginLoss (triplets_per_anchor "all"), which also
/// offers one beta for each class and a regulariser nu of beta.
class MarginLoss : public PairLoss<MarginLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.2;
    double beta = 1.2;
    bool learn_beta = false;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "MarginLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::distance;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  MarginLoss(const Config& config, const Scope& scope) : config_(config) {
    if (config.learn_beta)
      beta_ =
          scope.declare("beta", Shape{1}, ParameterKind::norm, Initializer::constant(config.beta));
  }

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class Context, class T>
  auto row(const Run<Context, T>& run, const Pairs<T>& pairs) const {
    const T* learned = config_.learn_beta ? run.parameter(beta_).data : nullptr;
    return Row<T>{pairs, T(config_.margin), T(config_.beta), learned};
  }

  /// d loss / d beta: beta enters every term as -d_ij does, so it is less the sum of all
  /// coefficients.
  template <class Context, class T>
  void own_gradient(const Run<Context, T>& run, const Pairs<T>& pairs, std::int64_t rows,
                    const T* factor) const {
    if (!config_.learn_beta) return;
    auto slopes = run.make({rows}, "MarginLoss.slopes");
    kernels::pair_rows(run.ctx, rows, pairs.batch, SlopeRow<T>{pairs, slopes.data});
    kernels::pair_rows(run.ctx, 1, rows,
                       BetaGradient<T>{rows, slopes.data, factor, run.gradient(beta_).data});
  }

  template <class T>
  struct SlopeRow {
    Pairs<T> pairs;
    T* slopes;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T* c = pairs.coefficient_row(i);
      const T sum = group.sum(pairs.batch, [&](std::int64_t j) { return c[j]; });
      group.once([&] { slopes[i] = -sum; });
    }
  };
  template <class T>
  struct BetaGradient {
    std::int64_t rows;
    const T *slopes, *factor;
    T* gradient;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      const T sum = group.sum(rows, [&](std::int64_t i) { return slopes[i]; });
      group.once([&] { *gradient += *factor * sum; });
    }
  };

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T margin, fixed;
    const T* learned;  ///< nullptr: the boundary is fixed
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T beta = learned == nullptr ? fixed : *learned;
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
  ParameterRef beta_{};
};

}  // namespace kindred::loss
