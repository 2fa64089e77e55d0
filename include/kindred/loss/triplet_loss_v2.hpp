#pragma once
// Batch-hard triplet loss.

#include <kindred/loss/batch_hard.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_i max(0, max_{y_j = y_i} d_ij - min_{y_j != y_i} d_ij + margin), d the Euclidean
/// distance of the features [B,D], divided by (norm + 1e-12) first if `normalize_feature`. The
/// hardest positive may be the row itself. Active are the rows with a loss. Of equal distances the
/// first index counts. Source: PaddleClas ppcls/loss/triplet.py (TripletLossV2). It demands the
/// same number of positives in every row; here any batch is accepted, and a row without a negative
/// contributes 0.
class TripletLossV2 : public PairLoss<TripletLossV2> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.5;
    bool normalize_feature = true;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "TripletLossV2"; }
  static constexpr PairMatrix matrix = PairMatrix::distance;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::add_eps;

  explicit TripletLossV2(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return config_.normalize_feature; }

  template <class T>
  BatchHardRow<T> row(const Pairs<T>& pairs) const {
    return {pairs, T(config_.margin), true};
  }

 private:
  Config config_;
};

}  // namespace kindred::loss
