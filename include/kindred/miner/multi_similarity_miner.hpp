#pragma once
// Pairs that are hard beside the hardest of the other kind.

#include <limits>

#include <kindred/miner/miner.hpp>

namespace kindred::miner {

/// Positive pairs with s_ip - epsilon < max_n s_in and negative pairs with s_in + epsilon > min_p
/// s_ip, s the cosine similarity; none in rows without a positive or a negative.
/// Source: Wang et al., "Multi-Similarity Loss with General Pair Weighting", CVPR 2019, section
/// 4.1; pytorch-metric-learning MultiSimilarityMiner.
class MultiSimilarityMiner {
 public:
  struct Config {
    double epsilon = 0.1;
  };

  static constexpr const char* name() { return "MultiSimilarityMiner"; }
  static constexpr Matrix matrix = Matrix::similarity;

  explicit MultiSimilarityMiner(const Config& config) : config_(config) {}

  template <class T>
  auto row(const Mining<T>& mining) const {
    return Row<T>{mining, T(config_.epsilon)};
  }

  template <class T>
  struct Row {
    Mining<T> mining;
    T epsilon;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Mining<T>& m = mining;
      const T* s = m.row(i);
      constexpr T infinity = std::numeric_limits<T>::infinity();
      const T nearest =
          group.max(m.batch, [&](std::int64_t j) { return m.negative(i, j) ? s[j] : -infinity; });
      const T farthest =
          group.min(m.batch, [&](std::int64_t j) { return m.positive(i, j) ? s[j] : infinity; });
      T* selected = m.selected_row(i);
      group.for_each(m.batch, [&](std::int64_t j) {
        selected[j] = T((m.positive(i, j) && s[j] - epsilon < nearest) ||
                        (m.negative(i, j) && s[j] + epsilon > farthest));
      });
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::miner
