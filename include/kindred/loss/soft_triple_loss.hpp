#pragma once
// SoftTriple.

#include <kindred/loss/proxy_loss.hpp>

namespace kindred::loss {

/// S_ic = sum_k q_k cos(x_i, w_ck), q = softmax_k(cos(x_i, w_ck) / gamma);
/// L = mean_i -log softmax_c(la (S_ic - margin [c = y_i]))_{y_i}; features x [B,D], own centres w,
/// centers_per_class for each class, [num_classes centers_per_class, embedding_size] with those of
/// a class next to each other ("fc", in files transposed). Active are all rows. Source: Qian et
/// al., "SoftTriple Loss: Deep Metric Learning Without Triplet Sampling", ICCV 2019, without its
/// regulariser; pytorch-metric-learning SoftTripleLoss, centres from Uniform(+-1 / sqrt(num_classes
/// centers_per_class)). Throws ConfigError for extents or a gamma that are not positive, ShapeError
/// for features of another width, DataError for a label out of range.
class SoftTripleLoss : public FeatureLoss<SoftTripleLoss> {
 public:
  struct Config {
    double weight = 1;
    std::int64_t num_classes = 0;
    std::int64_t embedding_size = 0;
    std::int64_t centers_per_class = 10;
    double la = 20;
    double gamma = 0.1;
    double margin = 0.01;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "SoftTripleLoss"; }

  SoftTripleLoss(const Config& config, const Scope& scope) : config_(config) {
    detail::check_proxies(name(), config.num_classes, config.embedding_size,
                          config.centers_per_class);
    if (!(config.gamma > 0))
      throw ConfigError(text(name(), ": gamma must be positive, got ", config.gamma));
    const std::int64_t count = config.num_classes * config.centers_per_class;
    const double limit = 1 / std::sqrt(static_cast<double>(count));
    centers_ = scope.declare("fc", {count, config.embedding_size}, ParameterKind::center,
                             Initializer::uniform(-limit, limit), FileLayout::transposed);
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0), classes = config_.num_classes;
    kernels::check_labels(run.ctx, name(), in.labels, classes);
    auto relaxed = run.make({batch, classes}, "SoftTripleLoss.relaxed");
    auto losses = run.make({batch}, "SoftTripleLoss.losses");
    auto active = run.make({batch}, "SoftTripleLoss.active");
    auto factor = run.make({1}, "SoftTripleLoss.factor");
    detail::on_proxies(
        run, centers_, x, gradient.at(config_.feature_from),
        [&](View<const T> cosines, View<T> coefficients) {
          kernels::pair_rows(
              run.ctx, batch, cosines.dim(1),
              Row<T>{classes, config_.centers_per_class, in.labels.data, cosines.data,
                     coefficients.data, relaxed.data, T(config_.la), T(1 / config_.gamma),
                     T(config_.margin), T(config_.weight / static_cast<double>(batch)), losses.data,
                     active.data});
        });
    kernels::pair_rows(run.ctx, 1, batch,
                       detail::MeanOfRows<T>{batch, Divisor::rows, losses.data, active.data, T(1),
                                             report.data, factor.data});
  }

  template <class T>
  struct Row {
    std::int64_t classes, centers;
    const std::int64_t* labels;
    const T* cosines;
    T *coefficients, *relaxed;
    T la, sharpness, margin, share;
    T *losses, *active;

    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T* m = cosines + i * classes * centers;
      T* c = coefficients + i * classes * centers;  // holds the q of every class first
      T* s = relaxed + i * classes;
      const std::int64_t label = class_index(labels[i], classes);
      group.for_each(classes,
                     [&](std::int64_t j) { s[j] = relax(m + j * centers, c + j * centers); });
      const auto logit = [&](std::int64_t j) { return la * (s[j] - (j == label ? margin : T(0))); };
      const T lse = log_sum_exp(
          group, classes, false, [](std::int64_t) { return true; }, logit);
      group.for_each(classes, [&](std::int64_t j) {
        const T ds = share * la * (std::exp(logit(j) - lse) - T(j == label));
        for (std::int64_t k = j * centers; k < (j + 1) * centers; ++k)
          c[k] *= ds * (T(1) + sharpness * (m[k] - s[j]));
      });
      group.once([&] {
        losses[i] = lse - logit(label);
        active[i] = T(1);
      });
    }

    /// Writes the weights q of one class and returns the mean that they give.
    KINDRED_HD T relax(const T* m, T* q) const {
      T most = m[0], sum = T(0), mean = T(0);
      for (std::int64_t k = 1; k < centers; ++k) most = m[k] > most ? m[k] : most;
      for (std::int64_t k = 0; k < centers; ++k) sum += q[k] = std::exp(sharpness * (m[k] - most));
      for (std::int64_t k = 0; k < centers; ++k) mean += (q[k] /= sum) * m[k];
      return mean;
    }
  };

 private:
  Config config_;
  ParameterRef centers_;
};

}  // namespace kindred::loss
