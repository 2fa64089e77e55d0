#pragma once
// BNNeck: batch norm between the feature of the metric loss and the feature of the classifier.

#include <utility>

#include <kindred/layers/batch_norm.hpp>

namespace kindred::neck {

/// y = BN(x) over the batch. x, y [B, num_features]; momentum 0.9, epsilon 1e-5.
/// Source: Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification";
/// PaddleClas ppcls/arch/gears/bnneck.py. There the bias is meant to be frozen but is trained
/// unless the configuration gives it a tiny rate, and so it is here by default; `freeze_bias`
/// keeps it at zero, as the paper does.
class BNNeck {
 public:
  struct Config {
    std::int64_t num_features = 0;
    double bias_lr_mult = 1;  ///< PaddleClas' configurations emulate 0 by 1e-20
    bool freeze_bias = false;
    bool use_global_stats = false;  ///< normalise with the running statistics in training, too
  };
  template <class T>
  using Saved = layers::BatchNorm::Saved<T>;

  static constexpr const char* name() { return "BNNeck"; }
  static constexpr int input_rank = 2;

  BNNeck(const Config& config, const Scope& scope)
      : norm_({.features = check(config.num_features),
               .mode = config.use_global_stats ? layers::BatchNormMode::eval
                                               : layers::BatchNormMode::general,
               .bias_lr_mult = config.freeze_bias ? 0 : config.bias_lr_mult},
              scope / "feat_bn") {}

  std::int64_t input_size() const { return norm_.config().features; }
  std::int64_t output_size() const { return norm_.config().features; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>& saved) const {
    return norm_.forward(run, x, saved);
  }
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>& saved) const {
    return norm_.backward(run, std::move(dy), x, saved);
  }

 private:
  static std::int64_t check(std::int64_t size) {
    if (size < 1) throw ConfigError(text("neck.BNNeck: num_features must be >= 1, got ", size));
    return size;
  }
  layers::BatchNorm norm_;
};

}  // namespace kindred::neck
