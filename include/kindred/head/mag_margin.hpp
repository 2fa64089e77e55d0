#pragma once
// MagMargin head: an angular margin that grows with the norm of the feature.

#include <algorithm>

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// AdditiveAngle of the margin m(a) = l_m + (u_m - l_m) (a - l_a) / (u_a - l_a), a = |x| clipped to
/// [l_a, u_a]; the gradient reaches |x|.
template <class T>
struct MagMarginPolicy : MarginPolicy<T> {
  static constexpr int row_values = 2;  ///< m(a), dm/d|x|
  T l_a, u_a, l_m, slope;
  bool easy;

  MagMarginPolicy(double lowest, double highest, double least, double most, double s,
                  bool easy_margin = false)
      : MarginPolicy<T>(s),
        l_a(static_cast<T>(lowest)),
        u_a(static_cast<T>(highest)),
        l_m(static_cast<T>(least)),
        slope(static_cast<T>((most - least) / (highest - lowest))),
        easy(easy_margin) {}

  KINDRED_HD void begin_row(const MarginSample<T>& sample, T* row) const {
    const T a = std::clamp(sample.norm, l_a, u_a);
    row[0] = l_m + slope * (a - l_a);
    row[1] = a == sample.norm ? slope : T(0);
  }
  KINDRED_HD MarginTarget<T> target(T c, const T* row) const {
    const auto psi = AdditiveAngle<T>(row[0], easy, T(0))(c);
    return {psi.value, psi.derivative, psi.by_margin * row[1]};
  }
};

namespace head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * (cos, with the label's replaced by cos(theta + m),
/// or cos - m sin(m) once theta + m > pi; easy_margin: cos(theta + m) only where cos > 0, cos
/// elsewhere), m = l_margin + (u_margin - l_margin) (a - l_a) / (u_a - l_a) and a = |x| clipped to
/// [l_a, u_a]. The gradient reaches |x|. The paper's regulariser lambda_g (a / u_a^2 + 1 / a) is a
/// loss of its own, loss::MagRegularizer. At evaluation the unscaled cosines.
/// x [B, embedding_size], centres [class_num, embedding_size].
/// Throws ConfigError unless 0 < l_a < u_a, 0 <= l_margin <= u_margin < pi and scale > 0; DataError
/// for a label outside [0, class_num).
/// Source: Meng et al., "MagFace" (CVPR 2021) and its code, models/magface.py, where easy_margin is
/// on unless said otherwise; not in PaddleClas.
class MagMargin : public MarginHead<MagMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double l_a = 10, u_a = 110;              ///< norms between which the margin grows
    double l_margin = 0.45, u_margin = 0.8;  ///< radians
    double scale = 64;
    bool easy_margin = false;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "MagMargin"; }

  MagMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    require(config.l_a > 0 && config.u_a > config.l_a, "u_a must be above l_a > 0", config.u_a);
    require(config.l_margin >= 0 && config.u_margin >= config.l_margin && config.u_margin < 3.14159,
            "0 <= l_margin <= u_margin < pi does not hold for u_margin", config.u_margin);
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return MagMarginPolicy<T>(config_.l_a, config_.u_a, config_.l_margin, config_.u_margin,
                              config_.scale, config_.easy_margin);
  }

 private:
  Config config_;
};

}  // namespace head
}  // namespace kindred
