#pragma once
// Greedy hash.

#include <cmath>

#include <kindred/kernels/gemm.hpp>
#include <kindred/kernels/softmax_cross_entropy.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = CE(b W, labels) + alpha mean_ik | |x_ik| - 1 |^3 with the codes b = sign(x), sign(0) = 0, of
/// the features x [B,D] and an own classifier W [embedding_size, num_classes] ("weight", uniform in
/// +-1 / sqrt(embedding_size)). Straight through: the gradient of b is taken for that of x, so it
/// is not the derivative of L, which is 0 almost everywhere in its first term. Active are all rows.
/// Source: Su et al., "Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN",
/// NeurIPS 2018, for labels of one class. Throws ConfigError for extents that are not positive,
/// ShapeError for features of another width, DataError for a label outside [0, num_classes).
class GreedyHashLoss : public FeatureLoss<GreedyHashLoss> {
 public:
  struct Config {
    double weight = 1;
    std::int64_t num_classes = 0;
    std::int64_t embedding_size = 0;
    double alpha = 0.1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "GreedyHashLoss"; }

  GreedyHashLoss(const Config& config, const Scope& scope) : config_(config) {
    if (config.num_classes <= 0 || config.embedding_size <= 0)
      throw ConfigError(text(name(), ": num_classes ", config.num_classes, " and embedding_size ",
                             config.embedding_size, " must be positive"));
    const double limit = 1 / std::sqrt(static_cast<double>(config.embedding_size));
    weight_ = scope.declare("weight", {config.embedding_size, config.num_classes},
                            ParameterKind::weight, Initializer::uniform(-limit, limit));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const View<T> dx = gradient.at(config_.feature_from);
    const std::int64_t batch = x.dim(0), dim = config_.embedding_size;
    if (batch == 0) throw ShapeError("GreedyHashLoss was given an empty batch");
    check_shape("GreedyHashLoss: features", x.shape, {batch, dim});
    const View<const T> w = run.parameter(weight_);
    auto codes = run.make(x.shape, "GreedyHashLoss.codes");
    auto losses = run.make({batch}, "GreedyHashLoss.losses");
    auto active = run.make({batch}, "GreedyHashLoss.active");
    auto factor = run.make({1}, "GreedyHashLoss.factor");
    auto entropy = run.make({1}, "GreedyHashLoss.entropy");
    auto logits = run.make({batch, config_.num_classes}, "GreedyHashLoss.logits");
    auto dlogits = run.make(logits.shape, "GreedyHashLoss.dlogits");
    const double share = config_.alpha / static_cast<double>(dim);
    kernels::pair_rows(
        run.ctx, batch, dim,
        Row<T>{dim, x.data, T(share), T(config_.weight * share / static_cast<double>(batch)),
               codes.data, losses.data, active.data, dx.data});
    kernels::pair_rows(run.ctx, 1, batch,
                       detail::MeanOfRows<T>{batch, Divisor::rows, losses.data, active.data, T(1),
                                             report.data, factor.data});
    kernels::gemm(run.ctx, Transpose::no, Transpose::no, codes, w, View<T>(logits));
    kernels::fill(run.ctx, T(0), dlogits);
    kernels::softmax_cross_entropy(run.ctx, logits, in.labels.data, T(0), T(config_.weight),
                                   entropy, dlogits);
    kernels::gemm(run.ctx, Transpose::yes, Transpose::no, codes, dlogits, run.gradient(weight_),
                  true);
    kernels::gemm(run.ctx, Transpose::no, Transpose::yes, dlogits, w, dx, true);
    kernels::scale_add(run.ctx, T(1), entropy, View<T>{report.data, {1}});
  }

  /// The codes of row i, and its loss for not being one.
  template <class T>
  struct Row {
    std::int64_t dim;
    const T* x;
    T share, scale;
    T *codes, *losses, *active, *dx;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const auto rest = [&](std::int64_t d) {
        const T v = x[i * dim + d];
        return (v < T(0) ? -v : v) - T(1);
      };
      const T loss = group.sum(dim, [&](std::int64_t d) {
        const T r = rest(d);
        return r * r * (r < T(0) ? -r : r);
      });
      group.for_each(dim, [&](std::int64_t d) {
        const T v = x[i * dim + d], r = rest(d);
        const T sign = v > T(0) ? T(1) : v < T(0) ? T(-1) : v;  // a NaN stays one
        codes[i * dim + d] = sign;
        dx[i * dim + d] += scale * T(3) * r * (r < T(0) ? -r : r) * sign;
      });
      group.once([&] {
        losses[i] = share * loss;
        active[i] = T(1);
      });
    }
  };

 private:
  Config config_;
  ParameterRef weight_;
};

}  // namespace kindred::loss
