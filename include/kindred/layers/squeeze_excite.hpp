#pragma once
// Squeeze-and-excitation: channels weighted by a small network of their own means.

#include <kindred/core/run.hpp>
#include <kindred/kernels/channel_scale.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/global_average_pool.hpp>
#include <kindred/layers/linear.hpp>

namespace kindred::layers {

/// y = x * hardsigmoid(W2 relu(W1 mean_hw(x) + b1) + b2), per channel. x, y [B,H,W,C]; the hidden
/// width is C / 4. Source: Hu et al., "Squeeze-and-Excitation Networks"; SEModule of pp_lcnet.py.
class SqueezeExcite {
 public:
  template <class T>
  struct Saved {
    Tensor<T> pooled;  ///< [B,C]
    Tensor<T> hidden;  ///< [B,C/4], after relu
    Tensor<T> logits;  ///< [B,C], before hardsigmoid
    Tensor<T> gate;    ///< [B,C]
  };

  SqueezeExcite(std::int64_t channels, const Scope& scope)
      : squeeze_(config(channels, channels / reduction), scope / "conv1"),
        excite_(config(channels / reduction, channels), scope / "conv2") {}

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>& saved) const {
    return forward_map(run, x, saved).take();
  }
  /// y in the storage of x.
  template <class Context, class T>
  Map<T> forward_map(const Run<Context, T>& run, InMap<T> x, Saved<T>& saved) const {
    Saved<T> own;
    Saved<T>& s = run.training ? saved : own;
    s.pooled = run.make({x.dim(0), x.dim(3)}, "squeeze_excite.pooled");
    kernels::global_average_pool_forward(run.ctx, x, s.pooled);
    s.hidden = squeeze_.forward(run, s.pooled);
    kernels::activation_forward(run.ctx, Activation::relu, s.hidden, s.hidden);
    s.logits = excite_.forward(run, s.hidden);
    s.gate = run.make(s.logits.shape, "squeeze_excite.gate");
    kernels::activation_forward(run.ctx, Activation::hardsigmoid, s.logits, s.gate);
    auto y =
        run.make_map(x.shape, "squeeze_excite.y", x.is_rounded() ? Storage::bf16 : Storage::scalar);
    with_elements<Context>(
        y, [&](auto out) { kernels::channel_scale_forward(run.ctx, x, s.gate, out); });
    return y;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, InMap<T> x, Saved<T>& saved) const {
    auto dgate = run.make(saved.gate.shape, "squeeze_excite.dgate");
    auto dx = run.make(x.shape, "squeeze_excite.dx");
    kernels::channel_scale_backward(run.ctx, dy, x, saved.gate, dx, dgate);
    dy.reset();
    kernels::activation_backward(run.ctx, Activation::hardsigmoid, dgate, saved.logits, dgate);
    auto dhidden = excite_.backward(run, dgate, saved.hidden);
    // relu's derivative reads the same from its output as from its input.
    kernels::activation_backward(run.ctx, Activation::relu, dhidden, saved.hidden, dhidden);
    auto dpooled = squeeze_.backward(run, dhidden, saved.pooled);
    auto through_pool = run.make(x.shape, "squeeze_excite.through_pool");
    kernels::global_average_pool_backward(run.ctx, dpooled, through_pool);
    kernels::add(run.ctx, dx, through_pool, dx);
    saved = {};
    return dx;
  }

 private:
  static constexpr std::int64_t reduction = 4;
  static Linear::Config config(std::int64_t in, std::int64_t out) {
    return {.in_features = in,
            .out_features = out,
            .weight_init = Initializer::kaiming_normal(in),  // default of a 1x1 paddle.nn.Conv2D
            .convolution = true};
  }

  Linear squeeze_, excite_;
};

}  // namespace kindred::layers
