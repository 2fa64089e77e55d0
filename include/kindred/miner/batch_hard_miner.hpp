#pragma once
// The hardest positive and the hardest negative of each row.

#include <kindred/miner/batch_easy_hard_miner.hpp>

namespace kindred::miner {

/// Of each row the pair to its farthest positive and that to its nearest negative, by the Euclidean
/// distance of normalised features; rows without either are left out.
/// Source: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017;
/// pytorch-metric-learning BatchHardMiner.
class BatchHardMiner {
 public:
  struct Config {};

  static constexpr const char* name() { return "BatchHardMiner"; }
  static constexpr Matrix matrix = Matrix::distance;

  explicit BatchHardMiner(const Config& = {}) {}

  template <class T>
  auto row(const Mining<T>& mining) const {
    return detail::EasyHardRow<T>{mining, Strategy::hard, Strategy::hard, T(0), T(4), T(0), T(4)};
  }
};

}  // namespace kindred::miner
