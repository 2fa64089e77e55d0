#pragma once
// Batch-hard triplet loss without normalisation.

#include <kindred/loss/batch_hard.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_i max(0, max_{y_j = y_i} d_ij - min_{y_j != y_i} d_ij + margin), d the Euclidean
/// distance of the features [B,D]; the hardest positive may be the row itself. Active are the rows
/// with a loss. Of equal distances the first index counts.
/// Source: PaddleClas ppcls/loss/triplet.py (TripletLoss); Hermans et al., "In Defense of the
/// Triplet Loss for Person Re-Identification", 2017. A row without a negative, infinite there,
/// contributes 0.
class TripletLoss : public PairLoss<TripletLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "TripletLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::distance;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::add_eps;

  explicit TripletLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return false; }

  template <class T>
  BatchHardRow<T> row(const Pairs<T>& pairs) const {
    return {pairs, T(config_.margin), true};
  }

 private:
  Config config_;
};

}  // namespace kindred::loss
