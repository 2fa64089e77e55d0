#pragma once
// PPLCNet: a fast convolutional network for CPUs.

#include <array>
#include <optional>
#include <utility>

#include <kindred/backbone/pp_lcnet_map.hpp>
#include <kindred/core/run.hpp>
#include <kindred/kernels/dropout.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/global_average_pool.hpp>
#include <kindred/layers/linear.hpp>

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
  std::int64_t flat_size() const {
    return config_.use_last_conv ? config_.class_expand : map_.output_size();
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
  PPLCNetMap map_;
  std::optional<layers::Linear> last_conv_;
  std::optional<layers::Linear> fc_;
};

template <class T>
struct PPLCNet::Saved {
  PPLCNetMap::Saved<T> map;
  Shape last;          ///< of the map
  Tensor<T> pooled;    ///< [B,C]
  Tensor<T> expanded;  ///< [B,class_expand], before the activation
  Tensor<T> flat;      ///< input of fc
};

inline PPLCNet::PPLCNet(const Config& config, const Scope& scope)
    : config_(config),
      map_({config.scale, config.lr_mult_list, config.stride_list, config.act}, scope, name()) {
  if (!(config.dropout_prob >= 0 && config.dropout_prob < 1))
    throw ConfigError(
        text("backbone.PPLCNet: dropout_prob ", config.dropout_prob, " is not in [0, 1)"));
  if (config.class_num < 0 || config.class_expand < 1)
    throw ConfigError("backbone.PPLCNet: class_num must be >= 0 and class_expand >= 1");
  if (config.use_last_conv)
    last_conv_.emplace(
        layers::Linear::Config{.in_features = map_.output_size(),
                               .out_features = config.class_expand,
                               .bias = false,
                               .weight_init = Initializer::kaiming_normal(map_.output_size()),
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
  auto x = map_.forward(run, images, saved.map);
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
  return map_.backward(run, std::move(d), images, saved.map);
}

}  // namespace kindred::backbone
