#pragma once
// Batch-hard triplet loss on squared distances.

#include <kindred/loss/batch_hard.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_i max(0, max_{y_j = y_i, j != i} d_ij + margin - min_{y_j != y_i} d_ij), d the squared
/// Euclidean distance of the features [B,D] divided by their norm. Active are the rows with a loss.
/// Source: PaddleClas ppcls/loss/trihardloss.py. There the classes are groups of samples_each_class
/// rows whatever the labels say; here the labels say, for any layout. A row without a positive or a
/// negative contributes 0. A zero vector, NaN there, stays zero.
class TriHardLoss : public PairLoss<TriHardLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "TriHardLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::squared_distance;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::none;

  explicit TriHardLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  BatchHardRow<T> row(const Pairs<T>& pairs) const {
    return {pairs, T(config_.margin), false};
  }

 private:
  Config config_;
};

}  // namespace kindred::loss
