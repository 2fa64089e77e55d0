#pragma once
// Intra-pair variance loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean over positive pairs of max(0, (1 - pos_eps) mu_p - s)^2 + mean over negative pairs of
/// max(0, s - (1 + neg_eps) mu_n)^2, s the cosine similarity of the features [B,D], mu_p and mu_n
/// its means over the positive and the negative pairs of the batch, which take part in the
/// gradient. Active are the pairs with a term above 0. Meant to be added to another loss. Source:
/// Yu and Tao, "Deep Metric Learning with Tuplet Margin Loss", ICCV 2019; pytorch-metric-learning
/// IntraPairVarianceLoss.
class IntraPairVarianceLoss : public PairLoss<IntraPairVarianceLoss> {
 public:
  struct Config {
    double weight = 1;
    double pos_eps = 0.01;
    double neg_eps = 0.01;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "IntraPairVarianceLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::max_eps;

  explicit IntraPairVarianceLoss(const Config& config, const Scope&) : config_(config) {}
  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class Context, class T>
  void fill(const Run<Context, T>& run, const Pairs<T>& pairs) const {
    const std::int64_t batch = pairs.batch;
    auto sums = run.make({6, batch}, "IntraPairVarianceLoss.sums");
    const Side<T> positive{pairs, sums.row(0), true, T(1 - config_.pos_eps), T(-1)};
    const Side<T> negative{pairs, sums.row(3), false, T(1 + config_.neg_eps), T(1)};
    kernels::pair_rows(run.ctx, batch, batch, Means<T>{positive, negative});
    kernels::pair_rows(run.ctx, batch, batch, Hinges<T>{positive, negative});
    kernels::pair_rows(run.ctx, batch, batch, Row<T>{positive, negative});
  }

  /// The positive or the negative pairs, with three sums for each row.
  template <class T>
  struct Side {
    Pairs<T> pairs;
    T* sums;  // [3,B]: of s, of 1, of the hinges
    bool positives;
    T share, sign;  // hinge = max(0, sign (s - share mean))

    KINDRED_HD bool has(std::int64_t i, std::int64_t j) const {
      return positives ? pairs.positive(i, j) : pairs.negative(i, j);
    }
    template <class Group>
    KINDRED_HD T total(const Group& group, int which) const {
      const T* s = sums + which * pairs.batch;
      return group.sum(pairs.batch, [&](std::int64_t i) { return s[i]; });
    }
    template <class Group>
    KINDRED_HD T bound(const Group& group) const {
      const T n = total(group, 1);
      return n > T(0) ? share * total(group, 0) / n : T(0);
    }
    KINDRED_HD T hinge(std::int64_t i, std::int64_t j, T bound) const {
      const T h = sign * (pairs.row(i)[j] - bound);
      return h < T(0) || !has(i, j) ? T(0) : h;
    }
    template <class Group>
    KINDRED_HD void add_means(const Group& group, std::int64_t i) const {
      const T* m = pairs.row(i);
      const T sum = group.sum(pairs.batch, [&](std::int64_t j) { return has(i, j) ? m[j] : T(0); });
      const T n = T(group.count(pairs.batch, [&](std::int64_t j) { return has(i, j); }));
      group.once([&] {
        sums[i] = sum;
        sums[pairs.batch + i] = n;
      });
    }
    template <class Group>
    KINDRED_HD void add_hinges(const Group& group, std::int64_t i) const {
      const T b = bound(group);
      const T sum = group.sum(pairs.batch, [&](std::int64_t j) { return hinge(i, j, b); });
      group.once([&] { sums[2 * pairs.batch + i] = sum; });
    }
    /// B times the row's part of the mean of the squares, with its derivative written to c.
    template <class Group>
    KINDRED_HD T squares(const Group& group, std::int64_t i, T* c) const {
      const T n = total(group, 1);
      if (n == T(0)) return T(0);
      const T b = bound(group), through_mean = share * total(group, 2) / n;
      const T scale = T(pairs.batch) / n;
      group.for_each(pairs.batch, [&](std::int64_t j) {
        if (has(i, j)) c[j] = T(2) * scale * sign * (hinge(i, j, b) - through_mean);
      });
      return scale * group.sum(pairs.batch,
                               [&](std::int64_t j) { return hinge(i, j, b) * hinge(i, j, b); });
    }
  };

  template <class T>
  struct Means {
    Side<T> positive, negative;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      positive.add_means(group, i);
      negative.add_means(group, i);
    }
  };
  template <class T>
  struct Hinges {
    Side<T> positive, negative;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      positive.add_hinges(group, i);
      negative.add_hinges(group, i);
    }
  };
  template <class T>
  struct Row {
    Side<T> positive, negative;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = positive.pairs;
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) { c[j] = T(0); });
      const T loss = positive.squares(group, i, c) + negative.squares(group, i, c);
      const T bp = positive.bound(group), bn = negative.bound(group);
      p.finish(group, i, loss, T(group.count(p.batch, [&](std::int64_t j) {
                 return positive.hinge(i, j, bp) != T(0) || negative.hinge(i, j, bn) != T(0);
               })));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
