#pragma once
// ArcMargin head: softmax over cosines with an additive angular margin on the target class.

#include <kindred/head/margin_head.hpp>

namespace kindred::head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * (cos, with the target's replaced by psi(cos)), where
/// psi = cos(theta + margin) as cos cos(m) - sin sin(m), sin = sqrt(1 - cos^2 + 1e-6), and
/// cos - m sin(m) once theta + m > pi (easy_margin: psi only where cos > 0, cos elsewhere).
/// gradient: straight_through (InsightFace) takes 1 for d psi / d cos; not in PaddleClas.
/// x [B, embedding_size], centres [class_num, embedding_size] (files hold Paddle's transpose).
/// At evaluation the unscaled cosines, as in PaddleClas. Trained with CELoss no logits are built.
/// Throws ConfigError unless margin is in [0, pi) and scale > 0; DataError for a label outside [0,
/// class_num).
/// Source: Deng et al., "ArcFace" (CVPR 2019); PaddleClas ppcls/arch/gears/arcmargin.py.
class ArcMargin : public MarginHead<ArcMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double margin = 0.5;  ///< radians
    double scale = 80;
    bool easy_margin = false;
    GradientMode gradient = GradientMode::exact;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "ArcMargin"; }

  ArcMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    if (!(config.scale > 0) || !(config.margin >= 0 && config.margin < 3.14159))
      throw ConfigError(text("head.ArcMargin: scale must be > 0 and margin in [0, pi), got ",
                             config.scale, " and ", config.margin));
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return ArcMarginPolicy<T>(config_.margin, config_.scale, config_.easy_margin, config_.gradient);
  }

 private:
  Config config_;
};

}  // namespace kindred::head
