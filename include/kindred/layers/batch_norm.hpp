#pragma once
// Batch normalisation of feature vectors, with Paddle's momentum 0.9 and epsilon 1e-5.

#include <kindred/core/run.hpp>
#include <kindred/kernels/batch_norm.hpp>

namespace kindred::layers {

/// Which statistics a batch norm takes in training; evaluation always takes the running ones.
enum class BatchNormMode {
  general,  ///< those of the batch, which also move the running ones
  hold,     ///< those of the batch; the running ones stay
  eval,     ///< the running ones, which stay
};

/// "general", "hold" or "eval": bn_mode of PaddleClas' MetaBN1D.
inline const char* name_of(BatchNormMode mode) {
  constexpr const char* names[] = {"general", "hold", "eval"};
  return names[static_cast<int>(mode)];
}

/// y = weight (x - mean) / sqrt(variance + 1e-5) + bias, x and y [B,C].
class BatchNorm {
 public:
  struct Config {
    std::int64_t features = 0;
    BatchNormMode mode = BatchNormMode::general;
    double bias_lr_mult = 1;  ///< 0: the bias stays and has no gradient
  };
  template <class T>
  struct Saved {
    Tensor<T> mean, inv_std;
  };

  BatchNorm(const Config& config, const Scope& scope) : config_(config) {
    const Shape size{config.features};
    gamma_ = scope.declare("weight", size, ParameterKind::norm, Initializer::constant(1));
    beta_ = scope.with_lr(config.bias_lr_mult)
                .declare("bias", size, ParameterKind::norm, Initializer::constant(0));
    mean_ = scope.declare("_mean", size, ParameterKind::buffer, Initializer::constant(0));
    variance_ = scope.declare("_variance", size, ParameterKind::buffer, Initializer::constant(1));
  }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>& saved) const {
    auto y = run.make(x.shape, "BatchNorm.y");
    const auto gamma = run.parameter(gamma_), beta = run.parameter(beta_);
    if (!batch_statistics(run)) {
      kernels::batch_norm_inference(run.ctx, x, gamma, beta, run.buffer(mean_),
                                    run.buffer(variance_), epsilon<T>, Activation::identity, y);
      return y;
    }
    saved.mean = run.make(gamma.shape, "BatchNorm.mean");
    saved.inv_std = run.make(gamma.shape, "BatchNorm.inv_std");
    View<T> running_mean, running_variance;
    if (config_.mode == BatchNormMode::general) {
      running_mean = run.new_buffer(mean_);
      running_variance = run.new_buffer(variance_);
    }
    kernels::batch_norm_forward(run.ctx, x, gamma, beta, epsilon<T>, T(0.9), Activation::identity,
                                saved.mean, saved.inv_std, running_mean, running_variance, y);
    return y;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>& saved) const {
    View<T> dbeta;
    if (config_.bias_lr_mult != 0) dbeta = run.gradient(beta_);
    const bool of_batch = batch_statistics(run);
    if (!of_batch) {
      saved.inv_std = run.make({config_.features}, "BatchNorm.inv_std");
      kernels::batch_norm_inverse_std(run.ctx, run.buffer(variance_), epsilon<T>, saved.inv_std);
    }
    kernels::batch_norm_backward(run.ctx, dy, x, run.parameter(gamma_), run.parameter(beta_),
                                 of_batch ? View<const T>(saved.mean) : run.buffer(mean_),
                                 saved.inv_std, Activation::identity, dy, run.gradient(gamma_),
                                 dbeta, of_batch);
    saved = {};
    return dy;
  }

  const Config& config() const { return config_; }

 private:
  template <class T>
  static constexpr T epsilon = T(1e-5);

  template <class R>
  bool batch_statistics(const R& run) const {
    return run.training && config_.mode != BatchNormMode::eval;
  }

  Config config_;
  ParameterRef gamma_, beta_, mean_, variance_;
};

}  // namespace kindred::layers
