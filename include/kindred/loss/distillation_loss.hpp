#pragma once
// What the losses between a model and its teacher share. The teacher has no gradient; see
// model/teacher.hpp for how its outputs come here.

#include <cmath>
#include <cstdint>

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// Which output of both models a distillation loss compares: `key` in PaddleClas.
enum class DistillationKey { logits, features };

/// What a row function of a distillation loss works on: row i of both outputs.
template <class T>
struct Comparison {
  std::int64_t rows, columns;
  const T *student, *teacher;  ///< [rows, columns]
  const std::int64_t* labels;  ///< [rows]
  T *losses, *active;          ///< [rows], to be written
  T* gradient;                 ///< [rows, columns]: add factor * d losses_i / d student_ij
  T factor;

  KINDRED_HD const T* student_row(std::int64_t i) const { return student + i * columns; }
  KINDRED_HD const T* teacher_row(std::int64_t i) const { return teacher + i * columns; }
  KINDRED_HD T* gradient_row(std::int64_t i) const { return gradient + i * columns; }
  template <class Group>
  KINDRED_HD void finish(const Group& group, std::int64_t i, T loss) const {
    group.once([&] {
      losses[i] = loss;
      active[i] = T(1);
    });
  }
};

namespace detail {

/// Throws ConfigError without a teacher, ShapeError if it gives another batch, or another width
/// where that must be the student's.
template <class T>
void check_teacher(const char* name, bool logits, View<const T> student, View<const T> teacher,
                   bool same_width = true) {
  if (teacher.data == nullptr)
    throw ConfigError(text(name, ": there are no ", logits ? "logits" : "features",
                           " of a teacher; call set_teacher() of the training session"));
  if (teacher.dim(0) != student.dim(0) || (same_width && teacher.shape != student.shape))
    throw ShapeError(
        text(name, ": the teacher gives ", teacher.shape, ", the student ", student.shape));
}

/// The mean over the rows of row(Comparison), a row function, and weight times its gradient.
template <class Context, class T, class MakeRow>
void mean_comparison(const Run<Context, T>& run, double weight, View<const T> student,
                     View<const T> teacher, View<const std::int64_t> labels, View<T> gradient,
                     View<T> report, MakeRow&& row) {
  const std::int64_t rows = student.dim(0), columns = student.dim(1);
  auto losses = run.make({rows}, "distillation: losses");
  auto active = run.make({rows}, "distillation: active");
  auto factor = run.make({1}, "distillation: factor");
  const Comparison<T> all{rows,         columns,       student.data,
                          teacher.data, labels.data,   losses.data,
                          active.data,  gradient.data, T(weight / static_cast<double>(rows))};
  kernels::pair_rows(run.ctx, rows, columns, row(all));
  kernels::pair_rows(
      run.ctx, 1, rows,
      MeanOfRows<T>{rows, Divisor::rows, losses.data, active.data, T(1), report.data, factor.data});
}

}  // namespace detail

/// The mean of a row function. Derived has config() with weight, key(), name(), and
///   template <class T> auto row(const Comparison<T>&) const;
/// or overrides compare(). Throws ConfigError without a teacher, ShapeError if the teacher's output
/// has another width.
template <class Derived>
class DistillationLoss {
 public:
  static constexpr std::int64_t entries() { return 1; }
  LogitUse logit_use() const {
    return self().key() == DistillationKey::logits ? LogitUse::full : LogitUse::none;
  }
  bool reads(FeatureFrom from) const {
    return self().key() == DistillationKey::features && from == FeatureFrom::features;
  }
  TeacherUse teacher_use() const {
    const bool logits = self().key() == DistillationKey::logits;
    return {.features = !logits, .logits = logits};
  }
  void describe(LossReport* report) const {
    *report = {Derived::name(), self().config().weight, 0, 0};
  }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const bool logits = self().key() == DistillationKey::logits;
    const View<const T> student = logits ? in.logits : in.features;
    const View<const T> teacher = logits ? in.teacher.logits : in.teacher.features;
    detail::check_teacher(Derived::name(), logits, student, teacher, Derived::same_width);
    self().compare(run, student, teacher, in.labels, logits ? gradient.logits : gradient.features,
                   report);
  }

  static constexpr bool same_width = true;

  template <class Context, class T>
  void compare(const Run<Context, T>& run, View<const T> student, View<const T> teacher,
               View<const std::int64_t> labels, View<T> gradient, View<T> report) const {
    detail::mean_comparison(run, self().config().weight, student, teacher, labels, gradient, report,
                            [&](const Comparison<T>& all) { return self().row(all); });
  }

 private:
  const Derived& self() const { return static_cast<const Derived&>(*this); }
};

/// Smooth L1 with delta 1: x^2 / 2 up to 1, |x| - 1/2 beyond; and its derivative.
template <class T>
KINDRED_HD T smooth_l1(T x) {
  const T a = x < T(0) ? -x : x;
  return a < T(1) ? x * x / T(2) : a - T(0.5);
}
template <class T>
KINDRED_HD T smooth_l1_slope(T x) {
  return x > T(1) ? T(1) : x < T(-1) ? T(-1) : x;
}

}  // namespace kindred::loss
