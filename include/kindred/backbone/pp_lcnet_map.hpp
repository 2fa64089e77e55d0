#pragma once
// PPLCNetMap: the convolutions of PPLCNet without its pooling.

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kindred/core/run.hpp>
#include <kindred/layers/conv_bn_act.hpp>
#include <kindred/layers/squeeze_excite.hpp>

namespace kindred::backbone {

/// The feature map of PPLCNet at any scale: images [B,H,W,3] -> [B,H',W', output_size()], with the
/// default strides H' = ceil(H / 32). For necks that pool themselves, such as GeM.
/// Source: PPLCNet, whose parameter names it keeps, stopped after `blocks6`.
class PPLCNetMap {
 public:
  struct Config {
    double scale = 1.0;  ///< width; published: 0.25 0.35 0.5 0.75 1.0 1.5 2.0 2.5
    std::array<double, 6> lr_mult_list{1, 1, 1, 1, 1, 1};
    std::array<std::int64_t, 5> stride_list{2, 2, 2, 2, 2};
    Activation act = Activation::hardswish;
  };

  template <class T>
  struct Saved;

  static constexpr const char* name() { return "PPLCNetMap"; }
  static constexpr int output_rank = 4;
  /// blocks2 to blocks6, each at half the resolution of the one before but for the first.
  static constexpr int stages = 5;

  PPLCNetMap(const Config& config, const Scope& scope) : PPLCNetMap(config, scope, name()) {}
  /// With another name in its errors.
  PPLCNetMap(const Config& config, const Scope& scope, const char* as);

  /// Channels of the map.
  std::int64_t output_size() const { return stage_size(stages - 1); }
  /// Channels of a stage's output.
  std::int64_t stage_size(int stage) const {
    constexpr std::int64_t channels[] = {32, 64, 128, 256, 512};
    return width(channels[stage]);
  }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> images, Saved<T>& saved) const {
    return forward(run, images, saved, [](int, const MapView<T>&) {});
  }
  /// Calls visit(stage, map), map a MapView, for the output of every stage, the last one included.
  template <class Context, class T, class Visit>
  Tensor<T> forward(const Run<Context, T>& run, In<T> images, Saved<T>& saved, Visit&& visit) const;

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> images,
                     Saved<T>& saved) const {
    return backward(run, std::move(dy), images, saved, [](int, const MapView<T>&, View<T>) {});
  }
  /// Calls visit(stage, map, dmap) for every stage but the last, from the back, before dmap, the
  /// gradient of its output, is used: the place to add to it.
  template <class Context, class T, class Visit>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> images, Saved<T>& saved,
                     Visit&& visit) const;

 private:
  /// Depthwise convolution, squeeze-excite where asked for, pointwise convolution.
  class DepthwiseSeparable {
   public:
    template <class T>
    struct Saved {
      layers::ConvBNAct::Saved<T> depthwise, pointwise;
      layers::SqueezeExcite::Saved<T> squeeze_excite;
      Map<T> filtered;  ///< output of the depthwise convolution
      Map<T> weighted;  ///< output of squeeze-excite
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

    /// The output is stored `as` the caller says.
    template <class Context, class T>
    Map<T> forward(const Run<Context, T>& run, InMap<T> x, Saved<T>& saved, Storage as) const {
      if (!run.training && !squeeze_excite_)
        return layers::ConvBNAct::infer_separable<Context, T>(run, depthwise_, *pointwise_, x, as);
      auto filtered = depthwise_.forward_map(run, x, saved.depthwise, run.storage);
      Map<T> weighted;
      if (squeeze_excite_) {
        weighted = squeeze_excite_->forward_map(run, filtered, saved.squeeze_excite);
        if (!run.training) filtered.reset();
      }
      auto y =
          pointwise_->forward_map(run, squeeze_excite_ ? weighted : filtered, saved.pointwise, as);
      if (run.training) {
        saved.filtered = std::move(filtered);
        saved.weighted = std::move(weighted);
      }
      return y;
    }

    template <class Context, class T>
    Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, InMap<T> x,
                       Saved<T>& saved) const {
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
    std::string_view stage;
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
  /// The stage that block i ends, or -1.
  static int stage_ended_by(std::size_t i) {
    const bool last = i + 1 == std::size(rows_);
    return last || rows_[i].stage != rows_[i + 1].stage ? rows_[i].stage.back() - '2' : -1;
  }

  Config config_;
  std::optional<layers::ConvBNAct> stem_;
  std::vector<DepthwiseSeparable> blocks_;
};

template <class T>
struct PPLCNetMap::Saved {
  layers::ConvBNAct::Saved<T> stem;
  std::vector<Map<T>> inputs;  ///< of the blocks
  std::vector<DepthwiseSeparable::Saved<T>> blocks;
};

inline PPLCNetMap::PPLCNetMap(const Config& config, const Scope& scope, const char* as)
    : config_(config) {
  if (!(config.scale > 0 && config.scale <= 16))
    throw ConfigError(text("backbone.", as, ": scale ", config.scale, " is not in (0, 16]"));
  for (std::int64_t stride : config.stride_list)
    if (stride < 1)
      throw ConfigError(text("backbone.", as, ": every stride of stride_list must be >= 1"));
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
}

template <class Context, class T, class Visit>
Tensor<T> PPLCNetMap::forward(const Run<Context, T>& run, In<T> images, Saved<T>& saved,
                              Visit&& visit) const {
  saved.inputs.resize(blocks_.size());
  saved.blocks.resize(blocks_.size());
  auto x = stem_->forward_map(run, images, saved.stem, run.storage);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const bool last = i + 1 == blocks_.size();  // what other components get is in T
    auto y = blocks_[i].forward(run, x, saved.blocks[i], last ? Storage::scalar : run.storage);
    if (run.training) saved.inputs[i] = std::move(x);
    x = std::move(y);
    if (const int stage = stage_ended_by(i); stage >= 0) visit(stage, MapView<T>(x));
  }
  return x.take();
}

template <class Context, class T, class Visit>
Tensor<T> PPLCNetMap::backward(const Run<Context, T>& run, Tensor<T> dy, In<T> images,
                               Saved<T>& saved, Visit&& visit) const {
  auto d = std::move(dy);
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    d = blocks_[i].backward(run, std::move(d), saved.inputs[i], saved.blocks[i]);
    if (const int stage = i > 0 ? stage_ended_by(i - 1) : -1; stage >= 0)
      visit(stage, MapView<T>(saved.inputs[i]), View<T>(d));
    saved.inputs[i].reset();
  }
  return stem_->backward(run, std::move(d), images, saved.stem, run.input_gradient);
}

}  // namespace kindred::backbone
