#pragma once
// Batch-hard triplet loss.

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/l2_normalize.hpp>
#include <kindred/kernels/pairwise.hpp>
#include <kindred/kernels/triplet.hpp>
#include <kindred/loss/loss.hpp>

namespace kindred::loss {

/// L = mean_i max(0, max_{y_j = y_i} d_ij - min_{y_j != y_i} d_ij + margin), d the Euclidean
/// distance of the features, divided by (norm + 1e-12) first if `normalize_feature`. The hardest
/// positive may be the row itself. features [B,D]. Source: PaddleClas ppcls/loss/triplet.py
/// (TripletLossV2). It demands the same number of positives in every row; here any batch is
/// accepted, and a row without a negative contributes 0.
class TripletLossV2 {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.5;
    bool normalize_feature = true;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "TripletLossV2"; }
  static constexpr std::int64_t entries() { return 1; }

  explicit TripletLossV2(const Config& config, const Scope&) : config_(config) {}

  LogitUse logit_use() const { return LogitUse::none; }
  bool reads(FeatureFrom from) const { return config_.feature_from == from; }
  void describe(LossReport* report) const { *report = {name(), config_.weight, 0, 0}; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const View<T> dx = gradient.at(config_.feature_from);
    if (!config_.normalize_feature) {
      pairs(run, x, in.labels, dx, report);
      return;
    }
    auto norm = run.make({x.dim(0)}, "TripletLossV2.norm");
    auto unit = run.make(x.shape, "TripletLossV2.unit");
    kernels::l2_normalize_forward(run.ctx, NormRule::add_eps, epsilon<T>, x, norm, unit);
    auto dunit = run.make(x.shape, "TripletLossV2.dunit");
    kernels::fill(run.ctx, T(0), dunit);
    pairs(run, unit, in.labels, dunit, report);
    kernels::l2_normalize_backward(run.ctx, NormRule::add_eps, epsilon<T>, dunit, unit, norm,
                                   dunit);
    kernels::scale_add(run.ctx, T(1), dunit, dx);
  }

 private:
  template <class T>
  static constexpr T epsilon = T(1e-12);

  template <class Context, class T>
  void pairs(const Run<Context, T>& run, In<T> x, View<const std::int64_t> labels, View<T> dx,
             View<T> report) const {
    const Shape square{x.dim(0), x.dim(0)};
    auto d2 = run.make(square, "TripletLossV2.d2");
    auto coefficients = run.make(square, "TripletLossV2.coefficients");
    kernels::squared_distances(run.ctx, x, d2);
    kernels::batch_hard_triplet(run.ctx, d2, labels.data, T(config_.margin), T(config_.weight),
                                View<T>{report.data, {1}}, View<T>{report.data + 1, {1}},
                                coefficients);
    kernels::pairwise_backward(run.ctx, coefficients, x, dx);
  }

  Config config_;
};

}  // namespace kindred::loss
