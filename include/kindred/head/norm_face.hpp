#pragma once
// NormFace head: softmax over cosines, without a margin.

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// target(c) = c.
template <class T>
struct NormFacePolicy : MarginPolicy<T> {
  using MarginPolicy<T>::MarginPolicy;
  KINDRED_HD MarginTarget<T> target(T c, const T*) const { return {c, T(1)}; }
};

namespace head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * cos. The scale is a constant (the paper also learns
/// it); pytorch-metric-learning's NormalizedSoftmaxLoss is this with scale = 1 / temperature. At
/// evaluation the unscaled cosines.
/// x [B, embedding_size], centres [class_num, embedding_size].
/// Throws ConfigError unless scale > 0; DataError for a label outside [0, class_num).
/// Source: Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification" (ACM MM 2017);
/// Zhai and Wu, "Classification is a Strong Baseline for Deep Metric Learning" (BMVC 2019); not in
/// PaddleClas.
class NormFace : public MarginHead<NormFace> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double scale = 20;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "NormFace"; }

  NormFace(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>&) const {
    return NormFacePolicy<T>(config_.scale);
  }

 private:
  Config config_;
};

}  // namespace head
}  // namespace kindred
