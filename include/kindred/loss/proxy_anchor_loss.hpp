#pragma once
// Proxy anchor.

#include <kindred/loss/proxy_loss.hpp>

namespace kindred::loss {

/// L = 1/|C+| sum_c log(1 + sum_{y_i = c} e^(-alpha (s_ic - margin))) + 1/C sum_c log(1 + sum_{y_i
/// != c} e^(alpha (s_ic + margin))), s_ic the cosine of a feature [B,D] and of an own proxy
/// [num_classes, embedding_size]; C+ the classes in the batch, which are the active ones. Source:
/// Kim et al., "Proxy Anchor Loss for Deep Metric Learning", CVPR 2020; pytorch-metric-learning
/// ProxyAnchorLoss, proxies from Normal(0, sqrt(2 / num_classes)). Throws ConfigError for extents
/// that are not positive, ShapeError for features of another width, DataError for a label outside
/// [0, num_classes).
class ProxyAnchorLoss : public FeatureLoss<ProxyAnchorLoss> {
 public:
  struct Config {
    double weight = 1;
    std::int64_t num_classes = 0;
    std::int64_t embedding_size = 0;
    double margin = 0.1;
    double alpha = 32;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "ProxyAnchorLoss"; }

  ProxyAnchorLoss(const Config& config, const Scope& scope) : config_(config) {
    detail::check_proxies(name(), config.num_classes, config.embedding_size);
    const double deviation = std::sqrt(2.0 / static_cast<double>(config.num_classes));
    proxies_ = scope.declare("proxies", {config.num_classes, config.embedding_size},
                             ParameterKind::center, Initializer::normal(0, deviation));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0), classes = config_.num_classes;
    kernels::check_labels(run.ctx, name(), in.labels, classes);
    auto pull = run.make({classes}, "ProxyAnchorLoss.pull");
    auto push = run.make({classes}, "ProxyAnchorLoss.push");
    auto present = run.make({classes}, "ProxyAnchorLoss.present");
    auto share = run.make({1}, "ProxyAnchorLoss.share");
    Columns<T> columns{batch,     classes,           in.labels.data,   nullptr,
                       nullptr,   T(config_.margin), T(config_.alpha), T(config_.weight),
                       pull.data, push.data,         present.data,     share.data};
    detail::on_proxies(run, proxies_, x, gradient.at(config_.feature_from),
                       [&](View<const T> cosines, View<T> coefficients) {
                         columns.cosines = cosines.data;
                         columns.coefficients = coefficients.data;
                         kernels::pair_rows(run.ctx, classes, batch, Class<T>{columns});
                         kernels::pair_rows(run.ctx, 1, classes, Sum<T>{columns, report.data});
                         kernels::pair_rows(run.ctx, batch, classes, Scale<T>{columns});
                       });
  }

  template <class T>
  struct Columns {
    std::int64_t batch, classes;
    const std::int64_t* labels;
    const T* cosines;
    T* coefficients;
    T margin, alpha, weight;
    T *pull, *push, *present, *share;
  };

  /// Both terms of a class and their derivatives, not yet divided.
  template <class T>
  struct Class {
    Columns<T> p;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t c) const {
      const auto cosine = [&](std::int64_t i) { return p.cosines[i * p.classes + c]; };
      const auto own = [&](std::int64_t i) { return p.labels[i] == c; };
      const auto other = [&](std::int64_t i) { return p.labels[i] != c; };
      const auto near = [&](std::int64_t i) { return p.alpha * (p.margin - cosine(i)); };
      const auto far = [&](std::int64_t i) { return p.alpha * (cosine(i) + p.margin); };
      const T pulled = log_sum_exp(group, p.batch, true, own, near);
      const T pushed = log_sum_exp(group, p.batch, true, other, far);
      const bool present = group.count(p.batch, own) > 0;
      group.for_each(p.batch, [&](std::int64_t i) {
        p.coefficients[i * p.classes + c] =
            own(i) ? -p.alpha * std::exp(near(i) - pulled) : p.alpha * std::exp(far(i) - pushed);
      });
      group.once([&] {
        p.pull[c] = pulled;
        p.push[c] = pushed;
        p.present[c] = T(present);
      });
    }
  };

  template <class T>
  struct Sum {
    Columns<T> p;
    T* report;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      const double pull = group.sum(p.classes, [&](std::int64_t c) { return double(p.pull[c]); });
      const double push = group.sum(p.classes, [&](std::int64_t c) { return double(p.push[c]); });
      const double present =
          group.sum(p.classes, [&](std::int64_t c) { return double(p.present[c]); });
      group.once([&] {
        report[0] = T(pull / present + push / double(p.classes));
        report[1] = T(present);
        *p.share = T(double(p.weight) / present);
      });
    }
  };

  template <class T>
  struct Scale {
    Columns<T> p;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      group.for_each(p.classes, [&](std::int64_t c) {
        p.coefficients[i * p.classes + c] *= p.labels[i] == c ? *p.share : p.weight / T(p.classes);
      });
    }
  };

 private:
  Config config_;
  ParameterRef proxies_;
};

}  // namespace kindred::loss
