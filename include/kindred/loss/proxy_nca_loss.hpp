#pragma once
// Proxy-NCA.

#include <kindred/loss/proxy_loss.hpp>

namespace kindred::loss {

/// L = mean_i -log( e^(-s d(i, y_i)) / sum_c e^(-s d(i,c)) ), s = softmax_scale, d(i,c) the squared
/// Euclidean distance of the normalised features [B,D] and of own normalised proxies [num_classes,
/// embedding_size], computed as 2 - 2 cos. Active are all rows.
/// Source: Movshovitz-Attias et al., "No Fuss Distance Metric Learning using Proxies", ICCV 2017,
/// with the own class in the sum; pytorch-metric-learning ProxyNCALoss, proxies from Normal(0, 1).
/// Throws ConfigError for extents that are not positive, ShapeError for features of another width,
/// DataError for a label outside [0, num_classes).
class ProxyNCALoss : public FeatureLoss<ProxyNCALoss> {
 public:
  struct Config {
    double weight = 1;
    std::int64_t num_classes = 0;
    std::int64_t embedding_size = 0;
    double softmax_scale = 1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "ProxyNCALoss"; }

  ProxyNCALoss(const Config& config, const Scope& scope) : config_(config) {
    detail::check_proxies(name(), config.num_classes, config.embedding_size);
    proxies_ = scope.declare("proxies", {config.num_classes, config.embedding_size},
                             ParameterKind::center, Initializer::normal(0, 1));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0), classes = config_.num_classes;
    kernels::check_labels(run.ctx, name(), in.labels, classes);
    auto losses = run.make({batch}, "ProxyNCALoss.losses");
    auto active = run.make({batch}, "ProxyNCALoss.active");
    auto factor = run.make({1}, "ProxyNCALoss.factor");
    detail::on_proxies(run, proxies_, x, gradient.at(config_.feature_from),
                       [&](View<const T> cosines, View<T> coefficients) {
                         kernels::pair_rows(run.ctx, batch, classes,
                                            Row<T>{classes, in.labels.data, cosines.data,
                                                   coefficients.data, T(2 * config_.softmax_scale),
                                                   T(config_.weight / static_cast<double>(batch)),
                                                   losses.data, active.data});
                       });
    kernels::pair_rows(run.ctx, 1, batch,
                       detail::MeanOfRows<T>{batch, Divisor::rows, losses.data, active.data, T(1),
                                             report.data, factor.data});
  }

  template <class T>
  struct Row {
    std::int64_t classes;
    const std::int64_t* labels;
    const T* cosines;
    T* coefficients;
    T scale, share;
    T *losses, *active;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T* m = cosines + i * classes;
      T* c = coefficients + i * classes;
      const std::int64_t label = class_index(labels[i], classes);
      const T lse = log_sum_exp(
          group, classes, false, [](std::int64_t) { return true; },
          [&](std::int64_t j) { return scale * m[j]; });
      group.for_each(classes, [&](std::int64_t j) {
        c[j] = share * scale * (std::exp(scale * m[j] - lse) - T(j == label));
      });
      group.once([&] {
        losses[i] = lse - scale * m[label];
        active[i] = T(1);
      });
    }
  };

 private:
  Config config_;
  ParameterRef proxies_;
};

}  // namespace kindred::loss
