#pragma once
// Convolution, batch norm and activation: the unit of which convolutional networks are built.

#include <kindred/core/run.hpp>
#include <kindred/kernels/activation.hpp>
#include <kindred/kernels/batch_norm.hpp>
#include <kindred/kernels/conv2d.hpp>
#include <kindred/kernels/separable_conv2d.hpp>

namespace kindred::layers {

/// y = act(BN(conv(x))). The convolution has no bias and pads by (kernel - 1) / 2; batch norm has
/// epsilon 1e-5 and momentum 0.9 (running = 0.9 running + 0.1 batch, biased variance, as Paddle's
/// CPU kernel). x [B,H,W,I] -> y [B,H',W',O]. Source: ConvBNLayer of PaddleClas' pp_lcnet.py.
class ConvBNAct {
 public:
  struct Config {
    std::int64_t in_channels = 0;
    std::int64_t out_channels = 0;
    std::int64_t kernel = 1;
    std::int64_t stride = 1;
    std::int64_t groups = 1;
    Activation act = Activation::hardswish;
    bool norm_decay = false;  ///< whether gamma and beta decay (PPLCNet: L2Decay(0.0))
  };

  template <class T>
  struct Saved {
    Map<T> z;  ///< convolution output, before batch norm
    Tensor<T> mean, inv_std;
  };

  ConvBNAct(const Config& config, const Scope& scope)
      : config_(config),
        geometry_{.kernel_h = config.kernel,
                  .kernel_w = config.kernel,
                  .stride = config.stride,
                  .padding = (config.kernel - 1) / 2,
                  .groups = config.groups} {
    const std::int64_t fan = config.in_channels / config.groups;
    weight_ = (scope / "conv")
                  .declare("weight", {config.kernel, config.kernel, fan, config.out_channels},
                           ParameterKind::weight,
                           Initializer::kaiming_normal(fan * config.kernel * config.kernel),
                           FileLayout::convolution);
    const Scope norm = (scope / "bn").with_decay(config.norm_decay ? 1 : 0);
    const Shape channels{config.out_channels};
    gamma_ = norm.declare("weight", channels, ParameterKind::norm, Initializer::constant(1));
    beta_ = norm.declare("bias", channels, ParameterKind::norm, Initializer::constant(0));
    mean_ = norm.declare("_mean", channels, ParameterKind::buffer, Initializer::constant(0));
    variance_ =
        norm.declare("_variance", channels, ParameterKind::buffer, Initializer::constant(1));
  }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, InMap<T> x, Saved<T>& saved) const {
    return forward_map(run, x, saved, Storage::scalar).take();
  }
  /// For layers that take an InMap: y stored as `as`, in most cases run.storage; z always is in
  /// that. Batch norm reads z, and its consumer y, as they are stored, so that the backward sees
  /// the same numbers: its gradients are those at the rounded values.
  template <class Context, class T>
  Map<T> forward_map(const Run<Context, T>& run, InMap<T> x, Saved<T>& saved, Storage as) const {
    Context& ctx = run.ctx;
    const Shape shape = geometry_.output_shape(x.shape, config_.out_channels);
    const auto w = run.parameter(weight_);
    if (!run.training) {
      const Folded<T> norm = fold(run);
      const auto prepared = kernels::conv2d_prepared(run, geometry_, weight_);
      auto y = run.make_map(shape, "conv_bn_act.y", as);
      with_elements<Context>(y, [&](auto out) {
        kernels::conv2d_forward(ctx, geometry_, x, w, norm.scale, norm.shift, config_.act, out,
                                prepared);
      });
      return y;
    }
    const auto gamma = run.parameter(gamma_), beta = run.parameter(beta_);
    saved.z = run.make_map(shape, "conv_bn_act.z");
    saved.mean = run.make({config_.out_channels}, "conv_bn_act.mean");
    saved.inv_std = run.make({config_.out_channels}, "conv_bn_act.inv_std");
    with_elements<Context>(saved.z,
                           [&](auto z) { kernels::conv2d_forward(ctx, geometry_, x, w, z); });
    auto y = run.make_map(shape, "conv_bn_act.y", as);
    with_elements<Context>(y, [&](auto out) {
      kernels::batch_norm_forward(ctx, saved.z, gamma, beta, epsilon<T>, T(0.9), config_.act,
                                  saved.mean, saved.inv_std, run.new_buffer(mean_),
                                  run.new_buffer(variance_), out);
    });
    return y;
  }

  /// Inference of a depthwise layer and the pointwise one behind it: in one pass where the context
  /// prepares weights. x [B,H,W,C] -> [B,H',W',O], stored as `as`.
  template <class Context, class T>
  static Map<T> infer_separable(const Run<Context, T>& run, const ConvBNAct& depthwise,
                                const ConvBNAct& pointwise, InMap<T> x, Storage as) {
    if constexpr (requires { Context::prepares_weights; })
      if (const auto packed =
              kernels::conv2d_prepared(run, pointwise.geometry_, pointwise.weight_)) {
        const Folded<T> first = depthwise.fold(run), second = pointwise.fold(run);
        const Shape filtered = depthwise.geometry_.output_shape(x.shape, x.shape[3]);
        auto y =
            run.make_map(pointwise.geometry_.output_shape(filtered, pointwise.config_.out_channels),
                         "conv_bn_act.y", as);
        with_elements<Context>(y, [&](auto out) {
          kernels::separable_conv2d_forward(
              run.ctx, depthwise.geometry_, x, run.parameter(depthwise.weight_),
              {first.scale, first.shift, depthwise.config_.act}, packed,
              {second.scale, second.shift, pointwise.config_.act}, out);
        });
        return y;
      }
    Saved<T> nothing;  // inference saves nothing
    const auto filtered = depthwise.forward_map(run, x, nothing, run.storage);
    return pointwise.forward_map(run, filtered, nothing, as);
  }

  /// Consumes dy. Without `input_gradient` the result is empty.
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, InMap<T> x, Saved<T>& saved,
                     bool input_gradient = true) const {
    Context& ctx = run.ctx;
    Map<T> dz = normalise_backward(run, std::move(dy), saved);
    saved = {};
    kernels::conv2d_backward_weight(ctx, geometry_, x, dz, run.gradient(weight_));
    Tensor<T> dx;
    if (input_gradient) {
      dx = run.make(x.shape, "conv_bn_act.dx");
      kernels::conv2d_backward_input(ctx, geometry_, dz, run.parameter(weight_), dx);
    }
    return dx;
  }

 private:
  template <class T>
  static constexpr T epsilon = T(1e-5);

  /// Batch norm with its running statistics, as the epilogue of the convolution.
  template <class T>
  struct Folded {
    Tensor<T> scale, shift;
  };
  template <class Context, class T>
  Folded<T> fold(const Run<Context, T>& run) const {
    Folded<T> norm{run.make({config_.out_channels}, "conv_bn_act.scale"),
                   run.make({config_.out_channels}, "conv_bn_act.shift")};
    kernels::batch_norm_scale_shift(run.ctx, run.parameter(gamma_), run.parameter(beta_),
                                    run.buffer(mean_), run.buffer(variance_), epsilon<T>,
                                    norm.scale, norm.shift);
    return norm;
  }

  /// The gradient of z: as BF16 if the products that read it would round it anyway, else in the
  /// memory of dy.
  template <class Context, class T>
  Map<T> normalise_backward(const Run<Context, T>& run, Tensor<T> dy, const Saved<T>& saved) const {
    const auto compute = [&](auto dz) {
      kernels::batch_norm_backward(run.ctx, dy, saved.z, run.parameter(gamma_),
                                   run.parameter(beta_), saved.mean, saved.inv_std, config_.act, dz,
                                   run.gradient(gamma_), run.gradient(beta_));
    };
    if constexpr (StoresBF16<Context, T>)
      if (geometry_.pointwise() && saved.z.is_rounded()) {
        Map<T> rounded = run.make_map(dy.shape, "conv_bn_act.dz", Storage::bf16);
        compute(rounded.rounded_elements());
        return rounded;
      }
    compute(View<T>(dy));
    return dy;
  }

  Config config_;
  Conv2dGeometry geometry_;
  ParameterRef weight_, gamma_, beta_, mean_, variance_;
};

}  // namespace kindred::layers
