#pragma once
// What a margin is to the margin softmax: how the logit of the label and the logits of the other
// classes follow from their cosines, and what a row must know for it. A policy is a small value
// that kernels of the CPU and of the GPU call; a new margin derives from MarginPolicy and writes
// `target`, and `negative` and the prologue only if it needs them.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <kindred/core/error.hpp>
#include <kindred/core/macros.hpp>

namespace kindred {

/// Which gradient of the label's logit with respect to its cosine a margin gives.
enum class GradientMode {
  exact,             ///< the derivative
  straight_through,  ///< 1, as InsightFace since 2022: the margin moves the loss, not the gradient
};

/// "exact" or "straight_through".
inline const char* name_of(GradientMode mode) {
  return mode == GradientMode::exact ? "exact" : "straight_through";
}

/// A function of the cosine and its derivative; V is a scalar or a vector of scalars.
template <class V>
struct MarginValue {
  V value, derivative;
};

/// The label's logit over the scale: its value, its derivative with respect to the cosine, and that
/// with respect to the norm of the feature (0 where the margin does not depend on it).
template <class T>
struct MarginTarget {
  T value, derivative;
  T by_norm = T(0);
};

/// All rows of a batch, before the first pass over the classes.
template <class T>
struct MarginBatch {
  std::int64_t size;
  const T* norms;    ///< |x_i|
  const T* cosines;  ///< c_iy
};

/// One row of it.
template <class T>
struct MarginSample {
  std::int64_t row, label;
  T norm, cosine;
};

/// mask ? yes : no for scalars and, lane by lane, for vectors.
template <class V, class Mask>
KINDRED_HD inline V choose(const Mask& mask, const V& yes, const V& no) {
  if constexpr (std::is_same_v<Mask, bool>)
    return mask ? yes : no;
  else
    return select(mask, yes, no);
}

/// The defaults of a policy: z_ij = scale c_ij for every other class, and nothing to know of a row.
/// A policy adds  MarginTarget<T> target(T c, const T* row) const  and may hide any of these.
template <class T>
struct MarginPolicy {
  T scale;  ///< s > 0

  explicit MarginPolicy(double s) : scale(static_cast<T>(s)) {
    if (!(s > 0)) throw ConfigError(text("margin softmax: scale must be positive, got ", s));
  }

  /// How many values begin_row leaves for target and negative.
  static constexpr int row_values = 0;
  /// Rows of centres that a class has; its cosine is the largest of theirs.
  KINDRED_HD std::int64_t sub_centers() const { return 1; }
  /// Called once in every training forward, by one thread: updates statistics of batches.
  KINDRED_HD void begin_batch(const MarginBatch<T>&) const {}
  /// Writes the row_values of a row.
  KINDRED_HD void begin_row(const MarginSample<T>&, T*) const {}
  /// How often row_pass is called for every row after begin_row: for values that depend on those of
  /// other rows. Value k of row i is values[k stride + i]; of one pass no row may write what
  /// another one reads or writes.
  int row_passes() const { return 0; }
  KINDRED_HD void row_pass(int, const MarginBatch<T>&, std::int64_t, T*, std::int64_t) const {}
  /// z_ij / scale of a class that is not the label; `row` has the row_values.
  template <class V>
  KINDRED_HD MarginValue<V> negative(V c, const V*) const {
    return {c, V(T(1))};
  }
};

/// sin of the angle whose cosine is c; rounding beyond |c| = 1 gives `floor`.
template <class T>
KINDRED_HD inline T margin_sine(T c, T floor) {
  const T square = (T(1) - c) * (T(1) + c);
  // NaN must pass: the comparison is false for it.
  if (square <= floor * floor) return floor;
  return std::sqrt(square);
}

/// Smallest sine that derivatives divide by. At the centre itself d cos(theta + m) / d cos(theta)
/// is infinite, while the gradient of the feature, its product with sin(theta), is not.
template <class T>
inline constexpr T margin_least_sine = T(1e-3);

/// cos(theta + m) where that falls with the angle, c > cos(pi - m), and c - m sin(m) beyond; or,
/// with easy_margin, only for c > 0, and c beyond.
template <class T>
struct AdditiveAngle {
  T margin, cos_m, sin_m;
  bool easy;
  T sine_epsilon;  ///< sin = sqrt(1 - c^2 + sine_epsilon)

  KINDRED_HD AdditiveAngle(T m, bool easy_margin, T epsilon)
      : margin(m),
        cos_m(std::cos(m)),
        sin_m(std::sin(m)),
        easy(easy_margin),
        sine_epsilon(epsilon) {}

  struct Result {
    T value, derivative, by_margin;
  };
  KINDRED_HD Result operator()(T c) const {
    if (!(c > (easy ? T(0) : -cos_m))) {
      if (easy) return {c, T(1), T(0)};
      return {c - margin * sin_m, T(1), -(sin_m + margin * cos_m)};
    }
    T sine = margin_sine(c, T(0));
    if (sine_epsilon > T(0)) sine = std::sqrt(sine * sine + sine_epsilon);
    const T divisor = sine < margin_least_sine<T> ? margin_least_sine<T> : sine;
    return {c * cos_m - sine * sin_m, cos_m + sin_m * c / divisor, -(c * sin_m + sine * cos_m)};
  }
};

/// ArcMargin of PaddleClas: target(c) = cos(theta + m) with the branches of AdditiveAngle. As
/// there, sin = sqrt(1 - c^2 + 1e-6), which bounds the derivative; 1 - c^2 is not let below 0,
/// where rounding would give NaN there. straight_through gives 1 for the derivative.
template <class T>
struct ArcMarginPolicy : MarginPolicy<T> {
  AdditiveAngle<T> angle;
  GradientMode mode;

  /// margin in radians.
  ArcMarginPolicy(double margin, double s, bool easy = false,
                  GradientMode gradient = GradientMode::exact, double sine_epsilon = 1e-6)
      : MarginPolicy<T>(s),
        angle(static_cast<T>(margin), easy, static_cast<T>(sine_epsilon)),
        mode(gradient) {}

  KINDRED_HD MarginTarget<T> target(T c, const T*) const {
    const auto psi = angle(c);
    return {psi.value, mode == GradientMode::exact ? psi.derivative : T(1)};
  }
};

}  // namespace kindred
