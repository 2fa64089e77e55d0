#pragma once
// What the losses on all pairs of a batch share. Such a loss is a row function: it sees row i of a
// matrix M of similarities or distances and writes the loss of the row and its derivative with
// respect to M_ij. Normalisation, matrix, mean and the way back to the features are here.

#include <cmath>
#include <cstdint>
#include <limits>

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/l2_normalize.hpp>
#include <kindred/kernels/pair_rows.hpp>
#include <kindred/kernels/pairwise.hpp>
#include <kindred/loss/loss.hpp>

namespace kindred::loss {

/// The matrix M [B,B] that the rows of a pair loss see.
enum class PairMatrix {
  similarity,        ///< x_i . x_j
  squared_distance,  ///< max(|x_i - x_j|^2, 1e-12); where it is clipped the gradient is 0
  distance,          ///< its square root
};

/// What the sum of the row losses is divided by.
enum class Divisor {
  rows,    ///< the size of the batch
  active,  ///< the sum of the active counts; without any the loss is 0
};

/// What a row function works on, all in the memory of the device.
template <class T>
struct Pairs {
  std::int64_t batch;          ///< columns of the matrix; B, or the size of a memory
  const std::int64_t* labels;  ///< of the columns
  const T* matrix;             ///< M [B,B]
  T* coefficients;             ///< d losses_i / d M_ij [B,B], every element to be written
  T* losses;                   ///< [B]
  T* active;                   ///< [B]: what of the row contributed, see Divisor
  /// [B,B] what a miner chose, see miner/miner.hpp; nullptr: all pairs.
  const T* selected = nullptr;
  bool counts_triplets = false;  ///< whether `selected` counts the chosen triplets of a pair
  /// [B] the column that is the row itself; nullptr: the i-th. Not chosen where it is given.
  const std::int64_t* own = nullptr;

  KINDRED_HD const T* row(std::int64_t i) const { return matrix + i * batch; }
  KINDRED_HD T* coefficient_row(std::int64_t i) const { return coefficients + i * batch; }
  KINDRED_HD bool same(std::int64_t i, std::int64_t j) const {
    return labels[own == nullptr ? i : own[i]] == labels[j];
  }
  KINDRED_HD bool chosen(std::int64_t i, std::int64_t j) const {
    return selected == nullptr || selected[i * batch + j] != T(0);
  }
  /// Another row of the same label, that is chosen.
  KINDRED_HD bool positive(std::int64_t i, std::int64_t j) const {
    return (own != nullptr || i != j) && same(i, j) && chosen(i, j);
  }
  KINDRED_HD bool negative(std::int64_t i, std::int64_t j) const {
    return !same(i, j) && chosen(i, j);
  }

  /// The end of a row without any loss: its outputs are 0.
  template <class Group>
  KINDRED_HD void nothing(const Group& group, std::int64_t i) const {
    T* c = coefficient_row(i);
    group.for_each(batch, [&](std::int64_t j) { c[j] = T(0); });
    finish(group, i, T(0), T(0));
  }
  template <class Group>
  KINDRED_HD void finish(const Group& group, std::int64_t i, T loss, T count) const {
    group.once([&] {
      losses[i] = loss;
      active[i] = count;
    });
  }
};

namespace detail {

inline constexpr double squared_distance_floor = 1e-12;  // Paddle's

template <class T>
struct SquareRootRow {
  std::int64_t columns;
  T* matrix;
  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
    T* m = matrix + i * columns;
    group.for_each(columns, [&](std::int64_t j) { m[j] = std::sqrt(m[j]); });
  }
};

/// Row losses to one number, and the factor of their gradients.
template <class T>
struct MeanOfRows {
  std::int64_t rows;
  Divisor divisor;
  const T *losses, *active;
  T weight;
  T *report, *factor;
  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t) const {
    const double sum = group.sum(rows, [&](std::int64_t i) { return double(losses[i]); });
    const double count = group.sum(rows, [&](std::int64_t i) { return double(active[i]); });
    group.once([&] {
      const double by = divisor == Divisor::rows ? double(rows) : count;
      report[0] = by > 0 ? T(sum / by) : T(sum);
      report[1] = T(count);
      *factor = by > 0 ? T(double(weight) / by) : T(0);
    });
  }
};

/// From d losses_i / d M_ij to weight d loss / d similarity, or / d squared distance.
template <class T>
struct ScaleRow {
  std::int64_t columns;
  PairMatrix kind;
  const T *matrix, *factor;
  T *coefficients, floor;
  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
    T* c = coefficients + i * columns;
    const T* m = matrix + i * columns;
    group.for_each(columns, [&](std::int64_t j) {
      T scale = *factor;
      if (kind == PairMatrix::squared_distance && m[j] <= floor) scale = T(0);
      if (kind == PairMatrix::distance)
        scale = m[j] <= std::sqrt(floor) ? T(0) : scale / (T(2) * m[j]);
      c[j] *= scale;
    });
  }
};

/// Calls f(unit, dunit) on the normalised rows and adds the gradient to dx; or f(x, dx).
template <class Context, class T, class F>
void on_normalized(const Run<Context, T>& run, bool normalize, NormRule rule, View<const T> x,
                   View<T> dx, F&& f) {
  if (!normalize) {
    f(x, dx);
    return;
  }
  const T epsilon = T(1e-12);
  auto norm = run.make({x.dim(0)}, "pair loss: norm");
  auto unit = run.make(x.shape, "pair loss: unit");
  kernels::l2_normalize_forward(run.ctx, rule, epsilon, x, norm, unit);
  auto dunit = run.make(x.shape, "pair loss: dunit");
  kernels::fill(run.ctx, T(0), dunit);
  f(View<const T>(unit), View<T>(dunit));
  kernels::l2_normalize_backward(run.ctx, rule, epsilon, dunit, unit, norm, dunit);
  kernels::scale_add(run.ctx, T(1), dunit, dx);
}

/// The row function of a loss; one with parameters of its own takes them from the run.
template <class Context, class T, class Loss>
auto row_of(const Run<Context, T>& run, const Loss& loss, const Pairs<T>& pairs) {
  if constexpr (requires { loss.row(run, pairs); })
    return loss.row(run, pairs);
  else
    return loss.row(pairs);
}

/// Adds the gradient of a loss's own parameters, if it has any: `pairs` has the coefficients, of
/// the batch's rows in number, and `factor` what they will be multiplied by.
template <class Context, class T, class Loss>
void add_own_gradient(const Run<Context, T>& run, const Loss& loss, const Pairs<T>& pairs,
                      std::int64_t rows, const T* factor) {
  if constexpr (requires { loss.own_gradient(run, pairs, rows, factor); })
    loss.own_gradient(run, pairs, rows, factor);
}

/// fill(Pairs) computes the row losses and coefficients; their mean goes to the report and its
/// gradient is added to dx. after(Pairs, factor) may use the coefficients before they are scaled.
/// Throws ShapeError for an empty batch.
template <class Context, class T, class Fill, class After>
void on_pairs(const Run<Context, T>& run, PairMatrix kind, Divisor divisor, double weight,
              View<const T> x, View<const std::int64_t> labels, View<T> dx, View<T> report,
              Fill&& fill, After&& after) {
  const std::int64_t batch = x.dim(0);
  if (batch == 0) throw ShapeError("a pair loss was given an empty batch");
  check_shape("pair loss: labels", labels.shape, {batch});
  const T floor = T(squared_distance_floor);
  auto matrix = run.make({batch, batch}, "pair loss: matrix");
  auto coefficients = run.make({batch, batch}, "pair loss: coefficients");
  auto losses = run.make({batch}, "pair loss: losses");
  auto active = run.make({batch}, "pair loss: active");
  auto factor = run.make({1}, "pair loss: factor");
  if (kind == PairMatrix::similarity)
    kernels::gram_matrix(run.ctx, x, matrix);
  else
    kernels::squared_distances(run.ctx, x, matrix, floor);
  if (kind == PairMatrix::distance)
    kernels::pair_rows(run.ctx, batch, batch, SquareRootRow<T>{batch, matrix.data});
  const Pairs<T> pairs{batch,       labels.data, matrix.data, coefficients.data,
                       losses.data, active.data};
  fill(pairs);
  kernels::pair_rows(
      run.ctx, 1, batch,
      MeanOfRows<T>{batch, divisor, losses.data, active.data, T(weight), report.data, factor.data});
  after(pairs, static_cast<const T*>(factor.data));
  kernels::pair_rows(run.ctx, batch, batch,
                     ScaleRow<T>{batch, kind, matrix.data, factor.data, coefficients.data, floor});
  if (kind == PairMatrix::similarity)
    kernels::gram_matrix_backward(run.ctx, coefficients, x, dx);
  else
    kernels::pairwise_backward(run.ctx, coefficients, x, dx);
}
template <class Context, class T, class Fill>
void on_pairs(const Run<Context, T>& run, PairMatrix kind, Divisor divisor, double weight,
              View<const T> x, View<const std::int64_t> labels, View<T> dx, View<T> report,
              Fill&& fill) {
  on_pairs(run, kind, divisor, weight, x, labels, dx, report, fill,
           [](const Pairs<T>&, const T*) {});
}
/// The same for a PairLoss, with the gradient of its own parameters.
template <class Context, class T, class Loss, class Fill>
void on_pairs(const Run<Context, T>& run, const Loss& loss, View<const T> x,
              View<const std::int64_t> labels, View<T> dx, View<T> report, Fill&& fill) {
  on_pairs(run, Loss::matrix, Loss::divisor, loss.config().weight, x, labels, dx, report, fill,
           [&](const Pairs<T>& pairs, const T* factor) {
             add_own_gradient(run, loss, pairs, x.dim(0), factor);
           });
}

}  // namespace detail

/// log of the sum of exp(f(j)) over the j with keep(j), and of 1 more if `add_one`; -infinity for
/// an empty sum.
template <class Group, class Keep, class F>
KINDRED_HD auto log_sum_exp(const Group& group, std::int64_t n, bool add_one, Keep&& keep, F&& f) {
  using V = decltype(f(n));
  constexpr V infinity = std::numeric_limits<V>::infinity();
  V shift = group.max(n, [&](std::int64_t j) { return keep(j) ? f(j) : -infinity; });
  if (add_one && shift < V(0)) shift = V(0);
  if (shift == -infinity) return shift;
  const V sum =
      group.sum(n, [&](std::int64_t j) { return keep(j) ? std::exp(f(j) - shift) : V(0); });
  return shift + std::log(add_one ? sum + std::exp(-shift) : sum);
}

/// log(1 + e^x).
template <class T>
KINDRED_HD T softplus(T x) {
  return x > T(0) ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}
/// 1 / (1 + e^-x).
template <class T>
KINDRED_HD T sigmoid(T x) {
  return x > T(0) ? T(1) / (T(1) + std::exp(-x)) : std::exp(x) / (T(1) + std::exp(x));
}

/// A loss on features alone. Derived has config() with weight and feature_from, and name().
template <class Derived>
class FeatureLoss {
 public:
  static constexpr std::int64_t entries() { return 1; }
  LogitUse logit_use() const { return LogitUse::none; }
  bool reads(FeatureFrom from) const { return self().config().feature_from == from; }
  void describe(LossReport* report) const {
    *report = {Derived::name(), self().config().weight, 0, 0};
  }

 protected:
  const Derived& self() const { return static_cast<const Derived&>(*this); }
};

/// A loss that is a row function of one matrix of pairs. Derived has, besides,
///   static constexpr PairMatrix matrix; static constexpr Divisor divisor;
///   static constexpr NormRule norm; bool normalizes() const;
///   static constexpr bool mineable = true, if the row sees pairs through Pairs::positive, negative
///   and chosen alone, so that a miner can choose among them (loss/mined.hpp);
///   template <class T> auto row(const Pairs<T>&) const, the row function; or, if it takes several
///   passes, template <class Context, class T> void fill(const Run<Context, T>&, const Pairs<T>&).
/// One with parameters has row(run, pairs) instead, and own_gradient: see MarginLoss.
template <class Derived>
class PairLoss : public FeatureLoss<Derived> {
 public:
  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const Derived& loss = this->self();
    const FeatureFrom from = loss.config().feature_from;
    detail::on_normalized(run, loss.normalizes(), Derived::norm, in.at(from), gradient.at(from),
                          [&](View<const T> x, View<T> dx) {
                            detail::on_pairs(
                                run, loss, x, in.labels, dx, report, [&](const Pairs<T>& pairs) {
                                  if constexpr (requires { loss.fill(run, pairs); })
                                    loss.fill(run, pairs);
                                  else
                                    kernels::pair_rows(run.ctx, pairs.batch, pairs.batch,
                                                       detail::row_of(run, loss, pairs));
                                });
                          });
  }
};

}  // namespace kindred::loss
