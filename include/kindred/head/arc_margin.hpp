#pragma once
// ArcMargin head: softmax over cosines with an additive angular margin on the target class.

#include <kindred/core/run.hpp>
#include <kindred/kernels/margin_softmax.hpp>

namespace kindred::head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * (cos, with the target's replaced by psi(cos)), where
/// psi = cos(theta + margin) as cos cos(m) - sin sin(m), sin = sqrt(1 - cos^2 + 1e-6), and
/// cos - m sin(m) once theta + m > pi (easy_margin: psi only where cos > 0, cos elsewhere).
/// x [B, embedding_size], centres [class_num, embedding_size] (files hold Paddle's transpose).
/// At evaluation the unscaled cosines, as in PaddleClas. Trained with CELoss no logits are built.
/// Source: Deng et al., "ArcFace" (CVPR 2019); PaddleClas ppcls/arch/gears/arcmargin.py.
class ArcMargin {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double margin = 0.5;  ///< radians
    double scale = 80;
    bool easy_margin = false;
  };
  template <class T>
  struct Saved {};

  static constexpr const char* name() { return "ArcMargin"; }

  ArcMargin(const Config& config, const Scope& scope) : config_(config) {
    if (config.embedding_size < 1 || config.class_num < 1)
      throw ConfigError(text("head.ArcMargin: embedding_size and class_num must be >= 1, got ",
                             config.embedding_size, " and ", config.class_num));
    if (!(config.scale > 0) || !(config.margin >= 0 && config.margin < 3.14159))
      throw ConfigError(text("head.ArcMargin: scale must be > 0 and margin in [0, pi), got ",
                             config.scale, " and ", config.margin));
    centers_ =
        scope.declare("weight", {config.class_num, config.embedding_size}, ParameterKind::center,
                      Initializer::xavier_normal(config.embedding_size, config.class_num),
                      FileLayout::transposed);
  }

  std::int64_t input_size() const { return config_.embedding_size; }
  std::int64_t class_num() const { return config_.class_num; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, View<const std::int64_t> labels,
                    Saved<T>&) const {
    auto logits = run.make({x.dim(0), config_.class_num}, "ArcMargin.logits");
    if (run.training && labels.data != nullptr)
      kernels::margin_logits_forward(run.ctx, policy<T>(), x, run.parameter(centers_), labels.data,
                                     logits);
    else
      kernels::margin_logits(run.ctx, x, run.parameter(centers_), logits);
    return logits;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dlogits, In<T> x,
                     View<const std::int64_t> labels, Saved<T>&) const {
    auto dx = run.make(x.shape, "ArcMargin.dx");
    kernels::margin_logits_backward(run.ctx, policy<T>(), dlogits, x, run.parameter(centers_),
                                    labels.data, dx, run.gradient(centers_));
    return dx;
  }

  /// Softmax cross-entropy of the logits without building them: value = mean loss,
  /// dx += weight * gradient, gradient of the centres accumulated.
  template <class Context, class T>
  void margin_cross_entropy(const Run<Context, T>& run, In<T> x, View<const std::int64_t> labels,
                            T epsilon, T weight, View<T> value, View<T> dx) const {
    kernels::margin_softmax(run.ctx, policy<T>(), x, run.parameter(centers_), labels.data, epsilon,
                            weight, value, dx, run.gradient(centers_));
  }

 private:
  template <class T>
  auto policy() const {
    return ArcMarginPolicy<T>(config_.margin, config_.scale, config_.easy_margin);
  }

  Config config_;
  ParameterRef centers_;
};

}  // namespace kindred::head
