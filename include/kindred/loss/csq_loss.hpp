#pragma once
// Central similarity quantization.

#include <kindred/kernels/check_labels.hpp>
#include <kindred/loss/hash_centers.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_ik BCE((tanh x_ik + 1) / 2, (c_k + 1) / 2) + lambda mean_ik (|tanh x_ik| - 1)^2 for
/// features x [B,D] and the hash centre c (entries +1 and -1) of the row's class; the first term is
/// mean log(1 + e^(-2 c x)). The centres [num_classes, embedding_size] are the buffer "centers",
/// see hash_centers. Active are all rows.
/// Source: Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval",
/// CVPR 2020, for one label per image; there the logarithms stop at -100, here the loss is exact.
/// Throws ConfigError for extents that are not positive, ShapeError for features of another width,
/// DataError for a label outside [0, num_classes).
class CSQLoss : public FeatureLoss<CSQLoss> {
 public:
  struct Config {
    double weight = 1;
    std::int64_t num_classes = 0;
    std::int64_t embedding_size = 0;
    double lambda = 1e-4;
    std::int64_t seed = 0;  ///< of the centres that are drawn
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "CSQLoss"; }

  CSQLoss(const Config& config, const Scope& scope) : config_(config) {
    if (config.num_classes <= 0 || config.embedding_size <= 0)
      throw ConfigError(text(name(), ": num_classes ", config.num_classes, " and embedding_size ",
                             config.embedding_size, " must be positive"));
    centers_ =
        scope.declare("centers", {config.num_classes, config.embedding_size}, ParameterKind::buffer,
                      Initializer::values(hash_centers(config.num_classes, config.embedding_size,
                                                       static_cast<std::uint64_t>(config.seed))));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0), dim = config_.embedding_size;
    if (batch == 0) throw ShapeError("CSQLoss was given an empty batch");
    check_shape("CSQLoss: features", x.shape, {batch, dim});
    kernels::check_labels(run.ctx, name(), in.labels, config_.num_classes);
    auto losses = run.make({batch}, "CSQLoss.losses");
    auto active = run.make({batch}, "CSQLoss.active");
    auto factor = run.make({1}, "CSQLoss.factor");
    const double share = 1 / static_cast<double>(dim);
    kernels::pair_rows(
        run.ctx, batch, dim,
        Row<T>{dim, config_.num_classes, in.labels.data, x.data, run.buffer(centers_).data,
               T(config_.lambda), T(share), T(config_.weight * share / static_cast<double>(batch)),
               losses.data, active.data, gradient.at(config_.feature_from).data});
    kernels::pair_rows(run.ctx, 1, batch,
                       detail::MeanOfRows<T>{batch, Divisor::rows, losses.data, active.data, T(1),
                                             report.data, factor.data});
  }

  template <class T>
  struct Row {
    std::int64_t dim, classes;
    const std::int64_t* labels;
    const T *x, *centers;
    T lambda, share, scale;
    T *losses, *active, *dx;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T* row = x + i * dim;
      const T* center = centers + class_index(labels[i], classes) * dim;
      const T loss = group.sum(dim, [&](std::int64_t d) {
        const T h = std::tanh(row[d]), rest = (h < T(0) ? -h : h) - T(1);
        return softplus(T(-2) * center[d] * row[d]) + lambda * rest * rest;
      });
      group.for_each(dim, [&](std::int64_t d) {
        const T h = std::tanh(row[d]), rest = (h < T(0) ? -h : h) - T(1);
        const T sign = T(h > T(0)) - T(h < T(0));
        dx[i * dim + d] += scale * (T(-2) * center[d] * sigmoid(T(-2) * center[d] * row[d]) +
                                    T(2) * lambda * rest * sign * (T(1) - h * h));
      });
      group.once([&] {
        losses[i] = share * loss;
        active[i] = T(1);
      });
    }
  };

 private:
  Config config_;
  ParameterRef centers_;
};

}  // namespace kindred::loss
