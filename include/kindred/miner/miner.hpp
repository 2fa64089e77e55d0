#pragma once
// What every miner is: a choice among the pairs or triplets of a batch that a loss may see, made on
// the features without a gradient. A miner is a row function of its own matrix of pairs, like a
// pair loss; loss/mined.hpp puts one before a loss.
//
// A miner has a Config, a constructor (const Config&) that checks it, and
//   static constexpr const char* name(); static constexpr Matrix matrix;
//   template <class T> auto row(const Mining<T>&) const;      what it writes is in Mining::selected
// or, if what it chooses are triplets (i, positive, negative) that pairs alone cannot describe,
//   template <class T> auto triplet(const Mining<T>&) const;  bool operator()(i, positive,
//   negative)

#include <cmath>
#include <cstdint>

#include <kindred/core/random.hpp>
#include <kindred/core/run.hpp>
#include <kindred/kernels/l2_normalize.hpp>
#include <kindred/kernels/pair_rows.hpp>
#include <kindred/kernels/pairwise.hpp>

namespace kindred::miner {

/// The matrix [B,B] that a miner chooses by, of the features divided by max(norm, 1e-12).
enum class Matrix { similarity, distance, squared_distance };

/// What a miner works on, all in the memory of the device.
template <class T>
struct Mining {
  std::int64_t batch = 0, dim = 0;
  const std::int64_t* labels = nullptr;  ///< [B]
  const T* matrix = nullptr;             ///< [B,B]
  /// [B,B], every element to be written: how often the pair (i,j) counts; 0 where it is not chosen.
  T* selected = nullptr;
  RandomKey random;

  KINDRED_HD const T* row(std::int64_t i) const { return matrix + i * batch; }
  KINDRED_HD T* selected_row(std::int64_t i) const { return selected + i * batch; }
  KINDRED_HD bool positive(std::int64_t i, std::int64_t j) const {
    return i != j && labels[i] == labels[j];
  }
  KINDRED_HD bool negative(std::int64_t i, std::int64_t j) const { return labels[i] != labels[j]; }
};

namespace detail {

/// The pairs of the chosen triplets, each as often as it is in one.
template <class T, class Triplet>
struct PairsOfTriplets {
  Mining<T> mining;
  Triplet chosen;
  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
    const Mining<T>& m = mining;
    T* selected = m.selected_row(i);
    group.for_each(m.batch, [&](std::int64_t j) {
      std::int64_t count = 0;
      const bool positive = m.positive(i, j), negative = m.negative(i, j);
      for (std::int64_t k = 0; k < m.batch; ++k)
        count += (positive && m.negative(i, k) && chosen(i, j, k)) ||
                 (negative && m.positive(i, k) && chosen(i, k, j));
      selected[j] = T(count);
    });
  }
};

template <class T>
struct RootRow {
  std::int64_t columns;
  T* matrix;
  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
    T* m = matrix + i * columns;
    group.for_each(columns, [&](std::int64_t j) { m[j] = std::sqrt(m[j]); });
  }
};

}  // namespace detail

/// Whether a miner chooses triplets rather than pairs.
template <class Miner, class T>
concept MinesTriplets = requires(const Miner& m, const Mining<T>& mining) {
  m.triplet(mining);
};

/// A miner that is chosen when the program runs, any::Miner: it writes pairs alone.
template <class Miner, class Context, class T>
concept ChoosesPairs = requires(const Miner& m, const Run<Context, T>& run, View<const T> x,
                                View<const std::int64_t> labels, View<T> selected) {
  m.choose(run, x, labels, selected);
};

/// Chooses among the rows x [B,D], writes the pairs to `selected` [B,B] and calls f(Mining).
template <class Miner, class Context, class T, class F>
void mine_into(const Run<Context, T>& run, const Miner& miner, View<const T> x,
               View<const std::int64_t> labels, View<T> selected, F&& f) {
  const std::int64_t batch = x.dim(0);
  check_shape("miner: labels", labels.shape, {batch});
  auto norm = run.make({batch}, "miner: norm");
  auto unit = run.make(x.shape, "miner: unit");
  kernels::l2_normalize_forward(run.ctx, NormRule::max_eps, T(1e-12), x, norm, unit);
  auto matrix = run.make({batch, batch}, "miner: matrix");
  if (Miner::matrix == Matrix::similarity)
    kernels::gram_matrix(run.ctx, unit, matrix);
  else
    kernels::squared_distances(run.ctx, unit, matrix);
  if (Miner::matrix == Matrix::distance)
    kernels::pair_rows(run.ctx, batch, batch, detail::RootRow<T>{batch, matrix.data});
  const Mining<T> mining{
      batch,       x.dim(1),      labels.data,
      matrix.data, selected.data, {run.random.seed, stream_of(Miner::name()), run.random.step}};
  if constexpr (MinesTriplets<Miner, T>)
    kernels::pair_rows(run.ctx, batch, batch,
                       detail::PairsOfTriplets{mining, miner.triplet(mining)});
  else
    kernels::pair_rows(run.ctx, batch, batch, miner.row(mining));
  f(mining);
}

/// Chooses among the rows x [B,D] and calls f(Mining) while the choice lives.
template <class Miner, class Context, class T, class F>
void mine(const Run<Context, T>& run, const Miner& miner, View<const T> x,
          View<const std::int64_t> labels, F&& f) {
  const std::int64_t batch = x.dim(0);
  auto selected = run.make({batch, batch}, "miner: selected");
  if constexpr (ChoosesPairs<Miner, Context, T>) {
    miner.choose(run, x, labels, View<T>(selected));
    f(Mining<T>{batch, x.dim(1), labels.data, nullptr, selected.data, {}});
  } else {
    mine_into(run, miner, x, labels, View<T>(selected), f);
  }
}

}  // namespace kindred::miner
