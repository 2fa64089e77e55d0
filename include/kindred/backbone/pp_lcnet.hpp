#pragma once
// PPLCNet: a fast convolutional network for CPUs.

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include <kindred/core/run.hpp>
#include <kindred/kernels/dropout.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/global_average_pool.hpp>
#include <kindred/layers/conv_bn_act.hpp>
#include <kindred/layers/linear.hpp>
#include <kindred/layers/squeeze_excite.hpp>

namespace kindred::backbone {

/// PPLCNet at any scale. Images [B,H,W,3] -> features [B, output_size()].
/// Source: Cui et al., "PP-LCNet: A Lightweight CPU Convolutional Neural Network" (2021);
/// PaddleClas ppcls/arch/backbone/legendary_models/pp_lcnet.py, whose parameter names it keeps.
class PPLCNet {
 public:
  struct Config {
    double scale = 1.0;          ///< width; published: 0.25 0.35 0.5 0.75 1.0 1.5 2.0 2.5
    std::int64_t class_num = 0;  ///< 0 stops at `flatten`, as BackboneStopLayer does
    double dropout_prob = 0.2;   ///< after last_conv, mode downscale_in_infer
    std::int64_t class_expand = 1280;
    bool use_last_conv = true;
    std::array<double, 6> lr_mult_list{1, 1, 1, 1, 1, 1};
    std::array<std::int64_t, 5> stride_list{2, 2, 2, 2, 2};
    Activation act = Activation::hardswish;
  };

  template <class T>
  struct Saved;

  static constexpr const char* name() { return "PPLCNet"; }
  static constexpr int output_rank = 2;

  PPLCNet(const Config& config, const Scope& scope);

  /// Width of the features.
  std::int64_t output_size() const {
    return config_.class_num > 0 ? config_.class_num : flat_size();
  }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> images, Saved<T>& saved) const;
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> images, Saved<T>& saved) const;

 private:
  /// Depthwise convolution, squeeze-excite where asked for, pointwise convolution.
  class DepthwiseSeparable {
   public:
    template <class T>
    struct Saved {
      layers::ConvBNAct::Saved<T> depthwise, pointwise;
      layers::SqueezeExcite::Saved<T> squeeze_excite;
      Tensor<T> filtered;  ///< output of the depthwise convolution
      Tensor<T> weighted;  ///< output of squeeze-excite
    };

    DepthwiseSeparable(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                       bool squeeze_excite, Activation act, const Scope& scope)
        : depthwise_({.in_channels = in,
                      .out_channels = in,
                      .kernel = kernel,
                      .stride = stride,
                      .groups = in,
                      .act = act},
                     scope / "dw_conv") {
      if (squeeze_excite) squeeze_excite_.emplace(in, scope / "se");
      pointwise_.emplace(
          layers::ConvBNAct::Config{.in_channels = in, .out_channels = out, .act = act},
          scope / "pw_conv");
    }

    template <class Context, class T>
    Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>& saved) const {
      auto filtered = depthwise_.forward(run, x, saved.depthwise);
      Tensor<T> weighted;
      if (squeeze_excite_) {
        weighted = squeeze_excite_->forward(run, filtered, saved.squeeze_excite);
        if (!run.training) filtered.reset();
      }
      auto y = pointwise_->forward(run, squeeze_excite_ ? weighted : filtered, saved.pointwise);
      if (run.training) {
        saved.filtered = std::move(filtered);
        saved.weighted = std::move(weighted);
      }
      return y;
    }

    template <class Context, class T>
    Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>& saved) const {
      auto d = pointwise_->backward(
          run, std::move(dy), squeeze_excite_ ? saved.weighted : saved.filtered, saved.pointwise);
      saved.weighted.reset();
      if (squeeze_excite_)
        d = squeeze_excite_->backward(run, std::move(d), saved.filtered, saved.squeeze_excite);
      saved.filtered.reset();
      return depthwise_.backward(run, std::move(d), x, saved.depthwise);
    }

   private:
    layers::ConvBNAct depthwise_;
    std::optional<layers::SqueezeExcite> squeeze_excite_;
    std::optional<layers::ConvBNAct> pointwise_;  // optional: declared after squeeze-excite
  };

  struct Row {
    const char* stage;
    std::int64_t kernel, in, out, stride;
    bool squeeze_excite;
  };
  static constexpr Row rows_[] = {
      {"blocks2", 3, 16, 32, 1, false},   {"blocks3", 3, 32, 64, 2, false},
      {"blocks3", 3, 64, 64, 1, false},   {"blocks4", 3, 64, 128, 2, false},
      {"blocks4", 3, 128, 128, 1, false}, {"blocks5", 3, 128, 256, 2, false},
      {"blocks5", 5, 256, 256, 1, false}, {"blocks5", 5, 256, 256, 1, false},
      {"blocks5", 5, 256, 256, 1, false}, {"blocks5", 5, 256, 256, 1, false},
      {"blocks5", 5, 256, 256, 1, false}, {"blocks6", 5, 256, 512, 2, true},
      {"blocks6", 5, 512, 512, 1, true}};

  /// Channels at this scale: the nearest multiple of 8, at least 8, never below 90%.
  std::int64_t width(std::int64_t channels) const {
    const double v = static_cast<double>(channels) * config_.scale;
    std::int64_t rounded = std::max<std::int64_t>(8, static_cast<std::int64_t>(v + 4) / 8 * 8);
    if (static_cast<double>(rounded) < 0.9 * v) rounded += 8;
    return rounded;
  }
  std::int64_t flat_size() const {
    return config_.use_last_conv ? config_.class_expand : width(512);
  }
  template <class Context, class T>
  Tensor<T> top_forward(const Run<Context, T>& run, Tensor<T> pooled, Saved<T>& saved) const;
  template <class Context, class T>
  Tensor<T> top_backward(const Run<Context, T>& run, Tensor<T> dy, Saved<T>& saved) const;

  static constexpr auto dropout_mode_ = DropoutMode::downscale_in_infer;
  RandomKey dropout_key(RandomKey key) const {
    key.stream = stream_of("PPLCNet.dropout");
    return key;
  }

  Config config_;
  std::optional<layers::ConvBNAct> stem_;
  std::vector<DepthwiseSeparable> blocks_;
  std::optional<layers::Linear> last_conv_;
  std::optional<layers::Linear> fc_;
};

template <class T>
struct PPLCNet::Saved {
  layers::ConvBNAct::Saved<T> stem;
  std::vector<Tensor<T>> inputs;  ///< of the blocks
  std::vector<DepthwiseSeparable::Saved<T>> blocks;
  Shape last;          ///< of the last block's output
  Tensor<T> pooled;    ///< [B,C]
  Tensor<T> expanded;  ///< [B,class_expand], before the activation
  Tensor<T> flat;      ///< input of fc
};

inline PPLCNet::PPLCNet(const Config& config, const Scope& scope) : config_(config) {
  if (!(config.scale > 0 && config.scale <= 16))
    throw ConfigError(text("backbone.PPLCNet: scale ", config.scale, " is not in (0, 16]"));
  if (!(config.dropout_prob >= 0 && config.dropout_prob < 1))
    throw ConfigError(
        text("backbone.PPLCNet: dropout_prob ", config.dropout_prob, " is not in [0, 1)"));
  if (config.class_num < 0 || config.class_expand < 1)
    throw ConfigError("backbone.PPLCNet: class_num must be >= 0 and class_expand >= 1");
  for (std::int64_t stride : config.stride_list)
    if (stride < 1) throw ConfigError("backbone.PPLCNet: every stride of stride_list must be >= 1");
  stem_.emplace(layers::ConvBNAct::Config{.in_channels = 3,
                                          .out_channels = width(16),
                                          .kernel = 3,
                                          .stride = config.stride_list[0],
                                          .act = config.act},
                (scope / "conv1").with_lr(config.lr_mult_list[0]));
  std::string_view stage;
  int position = 0;
  std::size_t number = 0;  // of the stage: blocks2 is 1
  for (const Row& row : rows_) {
    if (stage != row.stage) {
      stage = row.stage;
      position = 0;
      ++number;
    }
    const bool first = position == 0 && number >= 2;  // the blocks whose stride can be set
    blocks_.emplace_back(
        width(row.in), width(row.out), row.kernel,
        first ? config.stride_list[number - 1] : row.stride, row.squeeze_excite, config.act,
        (scope / row.stage / std::to_string(position)).with_lr(config.lr_mult_list[number]));
    ++position;
  }
  if (config.use_last_conv)
    last_conv_.emplace(
        layers::Linear::Config{.in_features = width(512),
                               .out_features = config.class_expand,
                               .bias = false,
                               .weight_init = Initializer::kaiming_normal(width(512)),
                               .convolution = true},
        scope / "last_conv");
  if (config.class_num > 0)
    fc_.emplace(layers::Linear::Config{.in_features = flat_size(),
                                       .out_features = config.class_num,
                                       .weight_init = Initializer::xavier_uniform(
                                           flat_size(), config.class_num)},
                scope / "fc");
}

template <class Context, class T>
Tensor<T> PPLCNet::forward(const Run<Context, T>& run, In<T> images, Saved<T>& saved) const {
  saved.inputs.resize(blocks_.size());
  saved.blocks.resize(blocks_.size());
  auto x = stem_->forward(run, images, saved.stem);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    auto y = blocks_[i].forward(run, x, saved.blocks[i]);
    if (run.training) saved.inputs[i] = std::move(x);
    x = std::move(y);
  }
  saved.last = x.shape;
  auto pooled = run.make({x.dim(0), x.dim(3)}, "PPLCNet.pooled");
  kernels::global_average_pool_forward(run.ctx, x, pooled);
  x.reset();
  return top_forward(run, std::move(pooled), saved);
}

template <class Context, class T>
Tensor<T> PPLCNet::top_forward(const Run<Context, T>& run, Tensor<T> pooled,
                               Saved<T>& saved) const {
  Tensor<T> x = std::move(pooled);
  if (last_conv_) {
    auto expanded = last_conv_->forward(run, x);
    auto y = run.make(expanded.shape, "PPLCNet.flat");
    kernels::activation_forward(run.ctx, config_.act, expanded, y);
    if (config_.dropout_prob > 0)
      kernels::dropout_forward(run.ctx, T(config_.dropout_prob), dropout_mode_, run.training,
                               dropout_key(run.random), y, y);
    if (run.training) {
      saved.pooled = std::move(x);
      saved.expanded = std::move(expanded);
    }
    x = std::move(y);
  }
  if (!fc_) return x;
  auto y = fc_->forward(run, x);
  if (run.training) saved.flat = std::move(x);
  return y;
}

template <class Context, class T>
Tensor<T> PPLCNet::top_backward(const Run<Context, T>& run, Tensor<T> dy, Saved<T>& saved) const {
  if (fc_) {
    dy = fc_->backward(run, dy, saved.flat);
    saved.flat.reset();
  }
  if (last_conv_) {
    if (config_.dropout_prob > 0)
      kernels::dropout_backward(run.ctx, T(config_.dropout_prob), dropout_mode_,
                                dropout_key(run.random), dy, dy);
    kernels::activation_backward(run.ctx, config_.act, dy, saved.expanded, dy);
    saved.expanded.reset();
    dy = last_conv_->backward(run, dy, saved.pooled);
    saved.pooled.reset();
  }
  return dy;
}

template <class Context, class T>
Tensor<T> PPLCNet::backward(const Run<Context, T>& run, Tensor<T> dy, In<T> images,
                            Saved<T>& saved) const {
  auto dpooled = top_backward(run, std::move(dy), saved);
  auto d = run.make(saved.last, "PPLCNet.dlast");
  kernels::global_average_pool_backward(run.ctx, dpooled, d);
  dpooled.reset();
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    d = blocks_[i].backward(run, std::move(d), saved.inputs[i], saved.blocks[i]);
    saved.inputs[i].reset();
  }
  return stem_->backward(run, std::move(d), images, saved.stem, run.input_gradient);
}

}  // namespace kindred::backbone
