#pragma once
// Deep mutual learning.

#include <kindred/loss/distillation_loss.hpp>

namespace kindred::loss {

/// What turns logits into probabilities.
enum class DMLActivation { softmax, sigmoid };

/// L = mean_i 1/2 sum_k ( k(p, q) + k(q, p) ), k(a, b) = b ln((b + eps) / (a + eps)), p and q the
/// softmax (or sigmoid) of the logits [B,C] of student and teacher; times C if
/// sum_across_class_dim. Source: Zhang et al., "Deep Mutual Learning", CVPR 2018; PaddleClas
/// ppcls/loss/dmlloss.py, where both models get a gradient: here the teacher is fixed. Throws
/// ConfigError unless eps >= 0.
class DMLLoss : public DistillationLoss<DMLLoss> {
 public:
  struct Config {
    double weight = 1;
    DMLActivation act = DMLActivation::softmax;
    bool sum_across_class_dim = false;
    double eps = 1e-12;
    DistillationKey key = DistillationKey::logits;
  };

  static constexpr const char* name() { return "DMLLoss"; }

  explicit DMLLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.eps >= 0))
      throw ConfigError(text(name(), ": eps must not be negative, got ", config.eps));
  }
  const Config& config() const { return config_; }
  DistillationKey key() const { return config_.key; }

  template <class T>
  auto row(const Comparison<T>& all) const {
    return Row<T>{all, config_.act == DMLActivation::softmax, T(config_.eps),
                  config_.sum_across_class_dim ? T(all.columns) : T(1)};
  }

  template <class T>
  struct Row {
    Comparison<T> all;
    bool softmax;
    T eps, scale;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T *s = all.student_row(i), *t = all.teacher_row(i);
      const std::int64_t n = all.columns;
      const auto every = [](std::int64_t) { return true; };
      const auto of = [](const T* x) { return [x](std::int64_t j) { return x[j]; }; };
      const T ls = softmax ? log_sum_exp(group, n, false, every, of(s)) : T(0);
      const T lt = softmax ? log_sum_exp(group, n, false, every, of(t)) : T(0);
      const auto p = [&](std::int64_t j) { return softmax ? std::exp(s[j] - ls) : sigmoid(s[j]); };
      const auto q = [&](std::int64_t j) { return softmax ? std::exp(t[j] - lt) : sigmoid(t[j]); };
      const auto ratio = [&](std::int64_t j) { return std::log((p(j) + eps) / (q(j) + eps)); };
      // Both divergences together: (p - q) ln((p + eps) / (q + eps)).
      const T sum = group.sum(n, [&](std::int64_t j) { return (p(j) - q(j)) * ratio(j); });
      const auto slope = [&](std::int64_t j) { return ratio(j) + (p(j) - q(j)) / (p(j) + eps); };
      const T mean = group.sum(n, [&](std::int64_t j) { return softmax ? p(j) * slope(j) : T(0); });
      T* d = all.gradient_row(i);
      group.for_each(n, [&](std::int64_t j) {
        const T through = softmax ? slope(j) - mean : slope(j) * (T(1) - p(j));
        d[j] += all.factor * scale / T(2) * p(j) * through;
      });
      all.finish(group, i, scale / T(2) * sum);
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
