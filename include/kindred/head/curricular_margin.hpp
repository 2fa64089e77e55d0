#pragma once
// CurricularMargin head: hard negatives weigh more the further the training is.

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// CurricularFace. `t` is the running mean of the cosines to the labels, updated by begin_batch.
template <class T>
struct CurricularMarginPolicy : MarginPolicy<T> {
  static constexpr int row_values = 1;  ///< cos(theta_y + m)
  AdditiveAngle<T> angle;
  T t_alpha;
  T* t;

  CurricularMarginPolicy(double margin, double s, double alpha, T* running)
      : MarginPolicy<T>(s),
        angle(static_cast<T>(margin), false, T(0)),
        t_alpha(static_cast<T>(alpha)),
        t(running) {}

  KINDRED_HD void begin_batch(const MarginBatch<T>& batch) const {
    T sum = 0;
    for (std::int64_t i = 0; i < batch.size; ++i) sum += batch.cosines[i];
    *t = t_alpha * sum / static_cast<T>(batch.size) + (T(1) - t_alpha) * *t;
  }
  KINDRED_HD void begin_row(const MarginSample<T>& sample, T* row) const {
    const T c = sample.cosine;
    row[0] = c * angle.cos_m - margin_sine(c, T(0)) * angle.sin_m;
  }
  KINDRED_HD MarginTarget<T> target(T c, const T*) const {
    const auto psi = angle(c);
    return {psi.value, psi.derivative};
  }
  template <class V>
  KINDRED_HD MarginValue<V> negative(V c, const V* row) const {
    const V now(*t), one(T(1));
    const auto hard = c > row[0];
    return {choose(hard, V(c * (now + c)), c), choose(hard, V(now + c + c), one)};
  }
};

namespace head {

/// cos_c = x/|x| . w_c/|w_c|; the label's logit as MagMargin's with a constant margin, scale *
/// cos(theta_y + margin) or cos - m sin(m) once theta_y + m > pi; of the other classes scale * cos,
/// and for the hard ones, cos > cos(theta_y + margin), scale * cos (t + cos). t, constant to the
/// gradient, starts at 0 and first moves by the share t_alpha to the mean cosine of the batch to
/// its labels. At evaluation the unscaled cosines, and t stays.
/// x [B, embedding_size], centres [class_num, embedding_size], buffer t [1].
/// Throws ConfigError unless margin is in [0, pi), scale > 0 and t_alpha in [0, 1]; DataError for a
/// label outside [0, class_num).
/// Source: Huang et al., "CurricularFace" (CVPR 2020) and its code, head/metrics.py; not in
/// PaddleClas.
class CurricularMargin : public MarginHead<CurricularMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double margin = 0.5;  ///< radians
    double scale = 64;
    double t_alpha = 0.01;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "CurricularMargin"; }

  CurricularMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config) {
    require(config.margin >= 0 && config.margin < 3.14159, "margin must be in [0, pi)",
            config.margin);
    require(config.scale > 0, "scale must be > 0", config.scale);
    require(config.t_alpha >= 0 && config.t_alpha <= 1, "t_alpha must be in [0, 1]",
            config.t_alpha);
    t_ = scope.declare("t", {1}, ParameterKind::buffer, Initializer::constant(0));
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>& run) const {
    return CurricularMarginPolicy<T>(config_.margin, config_.scale, config_.t_alpha,
                                     run.new_buffer(t_).data);
  }

 private:
  Config config_;
  ParameterRef t_;
};

}  // namespace head
}  // namespace kindred
