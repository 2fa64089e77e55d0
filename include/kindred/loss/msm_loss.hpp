#pragma once
// Margin sample mining: one triplet for the whole batch.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = max(0, max_{positive pairs} d + margin - min_{negative pairs} d), d the squared Euclidean
/// distance of the features [B,D] divided by their norm; the two pairs may lie anywhere in the
/// batch. Active is 1 or 0. Of equal pairs the first in row order counts.
/// Source: PaddleClas ppcls/loss/msmloss.py (Xiao et al., "Margin Sample Mining Loss", 2017). There
/// the classes are groups of samples_each_class rows, here the labels say. A batch without a
/// positive or a negative pair gives 0. A zero vector, NaN there, stays zero.
class MSMLoss : public PairLoss<MSMLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "MSMLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::squared_distance;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::none;

  explicit MSMLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class Context, class T>
  void fill(const Run<Context, T>& run, const Pairs<T>& pairs) const {
    const std::int64_t batch = pairs.batch;
    auto farthest = run.make({batch}, "MSMLoss.farthest");
    auto nearest = run.make({batch}, "MSMLoss.nearest");
    kernels::pair_rows(run.ctx, batch, batch, Extremes<T>{pairs, farthest.data, nearest.data});
    kernels::pair_rows(run.ctx, batch, batch,
                       Row<T>{pairs, farthest.data, nearest.data, T(config_.margin)});
  }

  /// The largest positive and the smallest negative of row i, infinite for none.
  template <class T>
  struct Extremes {
    Pairs<T> pairs;
    T *farthest, *nearest;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      constexpr T infinity = std::numeric_limits<T>::infinity();
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const T most =
          group.max(p.batch, [&](std::int64_t j) { return p.positive(i, j) ? m[j] : -infinity; });
      const T least =
          group.min(p.batch, [&](std::int64_t j) { return p.negative(i, j) ? m[j] : infinity; });
      group.once([&] {
        farthest[i] = most;
        nearest[i] = least;
      });
    }
  };

  /// Every row finds the two rows that hold the pairs; those write them.
  template <class T>
  struct Row {
    Pairs<T> pairs;
    const T *farthest, *nearest;
    T margin;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      constexpr T infinity = std::numeric_limits<T>::infinity();
      const Pairs<T>& p = pairs;
      const std::int64_t far = group.argmax(
          p.batch, [&](std::int64_t j) { return farthest[j] != -infinity; },
          [&](std::int64_t j) { return farthest[j]; });
      const std::int64_t near = group.argmin(
          p.batch, [&](std::int64_t j) { return nearest[j] != infinity; },
          [&](std::int64_t j) { return nearest[j]; });
      if (far < 0 || near < 0) return p.nothing(group, i);
      const T hinge = farthest[far] + margin - nearest[near];
      if (hinge <= T(0)) return p.nothing(group, i);
      const T* m = p.row(i);
      const auto value = [&](std::int64_t j) { return m[j]; };
      const std::int64_t ap = group.argmax(
          p.batch, [&](std::int64_t j) { return i == far && p.positive(i, j); }, value);
      const std::int64_t an = group.argmin(
          p.batch, [&](std::int64_t j) { return i == near && p.negative(i, j); }, value);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = j == ap ? T(1) : j == an ? T(-1) : T(0);
      });
      p.finish(group, i, i == far ? hinge : T(0), i == far ? T(1) : T(0));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
