#pragma once
// Center loss.

#include <kindred/kernels/check_labels.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_i clip(|x_i - c_{y_i}|^2, 1e-12, 1e12), without a factor 1/2: features x [B,D], own
/// centres c [num_classes, feat_dim] ("centers"), drawn from Normal(0, 1). Where it is clipped the
/// gradient is 0; active are the other rows.
/// Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition",
/// 2016; PaddleClas ppcls/loss/centerloss.py, which computes |x|^2 + |c|^2 - 2 x.c for all classes
/// and adds the clipped 1e-12 of each of the others; here the differences of the own class alone.
/// Throws ConfigError for extents that are not positive, ShapeError for features of another width,
/// DataError for a label outside [0, num_classes).
class CenterLoss : public FeatureLoss<CenterLoss> {
 public:
  struct Config {
    double weight = 1;
    std::int64_t num_classes = 0;
    std::int64_t feat_dim = 0;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "CenterLoss"; }

  CenterLoss(const Config& config, const Scope& scope) : config_(config) {
    if (config.num_classes <= 0 || config.feat_dim <= 0)
      throw ConfigError(text("CenterLoss: num_classes ", config.num_classes, " and feat_dim ",
                             config.feat_dim, " must be positive"));
    centers_ = scope.declare("centers", {config.num_classes, config.feat_dim},
                             ParameterKind::center, Initializer::normal(0, 1));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0);
    check_shape("CenterLoss: features", x.shape, {batch, config_.feat_dim});
    kernels::check_labels(run.ctx, name(), in.labels, config_.num_classes);
    auto losses = run.make({batch}, "CenterLoss.losses");
    auto active = run.make({batch}, "CenterLoss.active");
    auto factor = run.make({1}, "CenterLoss.factor");
    const Rows<T> rows{batch,
                       config_.feat_dim,
                       config_.num_classes,
                       in.labels.data,
                       x.data,
                       run.parameter(centers_).data,
                       T(2 * config_.weight / static_cast<double>(batch)),
                       losses.data,
                       active.data,
                       gradient.at(config_.feature_from).data,
                       run.gradient(centers_).data};
    kernels::pair_rows(run.ctx, batch, config_.feat_dim, Pull<T>{rows});
    kernels::pair_rows(run.ctx, batch, config_.feat_dim, Gather<T>{rows});
    kernels::pair_rows(run.ctx, 1, batch,
                       detail::MeanOfRows<T>{batch, Divisor::rows, losses.data, active.data, T(1),
                                             report.data, factor.data});
  }

  template <class T>
  struct Rows {
    std::int64_t batch, dim, classes;
    const std::int64_t* labels;
    const T *x, *centers;
    T scale;
    T *losses, *active, *dx, *dcenters;

    KINDRED_HD std::int64_t label(std::int64_t i) const { return class_index(labels[i], classes); }
    /// x_i - c of its class, in coordinate d.
    KINDRED_HD T offset(std::int64_t i, std::int64_t d) const {
      return x[i * dim + d] - centers[label(i) * dim + d];
    }
  };

  /// The loss of row i and the gradient of its features.
  template <class T>
  struct Pull {
    Rows<T> r;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T d2 =
          group.sum(r.dim, [&](std::int64_t d) { return r.offset(i, d) * r.offset(i, d); });
      const bool low = d2<T(1e-12), high = d2> T(1e12);
      group.once([&] {
        r.losses[i] = low ? T(1e-12) : high ? T(1e12) : d2;
        r.active[i] = T(!low && !high);
      });
      if (low || high) return;
      group.for_each(r.dim,
                     [&](std::int64_t d) { r.dx[i * r.dim + d] += r.scale * r.offset(i, d); });
    }
  };

  /// The first row of a class adds up the gradient of its centre.
  template <class T>
  struct Gather {
    Rows<T> r;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const auto same = [&](std::int64_t j) { return r.label(j) == r.label(i); };
      if (group.count(i, same) > 0) return;
      T* dc = r.dcenters + r.label(i) * r.dim;
      group.for_each(r.dim, [&](std::int64_t d) {
        for (std::int64_t j = i; j < r.batch; ++j)
          if (same(j) && r.active[j] != T(0)) dc[d] -= r.scale * r.offset(j, d);
      });
    }
  };

 private:
  Config config_;
  ParameterRef centers_;
};

}  // namespace kindred::loss
