#pragma once
// FPN: a backbone whose last stages are merged into one feature map.

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kindred/core/run.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/upsample_add.hpp>
#include <kindred/layers/conv_bn_act.hpp>

namespace kindred::backbone {

/// Feature pyramid over the stages C_l of a trunk that hands them out (PPLCNetMap), from
/// first_stage to the last: P_l = BN(conv1x1(C_l)) + upsample(P_{l+1}), and the result is
/// act(BN(conv3x3(P))) of the finest P. Images [B,H,W,3] -> [B,H',W',out_channels] at the
/// resolution of first_stage; stages count from 0 (PPLCNetMap's 2 is blocks4, an eighth of the
/// image). A neck that pools follows, such as GeM. It stands in the slot of the backbone, since a
/// neck is given one array. The trunk's parameters keep their names, so its published weights load;
/// the others are fpn.*. Source: Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR
/// 2017), there without batch norm and with an output for every level; not in PaddleClas.
template <class Trunk>
class FPN {
 public:
  struct Config {
    typename Trunk::Config trunk{};
    std::int64_t out_channels = 128;
    int first_stage = 2;
    Activation act = Activation::hardswish;
  };
  template <class T>
  struct Saved {
    typename Trunk::template Saved<T> trunk;
    std::vector<layers::ConvBNAct::Saved<T>> laterals;
    layers::ConvBNAct::Saved<T> smooth;
    Tensor<T> top;     ///< output of the last stage
    Tensor<T> merged;  ///< the finest P
  };

  static constexpr const char* name() { return "FPN"; }
  static constexpr int output_rank = 4;

  FPN(const Config& config, const Scope& scope)
      : first_(checked(config)), size_(config.out_channels), trunk_(config.trunk, scope) {
    const Scope own = scope / "fpn";
    for (int stage = first_; stage < Trunk::stages; ++stage)
      laterals_.emplace_back(layers::ConvBNAct::Config{.in_channels = trunk_.stage_size(stage),
                                                       .out_channels = size_,
                                                       .act = Activation::identity},
                             own / "lateral" / std::to_string(stage));
    smooth_.emplace(
        layers::ConvBNAct::Config{
            .in_channels = size_, .out_channels = size_, .kernel = 3, .act = config.act},
        own / "smooth");
  }

  std::int64_t output_size() const { return size_; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> images, Saved<T>& saved) const {
    Levels<T> level;
    saved.laterals.resize(laterals_.size());
    auto top = trunk_.forward(run, images, saved.trunk, [&](int stage, const InMap<T>& map) {
      if (stage < first_) return;
      const std::size_t i = index(stage);
      level[i] = laterals_[i].forward(run, map, saved.laterals[i]);
    });
    if (run.training) saved.top = std::move(top);
    for (std::size_t i = laterals_.size() - 1; i > 0; --i) {
      kernels::upsample_add(run.ctx, level[i], level[i - 1]);
      level[i].reset();
    }
    auto y = smooth_->forward(run, level[0], saved.smooth);
    if (run.training) saved.merged = std::move(level[0]);
    return y;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> images,
                     Saved<T>& saved) const {
    Levels<T> dlevel;
    dlevel[0] = smooth_->backward(run, std::move(dy), saved.merged, saved.smooth);
    saved.merged.reset();
    for (std::size_t i = 1; i < laterals_.size(); ++i) {
      dlevel[i] = run.make(saved.laterals[i].z.shape(), "FPN.dlevel");
      kernels::upsample_add_backward(run.ctx, dlevel[i - 1], dlevel[i]);
    }
    const std::size_t last = laterals_.size() - 1;
    auto dtop =
        laterals_[last].backward(run, std::move(dlevel[last]), saved.top, saved.laterals[last]);
    saved.top.reset();
    return trunk_.backward(run, std::move(dtop), images, saved.trunk,
                           [&](int stage, const InMap<T>& map, View<T> dmap) {
                             if (stage < first_) return;
                             const std::size_t i = index(stage);
                             auto d = laterals_[i].backward(run, std::move(dlevel[i]), map,
                                                            saved.laterals[i]);
                             kernels::scale_add(run.ctx, T(1), d, dmap);
                           });
  }

 private:
  template <class T>
  using Levels = std::array<Tensor<T>, Trunk::stages>;

  static int checked(const Config& config) {
    if (config.out_channels < 1)
      throw ConfigError(text("backbone.FPN: out_channels must be >= 1, got ", config.out_channels));
    if (config.first_stage < 0 || config.first_stage >= Trunk::stages)
      throw ConfigError(text("backbone.FPN: first_stage must be in [0, ", Trunk::stages, "), got ",
                             config.first_stage));
    return config.first_stage;
  }
  std::size_t index(int stage) const { return static_cast<std::size_t>(stage - first_); }

  int first_;
  std::int64_t size_;
  Trunk trunk_;
  std::vector<layers::ConvBNAct> laterals_;
  std::optional<layers::ConvBNAct> smooth_;  // optional: declared after the laterals
};

}  // namespace kindred::backbone
