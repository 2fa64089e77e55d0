#pragma once
// FRFNNeck: two linear layers and a normalisation, for features of another dimension.

#include <utility>

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/l2_normalize.hpp>
#include <kindred/layers/linear.hpp>

namespace kindred::neck {

/// y = z/|z|, z = fc2(LeakyReLU(fc1(x))) with slope 0.1. x [B, num_features], between the layers
/// [B, num_features], y [B, low_dim]. A row z of zeros gives 0 with gradient 0; PaddleClas: NaN.
/// Source: PaddleClas ppcls/arch/gears/frfn_neck.py.
class FRFNNeck {
 public:
  struct Config {
    std::int64_t num_features = 0;
    std::int64_t low_dim = 0;
  };
  template <class T>
  struct Saved {
    Tensor<T> hidden, activated;  ///< [B, num_features], before and after the activation
    Tensor<T> norm, y;            ///< |z| [B] and the output
  };

  static constexpr const char* name() { return "FRFNNeck"; }
  static constexpr int input_rank = 2;

  FRFNNeck(const Config& config, const Scope& scope)
      : fc1_(linear(check("num_features", config.num_features), config.num_features),
             scope / "fc1"),
        fc2_(linear(config.num_features, check("low_dim", config.low_dim)), scope / "fc2") {}

  std::int64_t input_size() const { return fc1_.config().in_features; }
  std::int64_t output_size() const { return fc2_.config().out_features; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>& saved) const {
    auto hidden = fc1_.forward(run, x);
    auto activated = run.make(hidden.shape, "FRFNNeck.activated");
    kernels::activation_forward(run.ctx, activation, hidden, activated);
    auto z = fc2_.forward(run, activated);
    auto norm = run.make({x.dim(0)}, "FRFNNeck.norm");
    if (!run.training) {
      kernels::l2_normalize_forward(run.ctx, NormRule::none, T(0), z, norm, z);
      return z;
    }
    saved.y = run.make(z.shape, "FRFNNeck.saved y");
    kernels::l2_normalize_forward(run.ctx, NormRule::none, T(0), z, norm, saved.y);
    kernels::copy(run.ctx, saved.y, z);
    saved.hidden = std::move(hidden);
    saved.activated = std::move(activated);
    saved.norm = std::move(norm);
    return z;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>& saved) const {
    kernels::l2_normalize_backward(run.ctx, NormRule::none, T(0), dy, saved.y, saved.norm, dy);
    auto d = fc2_.backward(run, dy, saved.activated);
    kernels::activation_backward(run.ctx, activation, d, saved.hidden, d);
    saved = {};
    return fc1_.backward(run, d, x);
  }

 private:
  static constexpr auto activation = Activation::leaky_relu_0_1;

  static std::int64_t check(const char* key, std::int64_t value) {
    if (value < 1) throw ConfigError(text("neck.FRFNNeck: ", key, " must be >= 1, got ", value));
    return value;
  }
  static layers::Linear::Config linear(std::int64_t in, std::int64_t out) {
    return {.in_features = in,
            .out_features = out,
            .weight_init = Initializer::xavier_uniform(in, out)};
  }
  layers::Linear fc1_, fc2_;
};

}  // namespace kindred::neck
