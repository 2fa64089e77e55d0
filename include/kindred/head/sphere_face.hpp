#pragma once
// SphereFace head: the angle to the label's centre is multiplied.

#include <kindred/head/combined_margin.hpp>

namespace kindred::head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * (cos, with the label's replaced by psi(margin
/// theta)), psi(a) = (-1)^k cos(a) - 2 k, k = floor(a / pi). This is the form of OpenSphere, whose
/// features are normalised; the paper of 2017 takes |x| for the scale and anneals the margin.
/// gradient: straight_through is OpenSphere's "characteristic gradient detachment". At evaluation
/// the unscaled cosines.
/// x [B, embedding_size], centres [class_num, embedding_size].
/// Throws ConfigError unless margin >= 1 and scale > 0; DataError for a label outside [0,
/// class_num).
/// Source: Liu et al., "SphereFace" (CVPR 2017) and "SphereFace Revived" (TPAMI 2022); OpenSphere
/// model/head/sphereface.py; not in PaddleClas.
class SphereFace : public MarginHead<SphereFace> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double margin = 1.5;  ///< factor of the angle, >= 1, whole or not
    double scale = 30;
    GradientMode gradient = GradientMode::exact;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "SphereFace"; }

  SphereFace(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    require(config.margin >= 1, "margin must be >= 1", config.margin);
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return CombinedMarginPolicy<T>(config_.margin, 0, 0, config_.scale, config_.gradient);
  }

 private:
  Config config_;
};

}  // namespace kindred::head
