#pragma once
// Fully connected layer.

#include <string>

#include <kindred/core/run.hpp>
#include <kindred/kernels/gemm.hpp>

namespace kindred::layers {

/// y = x W + b. x [B,I], W [I,O], b [O], y [B,O]. Source: paddle.nn.Linear.
class Linear {
 public:
  struct Config {
    std::int64_t in_features = 0;
    std::int64_t out_features = 0;
    bool bias = true;
    Initializer weight_init;
    Initializer bias_init = Initializer::constant(0);
    bool convolution = false;  ///< stored in files as a 1x1 convolution, [O, I, 1, 1]
  };

  Linear(const Config& config, const Scope& scope) : config_(config) {
    const std::int64_t in = config.in_features, out = config.out_features;
    weight_ = config.convolution
                  ? scope.declare("weight", {1, 1, in, out}, ParameterKind::weight,
                                  config.weight_init, FileLayout::convolution)
                  : scope.declare("weight", {in, out}, ParameterKind::weight, config.weight_init);
    weight_.shape = {in, out};
    if (config.bias) bias_ = scope.declare("bias", {out}, ParameterKind::bias, config.bias_init);
  }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x) const {
    auto y = run.make({x.dim(0), config_.out_features}, "linear.y");
    View<const T> bias;
    if (config_.bias) bias = run.parameter(bias_);
    kernels::linear_forward(run.ctx, x, run.parameter(weight_), bias, y);
    return y;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, In<T> dy, In<T> x) const {
    View<T> dbias;
    if (config_.bias) dbias = run.gradient(bias_);
    kernels::linear_backward_parameters(run.ctx, x, dy, run.gradient(weight_), dbias);
    auto dx = run.make(x.shape, "linear.dx");
    kernels::linear_backward_input(run.ctx, dy, run.parameter(weight_), dx);
    return dx;
  }

  const Config& config() const { return config_; }

 private:
  Config config_;
  ParameterRef weight_, bias_;
};

}  // namespace kindred::layers
