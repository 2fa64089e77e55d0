#pragma once
// MagFace's regulariser of the norms, for use beside the MagMargin head.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_i (a_i / u_a^2 + 1 / a_i), a_i = |x_i| clipped to [l_a, u_a]: features x [B,D] of easy
/// images grow towards u_a. Where it is clipped the gradient is 0; active are the other rows. The
/// weight is the paper's lambda_g. Labels are not read. Give it the l_a and u_a of the head.
/// Throws ConfigError unless 0 < l_a < u_a, ShapeError for an empty batch.
/// Source: Meng et al., "MagFace" (CVPR 2021) and its code, models/magface.py.
class MagRegularizer : public FeatureLoss<MagRegularizer> {
 public:
  struct Config {
    double weight = 35;
    double l_a = 10, u_a = 110;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "MagRegularizer"; }

  MagRegularizer(const Config& config, const Scope&) : config_(config) {
    if (!(config.l_a > 0 && config.u_a > config.l_a))
      throw ConfigError(
          text(name(), ": u_a must be above l_a > 0, got ", config.u_a, " and ", config.l_a));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0);
    if (x.size() == 0) throw ShapeError(text(name(), " was given an empty batch"));
    auto losses = run.make({batch}, "MagRegularizer.losses");
    auto active = run.make({batch}, "MagRegularizer.active");
    auto factor = run.make({1}, "MagRegularizer.factor");
    kernels::pair_rows(run.ctx, batch, x.dim(1),
                       Row<T>{x.dim(1), T(config_.l_a), T(config_.u_a),
                              T(config_.weight / static_cast<double>(batch)), x.data,
                              gradient.at(config_.feature_from).data, losses.data, active.data});
    kernels::pair_rows(run.ctx, 1, batch,
                       detail::MeanOfRows<T>{batch, Divisor::rows, losses.data, active.data, T(1),
                                             report.data, factor.data});
  }

  template <class T>
  struct Row {
    std::int64_t dim;
    T l_a, u_a, scale;
    const T* x;
    T *dx, *losses, *active;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T* row = x + i * dim;
      const T norm = std::sqrt(group.sum(dim, [&](std::int64_t d) { return row[d] * row[d]; }));
      const T a = norm < l_a ? l_a : norm > u_a ? u_a : norm;  // NaN passes
      const bool clipped = norm < l_a || norm > u_a;
      group.once([&] {
        losses[i] = a / (u_a * u_a) + T(1) / a;
        active[i] = T(!clipped);
      });
      if (clipped) return;
      const T along = scale * (T(1) / (u_a * u_a) - T(1) / (a * a)) / a;
      group.for_each(dim, [&](std::int64_t d) { dx[i * dim + d] += along * row[d]; });
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
