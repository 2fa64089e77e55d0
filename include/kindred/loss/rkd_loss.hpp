#pragma once
// Relational knowledge distillation.

#include <kindred/loss/distillation_loss.hpp>

namespace kindred::loss {

/// L = distance mean_ij h(d_ij / mean d - d'_ij / mean d') + angle mean_ijk h(a_ijk - a'_ijk), h
/// smooth L1: d_ij = max(|x_i - x_j|, 1e-6) the distances of the student's features [B,D], the
/// diagonal included, a_ijk the cosine of the angle at x_i between x_j and x_k (0 where two of them
/// coincide), d' and a' those of the teacher, whose width may differ. All comes from the two
/// matrices of distances: B^3 time and B^2 memory.
/// Source: Park et al., "Relational Knowledge Distillation", CVPR 2019; RKdAngle and RkdDistance of
/// PaddleClas ppcls/loss/rkdloss.py, which builds B^2 D differences and B^3 angles.
class RKDLoss : public DistillationLoss<RKDLoss> {
 public:
  struct Config {
    double weight = 1;
    double distance = 1;
    double angle = 1;
    DistillationKey key = DistillationKey::features;
  };

  static constexpr const char* name() { return "RKDLoss"; }
  static constexpr bool same_width = false;

  explicit RKDLoss(const Config& config, const Scope&) : config_(config) {}
  const Config& config() const { return config_; }
  DistillationKey key() const { return config_.key; }

  template <class Context, class T>
  void compare(const Run<Context, T>& run, View<const T> student, View<const T> teacher,
               View<const std::int64_t>, View<T> gradient, View<T> report) const {
    const std::int64_t batch = student.dim(0);
    const T floor = T(detail::squared_distance_floor);
    auto of_student = run.make({batch, batch}, "RKDLoss.student");
    auto of_teacher = run.make({batch, batch}, "RKDLoss.teacher");
    auto coefficients = run.make({batch, batch}, "RKDLoss.coefficients");
    auto sums = run.make({batch, 2}, "RKDLoss.sums");
    auto scalars = run.make({3}, "RKDLoss.scalars");
    kernels::squared_distances(run.ctx, student, of_student, floor);
    kernels::squared_distances(run.ctx, teacher, of_teacher, floor);
    const Relations<T> all{batch,
                           of_student.data,
                           of_teacher.data,
                           sums.data,
                           scalars.data,
                           coefficients.data,
                           report.data,
                           T(config_.distance),
                           T(config_.angle),
                           T(config_.weight),
                           floor};
    kernels::pair_rows(run.ctx, batch, batch, DistanceSums<T>{all});
    kernels::pair_rows(run.ctx, 1, batch, Means<T>{all});
    kernels::pair_rows(run.ctx, batch, batch, Losses<T>{all});
    kernels::pair_rows(run.ctx, 1, batch, Total<T>{all});
    kernels::pair_rows(run.ctx, batch, batch, Coefficients<T>{all});
    kernels::pairwise_backward(run.ctx, coefficients, student, gradient);
  }

  template <class T>
  struct Relations {
    std::int64_t batch;
    const T *student, *teacher;  // squared distances [B,B]
    T* sums;                     // [B,2], of rows
    T* scalars;                  // mean distances of both, and sum of slope * distance / mean
    T* coefficients;             // of the squared distances [B,B]
    T* report;
    T distance, angle, weight, floor;

    KINDRED_HD static constexpr double epsilon() { return 1e-12; }
    KINDRED_HD T relative(const T* d2, int which, std::int64_t at) const {
      return std::sqrt(d2[at]) / (scalars[which] + T(epsilon()));
    }
    /// Student's relative distance minus the teacher's.
    KINDRED_HD T gap(std::int64_t at) const {
      return relative(student, 0, at) - relative(teacher, 1, at);
    }
    /// 1 / (|x_i - x_j| |x_i - x_k|), 0 where there is no angle.
    KINDRED_HD T arms(const T* d2, std::int64_t i, std::int64_t j, std::int64_t k) const {
      const T a = d2[i * batch + j], b = d2[i * batch + k];
      return i == j || i == k || a <= floor || b <= floor ? T(0) : T(1) / std::sqrt(a * b);
    }
    KINDRED_HD T cosine(const T* d2, std::int64_t i, std::int64_t j, std::int64_t k) const {
      const T opposite = j == k ? T(0) : d2[j * batch + k];
      return (d2[i * batch + j] + d2[i * batch + k] - opposite) / T(2) * arms(d2, i, j, k);
    }
    KINDRED_HD T turn(std::int64_t i, std::int64_t j, std::int64_t k) const {
      return cosine(student, i, j, k) - cosine(teacher, i, j, k);
    }
  };

  template <class T>
  struct DistanceSums {
    Relations<T> all;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const std::int64_t b = all.batch;
      const T s = group.sum(b, [&](std::int64_t j) { return std::sqrt(all.student[i * b + j]); });
      const T t = group.sum(b, [&](std::int64_t j) { return std::sqrt(all.teacher[i * b + j]); });
      group.once([&] {
        all.sums[2 * i] = s;
        all.sums[2 * i + 1] = t;
      });
    }
  };
  template <class T>
  struct Means {
    Relations<T> all;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      const std::int64_t b = all.batch;
      const T s = group.sum(b, [&](std::int64_t i) { return all.sums[2 * i]; });
      const T t = group.sum(b, [&](std::int64_t i) { return all.sums[2 * i + 1]; });
      group.once([&] {
        all.scalars[0] = s / (T(b) * T(b));
        all.scalars[1] = t / (T(b) * T(b));
      });
    }
  };
  /// The loss of a row, and its sum of slope * relative distance.
  template <class T>
  struct Losses {
    Relations<T> all;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const std::int64_t b = all.batch;
      const T square = T(b) * T(b);
      const T far =
          group.sum(b, [&](std::int64_t j) { return smooth_l1(all.gap(i * b + j)); }) / square;
      T turned = T(0);
      for (std::int64_t j = 0; j < b; ++j)
        turned += group.sum(b, [&](std::int64_t k) { return smooth_l1(all.turn(i, j, k)); });
      const T weighted = group.sum(b, [&](std::int64_t j) {
        const std::int64_t at = i * b + j;
        return smooth_l1_slope(all.gap(at)) * all.relative(all.student, 0, at);
      });
      group.once([&] {
        all.sums[2 * i] = all.distance * far + all.angle * turned / (square * T(b));
        all.sums[2 * i + 1] = weighted / square;
      });
    }
  };
  template <class T>
  struct Total {
    Relations<T> all;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      const T loss = group.sum(all.batch, [&](std::int64_t i) { return all.sums[2 * i]; });
      const T slope = group.sum(all.batch, [&](std::int64_t i) { return all.sums[2 * i + 1]; });
      group.once([&] {
        all.report[0] = loss;
        all.report[1] = T(all.batch);
        all.scalars[2] = slope;
      });
    }
  };
  /// d L / d (squared distance of i and j).
  template <class T>
  struct Coefficients {
    Relations<T> all;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const std::int64_t b = all.batch;
      const T square = T(b) * T(b);
      for (std::int64_t j = 0; j < b; ++j) {
        const std::int64_t at = i * b + j;
        const T d2 = all.student[at];
        const bool apart = i != j && d2 > all.floor;
        // As an arm of the angles at i, twice; and opposite to the angles at every k.
        const T turned = group.sum(b, [&](std::int64_t k) {
          if (!apart) return T(0);
          const T at_i = smooth_l1_slope(all.turn(i, j, k));
          const T arm = all.arms(all.student, i, j, k) - all.cosine(all.student, i, j, k) / d2;
          const T at_k = smooth_l1_slope(all.turn(k, i, j));
          return at_i * arm - at_k * all.arms(all.student, k, i, j) / T(2);
        });
        group.once([&] {
          const T far = (smooth_l1_slope(all.gap(at)) / square - all.scalars[2] / square) /
                        (all.scalars[0] + T(all.epsilon())) / (T(2) * std::sqrt(d2));
          all.coefficients[at] =
              apart ? all.weight * (all.distance * far + all.angle * turned / (square * T(b)))
                    : T(0);
        });
      }
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
