#pragma once
// SubCenterArcMargin head: ArcMargin with several centres for each class.

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// ArcMarginPolicy on the largest of the cosines of K centres.
template <class T>
struct SubCenterArcMarginPolicy : ArcMarginPolicy<T> {
  std::int64_t centers;

  SubCenterArcMarginPolicy(double margin, double s, bool easy, std::int64_t k)
      : ArcMarginPolicy<T>(margin, s, easy), centers(k) {}
  KINDRED_HD std::int64_t sub_centers() const { return centers; }
};

namespace head {

/// cos_c = largest of x/|x| . w_ck/|w_ck| over the K = sub_centers centres of class c; logits as
/// ArcMargin's. The gradient goes to the centre with the largest cosine (the first of equals). At
/// evaluation these unscaled cosines [B, class_num]. x [B, embedding_size], centres
/// [class_num K, embedding_size], those of a class one after the other.
/// Throws ConfigError unless margin is in [0, pi), scale > 0 and sub_centers >= 1; DataError for a
/// label outside [0, class_num).
/// Source: Deng et al., "Sub-center ArcFace" (ECCV 2020); not in PaddleClas.
class SubCenterArcMargin : public MarginHead<SubCenterArcMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    std::int64_t sub_centers = 3;
    double margin = 0.5;  ///< radians
    double scale = 64;
    bool easy_margin = false;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "SubCenterArcMargin"; }

  SubCenterArcMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile), config.sub_centers),
        config_(config) {
    require(config.margin >= 0 && config.margin < 3.14159, "margin must be in [0, pi)",
            config.margin);
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return SubCenterArcMarginPolicy<T>(config_.margin, config_.scale, config_.easy_margin,
                                       config_.sub_centers);
  }

 private:
  Config config_;
};

}  // namespace head
}  // namespace kindred
