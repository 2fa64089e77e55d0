#pragma once
// Contrastive loss on signal-to-noise ratios.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// With m_ij = var(x_i - x_j) / var(x_i), variances over the D coordinates of the features [B,D]
/// divided by max(norm, 1e-12): L = mean over the positive pairs with m > pos_margin of m -
/// pos_margin, + mean over the negative pairs with m < neg_margin of neg_margin - m; a side without
/// such pairs gives 0. Active are these pairs. A row without variance, infinite there, takes no
/// part as an anchor. Source: Yuan et al., "Signal-to-Noise Ratio: A Robust Distance Metric for
/// Deep Metric Learning", CVPR 2019; pytorch-metric-learning SignalToNoiseRatioContrastiveLoss.
class SignalToNoiseRatioContrastiveLoss : public FeatureLoss<SignalToNoiseRatioContrastiveLoss> {
 public:
  struct Config {
    double weight = 1;
    double pos_margin = 0;
    double neg_margin = 1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "SignalToNoiseRatioContrastiveLoss"; }

  explicit SignalToNoiseRatioContrastiveLoss(const Config& config, const Scope&)
      : config_(config) {}
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const FeatureFrom from = config_.feature_from;
    detail::on_normalized(run, true, NormRule::max_eps, in.at(from), gradient.at(from),
                          [&](View<const T> unit, View<T> dunit) {
                            const std::int64_t batch = unit.dim(0), dim = unit.dim(1);
                            auto centred = run.make(unit.shape, "SNR.centred");
                            auto dcentred = run.make(unit.shape, "SNR.dcentred");
                            kernels::copy(run.ctx, unit, View<T>(centred));
                            kernels::pair_rows(run.ctx, batch, dim, Center<T>{dim, centred.data});
                            kernels::fill(run.ctx, T(0), View<T>(dcentred));
                            ratios(run, View<const T>(centred), in.labels, dcentred, report);
                            kernels::pair_rows(run.ctx, batch, dim, Center<T>{dim, dcentred.data});
                            kernels::scale_add(run.ctx, T(1), dcentred, dunit);
                          });
  }

  /// Subtracts its mean from every row; its own transpose.
  template <class T>
  struct Center {
    std::int64_t dim;
    T* x;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      T* row = x + i * dim;
      const T mean = group.sum(dim, [&](std::int64_t d) { return row[d]; }) / T(dim);
      group.for_each(dim, [&](std::int64_t d) { row[d] -= mean; });
    }
  };

  template <class T>
  struct Ratios {
    Pairs<T> pairs;  // squared distances
    std::int64_t dim;
    const T* x;  // centred rows
    T *dx, pos_margin, neg_margin, weight;
    T *sums, *counts;  // [2,B]: positives, negatives
    T* report;

    KINDRED_HD T hinge(std::int64_t i, std::int64_t j, T power) const {
      if (i == j || !(power > T(0) || power != power)) return T(0);
      const T ratio = pairs.row(i)[j] / power;
      const T h = pairs.same(i, j) ? ratio - pos_margin : neg_margin - ratio;
      return h < T(0) ? T(0) : h;
    }
    template <class Group>
    KINDRED_HD T power(const Group& group, std::int64_t i) const {
      const T* row = x + i * dim;
      return group.sum(dim, [&](std::int64_t d) { return row[d] * row[d]; });
    }
    template <class Group>
    KINDRED_HD T count(const Group& group, std::int64_t side) const {
      const T* c = counts + side * pairs.batch;
      return group.sum(pairs.batch, [&](std::int64_t i) { return c[i]; });
    }
  };

  template <class T>
  struct Hinges {
    Ratios<T> r;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const std::int64_t n = r.pairs.batch;
      const T power = r.power(group, i);
      for (std::int64_t side = 0; side < 2; ++side) {
        const auto h = [&](std::int64_t j) {
          return r.pairs.same(i, j) == (side == 0) ? r.hinge(i, j, power) : T(0);
        };
        const T sum = group.sum(n, h);
        const T active = T(group.count(n, [&](std::int64_t j) { return h(j) != T(0); }));
        group.once([&] {
          r.sums[side * n + i] = sum;
          r.counts[side * n + i] = active;
        });
      }
    }
  };

  template <class T>
  struct Report {
    Ratios<T> r;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      const T np = r.count(group, 0), nn = r.count(group, 1);
      const std::int64_t n = r.pairs.batch;
      const T pull = group.sum(n, [&](std::int64_t i) { return r.sums[i]; });
      const T push = group.sum(n, [&](std::int64_t i) { return r.sums[n + i]; });
      group.once([&] {
        r.report[0] = (np > T(0) ? pull / np : T(0)) + (nn > T(0) ? push / nn : T(0));
        r.report[1] = np + nn;
      });
    }
  };

  /// Coefficients of the squared distances, and the gradient through var(x_i).
  template <class T>
  struct Row {
    Ratios<T> r;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = r.pairs;
      const T power = r.power(group, i), np = r.count(group, 0), nn = r.count(group, 1);
      const T* m = p.row(i);
      T* c = p.coefficient_row(i);
      const T floor = T(detail::squared_distance_floor);
      group.for_each(p.batch, [&](std::int64_t j) {
        const bool in = r.hinge(i, j, power) != T(0) && m[j] > floor;
        c[j] = !in ? T(0) : (p.same(i, j) ? r.weight / np : -r.weight / nn) / power;
      });
      const T through =
          group.sum(p.batch, [&](std::int64_t j) { return c[j] == T(0) ? T(0) : c[j] * m[j]; });
      if (through == T(0)) return;
      group.for_each(r.dim, [&](std::int64_t d) {
        r.dx[i * r.dim + d] -= T(2) * through / power * r.x[i * r.dim + d];
      });
    }
  };

 private:
  template <class Context, class T>
  void ratios(const Run<Context, T>& run, View<const T> x, View<const std::int64_t> labels,
              View<T> dx, View<T> report) const {
    const std::int64_t batch = x.dim(0);
    if (batch == 0) throw ShapeError(text(name(), " was given an empty batch"));
    auto matrix = run.make({batch, batch}, "SNR.matrix");
    auto coefficients = run.make({batch, batch}, "SNR.coefficients");
    auto sums = run.make({2, batch}, "SNR.sums");
    auto counts = run.make({2, batch}, "SNR.counts");
    kernels::squared_distances(run.ctx, x, View<T>(matrix), T(detail::squared_distance_floor));
    const Pairs<T> pairs{batch, labels.data, matrix.data, coefficients.data, nullptr, nullptr};
    const Ratios<T> r{pairs,
                      x.dim(1),
                      x.data,
                      dx.data,
                      T(config_.pos_margin),
                      T(config_.neg_margin),
                      T(config_.weight),
                      sums.data,
                      counts.data,
                      report.data};
    kernels::pair_rows(run.ctx, batch, batch, Hinges<T>{r});
    kernels::pair_rows(run.ctx, 1, batch, Report<T>{r});
    kernels::pair_rows(run.ctx, batch, batch, Row<T>{r});
    kernels::pairwise_backward(run.ctx, coefficients, x, dx);
  }

  Config config_;
};

}  // namespace kindred::loss
