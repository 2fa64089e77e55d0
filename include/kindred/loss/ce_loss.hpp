#pragma once
// Softmax cross-entropy with hard, soft or smoothed labels.

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/softmax_cross_entropy.hpp>
#include <kindred/loss/distillation_loss.hpp>

namespace kindred::loss {

/// What the targets of CELoss are.
enum class CETarget {
  labels,        ///< the classes [B] themselves
  teacher,       ///< softmax of the teacher's logits [B,C]
  distribution,  ///< what stands in the place of the teacher's logits is a distribution already
};

/// "labels", "teacher" or "distribution".
inline const char* name_of(CETarget target) {
  return target == CETarget::labels    ? "labels"
         : target == CETarget::teacher ? "teacher"
                                       : "distribution";
}

/// L = mean_b -sum_c t_bc log softmax(z_b)_c, t = (1 - epsilon) q + epsilon / C, with q = onehot of
/// labels [B] in [0, C), or soft: softmax(teacher logits), or a distribution given [B,C] (see
/// SoftLabels in model/teacher.hpp). logits z [B,C]. Soft targets ask for the whole row, so a
/// margin head builds its logits for them; with labels it does not. Source: PaddleClas
/// ppcls/loss/celoss.py (an epsilon outside (0, 1) means none, as there). There labels [B,C] always
/// go through a softmax, right for a teacher's logits (its DistillationCELoss) and wrong for a
/// distribution, unless epsilon is given, which smooths them as they are: here the target says
/// which they are. Paddle's CPU kernel lets no z - max z below -64, which bounds its loss; here the
/// loss is exact. Throws ConfigError for a soft target without a teacher, ShapeError if its shape
/// is another.
class CELoss {
 public:
  struct Config {
    double weight = 1;
    double epsilon = 0;  ///< label smoothing
    CETarget target = CETarget::labels;
  };

  static constexpr const char* name() { return "CELoss"; }
  static constexpr std::int64_t entries() { return 1; }

  explicit CELoss(const Config& config, const Scope&) : config_(config) {}

  LogitUse logit_use() const { return soft() ? LogitUse::full : LogitUse::cross_entropy; }
  TeacherUse teacher_use() const { return {.logits = soft()}; }
  bool reads(FeatureFrom) const { return false; }
  void describe(LossReport* report) const { *report = {name(), config_.weight, 0, 0}; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const bool smooth = config_.epsilon > 0 && config_.epsilon < 1;
    const T epsilon = smooth ? T(config_.epsilon) : T(0), weight = T(config_.weight);
    if (soft()) {
      detail::check_teacher(name(), true, in.logits, in.teacher.logits);
      detail::mean_comparison(
          run, config_.weight, in.logits, in.teacher.logits, in.labels, gradient.logits, report,
          [&](const Comparison<T>& all) {
            return SoftRow<T>{all, epsilon, config_.target == CETarget::teacher};
          });
      return;
    }
    const View<T> value{report.data, {1}};
    if (in.logit_free != nullptr)
      (*in.logit_free)(epsilon, weight, value);
    else
      kernels::softmax_cross_entropy(run.ctx, in.logits, in.labels.data, epsilon, weight, value,
                                     gradient.logits);
    kernels::fill(run.ctx, T(in.labels.size()), View<T>{report.data + 1, {1}});
  }

  /// One row with a soft target.
  template <class T>
  struct SoftRow {
    Comparison<T> all;
    T epsilon;
    bool softmax;  ///< of the teacher's row
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T *z = all.student_row(i), *q = all.teacher_row(i);
      const std::int64_t n = all.columns;
      const auto every = [](std::int64_t) { return true; };
      const T lz = log_sum_exp(group, n, false, every, [&](std::int64_t j) { return z[j]; });
      const T lq = log_sum_exp(group, n, false, every, [&](std::int64_t j) { return q[j]; });
      const auto target = [&](std::int64_t j) {
        return (T(1) - epsilon) * (softmax ? std::exp(q[j] - lq) : q[j]) + epsilon / T(n);
      };
      const T mass = group.sum(n, target);
      const T loss = group.sum(n, [&](std::int64_t j) { return target(j) * (lz - z[j]); });
      T* d = all.gradient_row(i);
      group.for_each(n, [&](std::int64_t j) {
        d[j] += all.factor * (mass * std::exp(z[j] - lz) - target(j));
      });
      all.finish(group, i, loss);
    }
  };

 private:
  bool soft() const { return config_.target != CETarget::labels; }

  Config config_;
};

}  // namespace kindred::loss
