#pragma once
// CombinedMargin head: a multiplicative angular, an additive angular and a cosine margin at once.

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// target(c) = psi(m1 theta + m2) - m3, theta = arccos(c), with psi(a) = (-1)^k cos(a) - 2 k and
/// k = floor(a / pi): the cosine up to pi, and beyond it what goes on falling.
template <class T>
struct CombinedMarginPolicy : MarginPolicy<T> {
  T m1, m2, m3;
  GradientMode mode;

  CombinedMarginPolicy(double factor, double angle, double cosine, double s, GradientMode gradient)
      : MarginPolicy<T>(s),
        m1(static_cast<T>(factor)),
        m2(static_cast<T>(angle)),
        m3(static_cast<T>(cosine)),
        mode(gradient) {}

  KINDRED_HD MarginTarget<T> target(T c, const T*) const {
    const T inside = c > T(1) ? T(1) : c < T(-1) ? T(-1) : c;  // NaN passes
    const T angle = m1 * std::acos(inside) + m2;
    const T k = std::floor(angle / T(3.14159265358979323846));
    const T sign = std::floor(k / T(2)) * T(2) == k ? T(1) : T(-1);
    const T value = sign * std::cos(angle) - T(2) * k - m3;
    if (mode == GradientMode::straight_through) return {value, T(1)};
    return {value, sign * std::sin(angle) * m1 / margin_sine(c, margin_least_sine<T>)};
  }
};

namespace head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * (cos, with the label's replaced by
/// cos(m1 theta + m2) - m3). (1, m, 0) is ArcFace, (1, 0, m) CosFace, (m, 0, 0) SphereFace. Where
/// m1 theta + m2 exceeds pi, the cosine would rise again; it is continued as SphereFace does it,
/// (-1)^k cos(a) - 2 k with k = floor(a / pi). InsightFace lets it rise; its CombinedMarginLoss
/// knows (1, m, 0) and (1, 0, m) alone, and its filter of negatives above a threshold is not built.
/// gradient: straight_through takes 1 for the derivative of the margin, as InsightFace since 2022.
/// At evaluation the unscaled cosines.
/// x [B, embedding_size], centres [class_num, embedding_size].
/// Throws ConfigError unless m1 >= 1, m2 is in [0, pi), m3 >= 0 and scale > 0; DataError for a
/// label outside [0, class_num).
/// Source: Deng et al., "ArcFace" (CVPR 2019), equation 4; InsightFace recognition/arcface_torch
/// losses.py; not in PaddleClas.
class CombinedMargin : public MarginHead<CombinedMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double m1 = 1;    ///< factor of the angle, >= 1
    double m2 = 0.3;  ///< added to the angle, radians
    double m3 = 0.2;  ///< taken off the cosine
    double scale = 64;
    GradientMode gradient = GradientMode::exact;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "CombinedMargin"; }

  CombinedMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    require(config.m1 >= 1, "m1 must be >= 1", config.m1);
    require(config.m2 >= 0 && config.m2 < 3.14159, "m2 must be in [0, pi)", config.m2);
    require(config.m3 >= 0, "m3 must be >= 0", config.m3);
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return CombinedMarginPolicy<T>(config_.m1, config_.m2, config_.m3, config_.scale,
                                   config_.gradient);
  }

 private:
  Config config_;
};

}  // namespace head
}  // namespace kindred
