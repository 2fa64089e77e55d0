#pragma once
// The distance of a model's outputs from its teacher's.

#include <kindred/loss/distillation_loss.hpp>

namespace kindred::loss {

enum class DistanceMode { l2, l1, smooth_l1 };

/// L = mean over all elements of f(s - t), f(x) = x^2, |x|, or smooth L1 with delta 1; s and t the
/// features [B,D] (or logits) of student and teacher. Source: PaddleClas
/// ppcls/loss/distanceloss.py.
class DistanceLoss : public DistillationLoss<DistanceLoss> {
 public:
  struct Config {
    double weight = 1;
    DistanceMode mode = DistanceMode::l2;
    DistillationKey key = DistillationKey::features;
  };

  static constexpr const char* name() { return "DistanceLoss"; }

  explicit DistanceLoss(const Config& config, const Scope&) : config_(config) {}
  const Config& config() const { return config_; }
  DistillationKey key() const { return config_.key; }

  template <class T>
  auto row(const Comparison<T>& all) const {
    return Row<T>{all, config_.mode};
  }

  template <class T>
  struct Row {
    Comparison<T> all;
    DistanceMode mode;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T *s = all.student_row(i), *t = all.teacher_row(i);
      const std::int64_t n = all.columns;
      const T sum = group.sum(n, [&](std::int64_t j) {
        const T x = s[j] - t[j];
        return mode == DistanceMode::l2   ? x * x
               : mode == DistanceMode::l1 ? (x < T(0) ? -x : x)
                                          : smooth_l1(x);
      });
      T* d = all.gradient_row(i);
      group.for_each(n, [&](std::int64_t j) {
        const T x = s[j] - t[j];
        const T slope = mode == DistanceMode::l2   ? T(2) * x
                        : mode == DistanceMode::l1 ? T(x > T(0)) - T(x < T(0))
                                                   : smooth_l1_slope(x);
        d[j] += all.factor / T(n) * slope;
      });
      all.finish(group, i, sum / T(n));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
