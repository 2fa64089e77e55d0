#pragma once
// CircleMargin head: every cosine is weighted by its distance from its optimum.

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// target(c) = [1 + m - c]+ (c - (1 - m)), negative(c) = [c + m]+ (c - m); the weights in front are
/// constants to the gradient.
template <class T>
struct CircleMarginPolicy : MarginPolicy<T> {
  T margin;

  CircleMarginPolicy(double m, double s) : MarginPolicy<T>(s), margin(static_cast<T>(m)) {}

  KINDRED_HD MarginTarget<T> target(T c, const T*) const {
    const T weight = choose(c < T(1) + margin, T(1) + margin - c, T(0));
    return {weight * (c - (T(1) - margin)), weight};
  }
  template <class V>
  KINDRED_HD MarginValue<V> negative(V c, const V*) const {
    const V m(margin), sum = c + m, weight = choose(sum > V(T(0)), sum, V(T(0)));
    return {weight * (c - m), weight};
  }
};

namespace head {

/// cos_c = x/|x| . w_c/|w_c|; logit of the label scale * [1 + m - cos]+ (cos - (1 - m)), of the
/// other classes scale * [cos + m]+ (cos - m), with m the margin and both [ ]+ constants to the
/// gradient. At evaluation the unscaled cosines.
/// x [B, embedding_size], centres [class_num, embedding_size] (files hold Paddle's transpose).
/// Throws ConfigError unless margin >= 0 and scale > 0; DataError for a label outside [0,
/// class_num).
/// Source: Sun et al., "Circle Loss" (CVPR 2020); PaddleClas ppcls/arch/gears/circlemargin.py.
class CircleMargin : public MarginHead<CircleMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double margin = 0.35;  ///< PaddleClas has no default: this and scale are its logo recogniser's
    double scale = 64;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "CircleMargin"; }

  CircleMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    require(config.margin >= 0, "margin must be >= 0", config.margin);
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return CircleMarginPolicy<T>(config_.margin, config_.scale);
  }

 private:
  Config config_;
};

}  // namespace head
}  // namespace kindred
