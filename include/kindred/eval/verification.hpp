#pragma once
// Verification: are two images of the same identity? A pair is accepted if its score, higher for
// more alike, is at least a threshold. TAR is the share of genuine pairs accepted, FAR that of
// impostor pairs; in the words of ISO/IEC 19795, FNMR = 1 - TAR and FMR = FAR.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/eval/similarity.hpp>

namespace kindred::eval {

/// Scores of pairs.
struct VerificationPairs {
  std::vector<float> scores;
  std::vector<bool> genuine;
};

/// One point for every different score, from the highest down; pairs of equal score come together.
/// The first point accepts nothing, at the threshold infinity.
struct RocCurve {
  std::vector<double> thresholds, tar, far;
  std::int64_t genuine = 0, impostors = 0;  ///< pairs
  double auc = 0;                           ///< area under tar over far, by trapezoids
  /// Where FNMR and FAR cross, on the straight line between two points.
  double equal_error_rate = 0;
};

/// The best point of a curve with FAR at most `far`.
struct OperatingPoint {
  double far_limit = 0;
  double threshold = 0, tar = 0, far = 0;
  double fnmr() const { return 1 - tar; }
  std::int64_t impostors_accepted = 0, impostors = 0, genuine = 0;
  /// Whether there are at least 10 / far_limit impostor pairs; below that the point is mostly luck.
  bool supported() const { return static_cast<double>(impostors) * far_limit >= 10; }
};

namespace detail {

inline void check_pairs(const char* place, std::span<const float> scores,
                        const std::vector<bool>& genuine) {
  if (scores.size() != genuine.size())
    throw ShapeError(text(place, ": ", scores.size(), " scores, but ", genuine.size(), " pairs"));
  if (scores.empty()) throw ShapeError(text(place, ": there are no pairs"));
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (!std::isfinite(scores[i]))
      throw NumericError(text(place, ": the score of pair ", i, " is not finite"));
}

}  // namespace detail

/// The whole curve. Throws ShapeError, NumericError (a score that is not finite, with its index),
/// DataError unless there are genuine and impostor pairs.
inline RocCurve roc_curve(const VerificationPairs& pairs) {
  detail::check_pairs("roc_curve", pairs.scores, pairs.genuine);
  RocCurve roc;
  roc.genuine = std::count(pairs.genuine.begin(), pairs.genuine.end(), true);
  roc.impostors = static_cast<std::int64_t>(pairs.genuine.size()) - roc.genuine;
  if (roc.genuine == 0 || roc.impostors == 0)
    throw DataError(text("verification needs pairs of both kinds; there are ", roc.genuine,
                         " genuine and ", roc.impostors, " impostor pairs"));
  std::vector<std::size_t> order(pairs.scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return pairs.scores[a] > pairs.scores[b]; });
  const auto add = [&](double threshold, std::int64_t accepted, std::int64_t false_accepted) {
    roc.thresholds.push_back(threshold);
    roc.tar.push_back(static_cast<double>(accepted) / static_cast<double>(roc.genuine));
    roc.far.push_back(static_cast<double>(false_accepted) / static_cast<double>(roc.impostors));
  };
  add(std::numeric_limits<double>::infinity(), 0, 0);
  std::int64_t accepted = 0, false_accepted = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    (pairs.genuine[order[i]] ? accepted : false_accepted) += 1;
    const float score = pairs.scores[order[i]];
    if (i + 1 < order.size() && pairs.scores[order[i + 1]] == score) continue;
    add(static_cast<double>(score), accepted, false_accepted);
  }
  bool crossed = false;
  for (std::size_t i = 1; i < roc.tar.size(); ++i) {
    const double step = roc.far[i] - roc.far[i - 1], rise = roc.tar[i] - roc.tar[i - 1];
    roc.auc += step * (roc.tar[i] + roc.tar[i - 1]) / 2;
    if (crossed || roc.far[i] < 1 - roc.tar[i]) continue;
    crossed = true;  // far + t step = 1 - tar - t rise
    const double t = (1 - roc.tar[i - 1] - roc.far[i - 1]) / (step + rise);
    roc.equal_error_rate = roc.far[i - 1] + t * step;
  }
  return roc;
}

/// TAR at the lowest threshold whose FAR is at most far_limit; FNMR at FMR is the same point's
/// fnmr(). No interpolation: the point is one that the data has. (FastReID's "TPR@FPR" takes
/// genuine for impostor pairs.) Throws ConfigError unless far_limit is in [0, 1].
inline OperatingPoint tar_at_far(const RocCurve& roc, double far_limit) {
  if (!(far_limit >= 0 && far_limit <= 1))
    throw ConfigError(text("tar_at_far: expected a rate in [0, 1], got ", far_limit));
  const auto beyond = std::upper_bound(roc.far.begin(), roc.far.end(), far_limit);
  const auto i = static_cast<std::size_t>(beyond - roc.far.begin()) - 1;
  return {far_limit,
          roc.thresholds[i],
          roc.tar[i],
          roc.far[i],
          std::llround(roc.far[i] * static_cast<double>(roc.impostors)),
          roc.impostors,
          roc.genuine};
}

/// Accuracy of the decision "distance < threshold" with thresholds from the other folds.
struct FoldAccuracy {
  double mean = 0, deviation = 0;  ///< over the folds; the deviation of a population, as NumPy's
  std::vector<double> accuracy, thresholds;
  std::int64_t pairs = 0, genuine = 0;
};

/// The protocol of LFW: consecutive folds, not shuffled (the first ones take the remainder); for
/// each the threshold of 0, 0.01, ... 3.99 on the squared Euclidean distance of normalised features
/// that is best on all other folds, the first of equal ones. A pair is called genuine if its
/// distance is below. Source: the evaluation of PaddleClas' AdaFace and of InsightFace.
/// Throws ShapeError, NumericError, ConfigError unless 2 <= folds <= pairs.
inline FoldAccuracy fold_accuracy(std::span<const float> squared_distances,
                                  const std::vector<bool>& genuine, std::int64_t folds = 10) {
  detail::check_pairs("fold_accuracy", squared_distances, genuine);
  const auto count = static_cast<std::int64_t>(genuine.size());
  if (folds < 2 || folds > count)
    throw ConfigError(
        text("fold_accuracy: expected 2 to ", count, " folds (the pairs), got ", folds));
  constexpr std::size_t thresholds = 400;
  const auto threshold = [](std::size_t t) { return static_cast<double>(t) * 0.01; };
  // right[f][t]: correct decisions in fold f at threshold t.
  std::vector<std::vector<std::int64_t>> right(static_cast<std::size_t>(folds),
                                               std::vector<std::int64_t>(thresholds));
  std::vector<std::int64_t> sizes, all(thresholds);
  std::int64_t begin = 0;
  for (std::int64_t f = 0; f < folds; ++f) {
    const std::int64_t size = count / folds + (f < count % folds ? 1 : 0);
    for (std::int64_t i = begin; i < begin + size; ++i)
      for (std::size_t t = 0; t < thresholds; ++t) {
        const auto at = static_cast<std::size_t>(i);
        const bool accepted = static_cast<double>(squared_distances[at]) < threshold(t);
        right[static_cast<std::size_t>(f)][t] += accepted == genuine[at];
      }
    for (std::size_t t = 0; t < thresholds; ++t) all[t] += right[static_cast<std::size_t>(f)][t];
    sizes.push_back(size);
    begin += size;
  }
  FoldAccuracy result;
  result.pairs = count;
  result.genuine = std::count(genuine.begin(), genuine.end(), true);
  for (std::size_t f = 0; f < right.size(); ++f) {
    std::size_t best = 0;
    for (std::size_t t = 1; t < thresholds; ++t)
      if (all[t] - right[f][t] > all[best] - right[f][best]) best = t;
    result.thresholds.push_back(threshold(best));
    result.accuracy.push_back(static_cast<double>(right[f][best]) / static_cast<double>(sizes[f]));
    result.mean += result.accuracy.back();
  }
  result.mean /= static_cast<double>(folds);
  for (const double a : result.accuracy) result.deviation += (a - result.mean) * (a - result.mean);
  result.deviation = std::sqrt(result.deviation / static_cast<double>(folds));
  return result;
}

/// Cosines of the listed pairs of rows (2i, 2i + 1) of x [2 N, D], as the verification sets of
/// InsightFace and PaddleClas come; the squared distance of such a pair is 2 - 2 cos. A zero row
/// has the cosine 0 with all. Throws ShapeError, NumericError.
inline std::vector<float> pair_cosines(View<const float> x) {
  if (x.shape.rank() != 2 || x.size() == 0 || x.dim(0) % 2 != 0)
    throw ShapeError(text("pair_cosines: expected an even number of rows, got ", x.shape));
  std::vector<float> cosines;
  const std::int64_t columns = x.dim(1);
  for (std::int64_t i = 0; i < x.dim(0); i += 2) {
    const float *a = x.row(i), *b = x.row(i + 1);
    double dot = 0;
    for (std::int64_t c = 0; c < columns; ++c)
      dot += static_cast<double>(a[c]) * static_cast<double>(b[c]);
    const double norms =
        std::max(detail::norm(a, columns), 1e-12) * std::max(detail::norm(b, columns), 1e-12);
    if (!std::isfinite(dot / norms))
      throw NumericError(text("pair_cosines: rows ", i, " and ", i + 1, " are not finite"));
    cosines.push_back(static_cast<float>(dot / norms));
  }
  return cosines;
}

/// The cosines (or dot products) of all N (N - 1) / 2 pairs of a set with labels, a block of rows
/// at a time; pairs of equal ids are left out. Memory for the result: 5 bytes a pair, so some ten
/// thousand features at most; sample above that. Throws as evaluate_retrieval.
inline VerificationPairs all_pairs(const FeatureSet& set, const RetrievalOptions& options = {}) {
  detail::check_sets(set, set);
  if (set.labels.empty()) throw ShapeError("all_pairs needs the labels of the features");
  detail::SimilarityBlocks blocks(set.features.shape, set.features.shape, options);
  VerificationPairs pairs;
  blocks.run(set.features, set.features, options.progress,
             [&](std::int64_t first, View<float> similarities) {
               for (std::int64_t row = 0; row < similarities.dim(0); ++row)
                 for (std::int64_t j = first + row + 1; j < similarities.dim(1); ++j) {
                   const auto a = static_cast<std::size_t>(first + row);
                   const auto b = static_cast<std::size_t>(j);
                   if (!set.ids.empty() && set.ids[a] == set.ids[b]) continue;
                   pairs.scores.push_back(similarities.row(row)[j]);
                   pairs.genuine.push_back(set.labels[a] == set.labels[b]);
                 }
             });
  return pairs;
}

}  // namespace kindred::eval
