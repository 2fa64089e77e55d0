#pragma once
// BNNeck: batch norm between the feature of the metric loss and the feature of the classifier.

#include <kindred/core/run.hpp>
#include <kindred/kernels/batch_norm.hpp>

namespace kindred::neck {

/// y = BN(x) over the batch. x, y [B, num_features]; momentum 0.9, epsilon 1e-5.
/// Source: Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification";
/// PaddleClas ppcls/arch/gears/bnneck.py. There the bias is meant to be frozen but is trained
/// unless the configuration gives it a tiny rate; `bias_lr_mult = 0` freezes it truly.
class BNNeck {
 public:
  struct Config {
    std::int64_t num_features = 0;
    double bias_lr_mult = 1;  ///< PaddleClas' configurations emulate 0 by 1e-20
  };
  template <class T>
  struct Saved {
    Tensor<T> mean, inv_std;
  };

  static constexpr const char* name() { return "BNNeck"; }
  static constexpr int input_rank = 2;

  BNNeck(const Config& config, const Scope& scope) : size_(config.num_features) {
    if (size_ < 1) throw ConfigError(text("neck.BNNeck: num_features must be >= 1, got ", size_));
    const Scope norm = scope / "feat_bn";
    gamma_ = norm.declare("weight", {size_}, ParameterKind::norm, Initializer::constant(1));
    beta_ = norm.with_lr(config.bias_lr_mult)
                .declare("bias", {size_}, ParameterKind::norm, Initializer::constant(0));
    mean_ = norm.declare("_mean", {size_}, ParameterKind::buffer, Initializer::constant(0));
    variance_ = norm.declare("_variance", {size_}, ParameterKind::buffer, Initializer::constant(1));
  }

  std::int64_t input_size() const { return size_; }
  std::int64_t output_size() const { return size_; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>& saved) const {
    auto y = run.make(x.shape, "BNNeck.y");
    const auto gamma = run.parameter(gamma_), beta = run.parameter(beta_);
    if (!run.training) {
      kernels::batch_norm_inference(run.ctx, x, gamma, beta, run.buffer(mean_),
                                    run.buffer(variance_), epsilon<T>, Activation::identity, y);
      return y;
    }
    saved.mean = run.make({size_}, "BNNeck.mean");
    saved.inv_std = run.make({size_}, "BNNeck.inv_std");
    kernels::batch_norm_forward(run.ctx, x, gamma, beta, epsilon<T>, T(0.9), Activation::identity,
                                saved.mean, saved.inv_std, run.new_buffer(mean_),
                                run.new_buffer(variance_), y);
    return y;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>& saved) const {
    kernels::batch_norm_backward(run.ctx, dy, x, run.parameter(gamma_), run.parameter(beta_),
                                 saved.mean, saved.inv_std, Activation::identity, dy,
                                 run.gradient(gamma_), run.gradient(beta_));
    saved = {};
    return dy;
  }

 private:
  template <class T>
  static constexpr T epsilon = T(1e-5);

  std::int64_t size_;
  ParameterRef gamma_, beta_, mean_, variance_;
};

}  // namespace kindred::neck
