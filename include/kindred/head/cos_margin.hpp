#pragma once
// CosMargin head: softmax over cosines with an additive cosine margin on the target class.

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// target(c) = c - margin.
template <class T>
struct CosMarginPolicy : MarginPolicy<T> {
  T margin;

  CosMarginPolicy(double m, double s) : MarginPolicy<T>(s), margin(static_cast<T>(m)) {}
  KINDRED_HD MarginTarget<T> target(T c, const T*) const { return {c - margin, T(1)}; }
};

namespace head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * (cos - margin onehot). At evaluation the unscaled
/// cosines, with or without labels (PaddleClas fails without).
/// x [B, embedding_size], centres [class_num, embedding_size] (files hold Paddle's transpose).
/// Throws ConfigError unless margin >= 0 and scale > 0; DataError for a label outside [0,
/// class_num).
/// Source: Wang et al., "CosFace" (CVPR 2018); PaddleClas ppcls/arch/gears/cosmargin.py.
class CosMargin : public MarginHead<CosMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double margin = 0.35;
    double scale = 64;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "CosMargin"; }

  CosMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    require(config.margin >= 0, "margin must be >= 0", config.margin);
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return CosMarginPolicy<T>(config_.margin, config_.scale);
  }

 private:
  Config config_;
};

}  // namespace head
}  // namespace kindred
