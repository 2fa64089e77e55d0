#pragma once
// Pairs on the wrong side of a margin.

#include <kindred/miner/miner.hpp>

namespace kindred::miner {

/// Positive pairs farther apart than pos_margin and negative pairs nearer than neg_margin, by the
/// Euclidean distance of normalised features. Source: pytorch-metric-learning PairMarginMiner.
class PairMarginMiner {
 public:
  struct Config {
    double pos_margin = 0.2;
    double neg_margin = 0.8;
  };

  static constexpr const char* name() { return "PairMarginMiner"; }
  static constexpr Matrix matrix = Matrix::distance;

  explicit PairMarginMiner(const Config& config) : config_(config) {}

  template <class T>
  auto row(const Mining<T>& mining) const {
    return Row<T>{mining, T(config_.pos_margin), T(config_.neg_margin)};
  }

  template <class T>
  struct Row {
    Mining<T> mining;
    T pos_margin, neg_margin;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Mining<T>& m = mining;
      const T* d = m.row(i);
      T* selected = m.selected_row(i);
      group.for_each(m.batch, [&](std::int64_t j) {
        selected[j] =
            T((m.positive(i, j) && d[j] > pos_margin) || (m.negative(i, j) && d[j] < neg_margin));
      });
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::miner
