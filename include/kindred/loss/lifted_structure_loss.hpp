#pragma once
// Lifted structured embedding loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean over all positive pairs (i,p) of 1/2 max(0, d_ip - pos_margin + log sum_n
/// (e^(neg_margin - d_in) + e^(neg_margin - d_pn)))^2, d the Euclidean distance of the features
/// [B,D] divided by max(norm, 1e-12), n the rows of other labels. Active are the positive pairs of
/// rows with a negative; without any the loss is 0. Source: Oh Song et al., "Deep Metric Learning
/// via Lifted Structured Feature Embedding", CVPR 2016; pytorch-metric-learning
/// LiftedStructureLoss.
class LiftedStructureLoss : public PairLoss<LiftedStructureLoss> {
 public:
  struct Config {
    double weight = 1;
    double neg_margin = 1;
    double pos_margin = 0;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "LiftedStructureLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::distance;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;

  explicit LiftedStructureLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class Context, class T>
  void fill(const Run<Context, T>& run, const Pairs<T>& pairs) const {
    auto pushed = run.make({pairs.batch}, "LiftedStructureLoss.pushed");
    kernels::pair_rows(run.ctx, pairs.batch, pairs.batch,
                       Push<T>{pairs, T(config_.neg_margin), pushed.data});
    kernels::pair_rows(run.ctx, pairs.batch, pairs.batch,
                       Row<T>{pairs, T(config_.neg_margin), T(config_.pos_margin), pushed.data});
  }

  template <class T>
  struct Push {
    Pairs<T> pairs;
    T margin;
    T* pushed;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T* m = pairs.row(i);
      const T lse = log_sum_exp(
          group, pairs.batch, false, [&](std::int64_t j) { return pairs.negative(i, j); },
          [&](std::int64_t j) { return margin - m[j]; });
      group.once([&] { pushed[i] = lse; });
    }
  };

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T neg_margin, pos_margin;
    const T* pushed;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const auto negative = [&](std::int64_t j) { return p.negative(i, j); };
      const std::int64_t np = group.count(p.batch, positive);
      if (np == 0 || group.count(p.batch, negative) == 0) return p.nothing(group, i);
      const T own = pushed[i];
      const auto both = [&](std::int64_t j) {  // log(e^own + e^pushed_j)
        return own + softplus(pushed[j] - own);
      };
      const auto hinge = [&](std::int64_t j) {
        const T h = m[j] - pos_margin + both(j);
        return h < T(0) ? T(0) : h;
      };
      const T loss = group.sum(
          p.batch, [&](std::int64_t j) { return positive(j) ? hinge(j) * hinge(j) / T(2) : T(0); });
      // The pairs (i,p) and (p,i) have equal losses, hence the 2.
      const T push = group.sum(p.batch, [&](std::int64_t j) {
        return positive(j) ? T(2) * hinge(j) * std::exp(own - both(j)) : T(0);
      });
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = positive(j)   ? hinge(j)
               : negative(j) ? -push * std::exp(neg_margin - m[j] - own)
                             : T(0);
      });
      p.finish(group, i, loss, T(np));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
