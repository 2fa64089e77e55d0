#pragma once
// MetaBNNeck: BNNeck whose use of statistics can be chosen, as meta batch norm needs it.

#include <utility>

#include <kindred/layers/batch_norm.hpp>

namespace kindred::neck {

/// y = BN(x). x, y [B, num_features]; momentum 0.9, epsilon 1e-5. In training, bn_mode says which
/// statistics normalise: `general` those of the batch, which also move the running ones; `hold`
/// those of the batch, the running ones stay; `eval` the running ones. Evaluation takes the running
/// ones. PaddleClas switches the mode between the phases of a MetaBIN step (setup_opt); here it is
/// a setting of the model, and MetaBIN's training loop is not built. As there, the bias is trained.
/// Source: Choi et al., "Meta Batch-Instance Normalization for Generalizable Person
/// Re-Identification" (CVPR 2021); PaddleClas ppcls/arch/gears/metabnneck.py.
class MetaBNNeck {
 public:
  struct Config {
    std::int64_t num_features = 0;
    layers::BatchNormMode bn_mode = layers::BatchNormMode::general;
    double bias_lr_mult = 1;
    bool freeze_bias = false;
  };
  template <class T>
  using Saved = layers::BatchNorm::Saved<T>;

  static constexpr const char* name() { return "MetaBNNeck"; }
  static constexpr int input_rank = 2;

  MetaBNNeck(const Config& config, const Scope& scope)
      : norm_({.features = check(config.num_features),
               .mode = config.bn_mode,
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
    if (size < 1) throw ConfigError(text("neck.MetaBNNeck: num_features must be >= 1, got ", size));
    return size;
  }
  layers::BatchNorm norm_;
};

}  // namespace kindred::neck
