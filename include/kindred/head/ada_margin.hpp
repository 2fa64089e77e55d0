#pragma once
// AdaMargin head: a margin that adapts to the quality of the image, read off the feature's norm.

#include <algorithm>

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// AdaFace. `mean` and `deviation` are running statistics of the norms, updated by begin_batch.
template <class T>
struct AdaMarginPolicy : MarginPolicy<T> {
  static constexpr int row_values = 1;  ///< q
  static constexpr T epsilon = T(1e-3);
  T m, h, t_alpha;
  T *mean, *deviation;

  AdaMarginPolicy(double margin, double steepness, double s, double alpha, T* running_mean,
                  T* running_deviation)
      : MarginPolicy<T>(s),
        m(static_cast<T>(margin)),
        h(static_cast<T>(steepness)),
        t_alpha(static_cast<T>(alpha)),
        mean(running_mean),
        deviation(running_deviation) {}

  KINDRED_HD static T safe(T norm) { return std::clamp(norm, T(1e-3), T(100)); }

  KINDRED_HD void begin_batch(const MarginBatch<T>& batch) const {
    T sum = 0, squares = 0;
    for (std::int64_t i = 0; i < batch.size; ++i) sum += safe(batch.norms[i]);
    const T average = sum / static_cast<T>(batch.size);
    for (std::int64_t i = 0; i < batch.size; ++i) {
      const T d = safe(batch.norms[i]) - average;
      squares += d * d;
    }
    const T divisor = static_cast<T>(std::max<std::int64_t>(1, batch.size - 1));
    *mean = average * t_alpha + (T(1) - t_alpha) * *mean;
    *deviation = std::sqrt(squares / divisor) * t_alpha + (T(1) - t_alpha) * *deviation;
  }
  KINDRED_HD void begin_row(const MarginSample<T>& sample, T* row) const {
    row[0] = std::clamp((safe(sample.norm) - *mean) / (*deviation + epsilon) * h, T(-1), T(1));
  }
  KINDRED_HD MarginTarget<T> target(T c, const T* row) const {
    // A copy, because device code has no address of a static member.
    const T pi = T(3.14159265358979323846), least = epsilon, limit = T(1) - least;
    const T angle = std::acos(std::clamp(c, -limit, limit)), moved = angle - m * row[0];
    const T theta = std::clamp(moved, least, pi - least);
    const bool clipped = theta != moved || c < -limit || c > limit;
    return {std::cos(theta) - m * (T(1) + row[0]),
            clipped ? T(0) : std::sin(theta) / std::sin(angle)};
  }
  template <class V>
  KINDRED_HD MarginValue<V> negative(V c, const V*) const {
    const V limit(T(1) - epsilon), one(T(1)), zero(T(0));
    const V below = choose(c > limit, limit, c), value = choose(c < -limit, V(-limit), below);
    return {value, choose(value == c, one, zero)};
  }
};

namespace head {

/// c = cos clipped to [-1 + e, 1 - e], e = 1e-3; q = h (n - batch_mean) / (batch_std + e) clipped
/// to
/// [-1, 1], where n = |x| clipped to [1e-3, 100] is constant to the gradient; logits = s c, for the
/// label s (cos(acos(c) - m q clipped to [e, pi - e]) - m - m q).
/// batch_mean and batch_std first move by the share t_alpha to those of the batch (n - 1 divides).
/// x [B, embedding_size], centres "kernel" [class_num, embedding_size]. At evaluation the unscaled
/// cosines, unclipped; PaddleClas applies margin and statistics there, too, and demands labels.
/// The centres start from Xavier's normal, PaddleClas' from a uniform scaled to norm 1. The buffer
/// t is PaddleClas', without use. Throws ConfigError unless m is in [0, pi), h >= 0, s > 0 and
/// t_alpha in [0, 1]; DataError for a label outside [0, class_num).
/// Source: Kim et al., "AdaFace" (CVPR 2022) and its code, head.py; PaddleClas
/// ppcls/arch/gears/adamargin.py.
class AdaMargin : public MarginHead<AdaMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 512;
    std::int64_t class_num = 70722;
    double m = 0.4;
    double h = 0.333;
    double s = 64;
    double t_alpha = 1;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "AdaMargin"; }

  AdaMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile), 1, "kernel"),
        config_(config) {
    require(config.m >= 0 && config.m < 3.14159, "m must be in [0, pi)", config.m);
    require(config.h >= 0, "h must be >= 0", config.h);
    require(config.s > 0, "s must be > 0", config.s);
    require(config.t_alpha >= 0 && config.t_alpha <= 1, "t_alpha must be in [0, 1]",
            config.t_alpha);
    scope.declare("t", {1}, ParameterKind::buffer, Initializer::constant(0));
    mean_ = scope.declare("batch_mean", {1}, ParameterKind::buffer, Initializer::constant(20));
    deviation_ = scope.declare("batch_std", {1}, ParameterKind::buffer, Initializer::constant(100));
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>& run) const {
    return AdaMarginPolicy<T>(config_.m, config_.h, config_.s, config_.t_alpha,
                              run.new_buffer(mean_).data, run.new_buffer(deviation_).data);
  }

 private:
  Config config_;
  ParameterRef mean_, deviation_;
};

}  // namespace head
}  // namespace kindred
