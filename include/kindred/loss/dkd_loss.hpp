#pragma once
// Decoupled knowledge distillation.

#include <kindred/kernels/check_labels.hpp>
#include <kindred/loss/distillation_loss.hpp>

namespace kindred::loss {

/// L = T^2 mean_i ( alpha KL((q_y, 1 - q_y) || (p_y, 1 - p_y)) + beta KL(q' || p') ): p and q the
/// softmax of the logits [B,C] of student and teacher over the temperature T, p' and q' the same
/// without the target class y; y is the label, or the teacher's largest logit if use_target_as_gt
/// (so PaddleClas calls it).
/// Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022; PaddleClas
/// ppcls/loss/dkdloss.py. Throws ConfigError unless T > 0, ShapeError for fewer than 2 classes,
/// DataError for a label outside [0, C).
class DKDLoss : public DistillationLoss<DKDLoss> {
 public:
  struct Config {
    double weight = 1;
    double temperature = 1;
    double alpha = 1;
    double beta = 1;
    bool use_target_as_gt = false;
  };

  static constexpr const char* name() { return "DKDLoss"; }

  explicit DKDLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.temperature > 0))
      throw ConfigError(text(name(), ": temperature must be positive, got ", config.temperature));
  }
  const Config& config() const { return config_; }
  DistillationKey key() const { return DistillationKey::logits; }

  template <class Context, class T>
  void compare(const Run<Context, T>& run, View<const T> student, View<const T> teacher,
               View<const std::int64_t> labels, View<T> gradient, View<T> report) const {
    if (student.dim(1) < 2)
      throw ShapeError(text(name(), ": needs at least 2 classes, got ", student.shape));
    if (!config_.use_target_as_gt) kernels::check_labels(run.ctx, name(), labels, student.dim(1));
    DistillationLoss::compare(run, student, teacher, labels, gradient, report);
  }

  template <class T>
  auto row(const Comparison<T>& all) const {
    return Row<T>{all, T(config_.temperature), T(config_.alpha), T(config_.beta),
                  config_.use_target_as_gt};
  }

  template <class T>
  struct Row {
    Comparison<T> all;
    T temperature, alpha, beta;
    bool by_teacher;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T *s = all.student_row(i), *t = all.teacher_row(i);
      const std::int64_t n = all.columns;
      const auto every = [](std::int64_t) { return true; };
      const std::int64_t y = by_teacher
                                 ? group.argmax(n, every, [&](std::int64_t j) { return t[j]; })
                                 : class_index(all.labels[i], n);
      const auto rest = [&](std::int64_t j) { return j != y; };
      const auto zs = [&](std::int64_t j) { return s[j] / temperature; };
      const auto zt = [&](std::int64_t j) { return t[j] / temperature; };
      const T ls = log_sum_exp(group, n, false, every, zs),
              lt = log_sum_exp(group, n, false, every, zt);
      const T rs = log_sum_exp(group, n, false, rest, zs),
              rt = log_sum_exp(group, n, false, rest, zt);
      const T own = std::exp(zt(y) - lt), others = std::exp(rt - lt);  // q_y, 1 - q_y
      const T target = own * ((zt(y) - lt) - (zs(y) - ls)) + others * ((rt - lt) - (rs - ls));
      const T nontarget = group.sum(n, [&](std::int64_t j) {
        return rest(j) ? std::exp(zt(j) - rt) * ((zt(j) - rt) - (zs(j) - rs)) : T(0);
      });
      T* d = all.gradient_row(i);
      group.for_each(n, [&](std::int64_t j) {
        const T p = std::exp(zs(j) - ls);
        const T slope = j == y ? alpha * (p - own)
                               : alpha * (p - others * std::exp(zs(j) - rs)) +
                                     beta * (std::exp(zs(j) - rs) - std::exp(zt(j) - rt));
        d[j] += all.factor * temperature * slope;
      });
      all.finish(group, i, temperature * temperature * (alpha * target + beta * nontarget));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
