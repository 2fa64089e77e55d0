#pragma once
// What the retrieval metrics say, and how it follows from the ranks of the relevant items.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <numeric>
#include <ostream>
#include <span>
#include <sstream>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/eval/feature_set.hpp>

namespace kindred::eval {

/// One query. With ranks r_1 < r_2 < ... < r_R (from 1) of its R relevant items:
struct QueryResult {
  std::int64_t positives = 0;    ///< R; if 0, all else is 0 and the query is in no mean
  std::int64_t first_rank = 0;   ///< r_1
  std::int64_t last_rank = 0;    ///< r_R
  double average_precision = 0;  ///< (1/R) sum over h of h / r_h
  double r_precision = 0;        ///< number of r_h <= R, divided by R
  double map_at_r = 0;           ///< (1/R) sum over r_h <= R of h / r_h
};

/// Means over the queries that have relevant items.
struct RetrievalResult {
  std::vector<std::int64_t> recall_at;
  std::vector<double> recall;  ///< share of queries with r_1 <= k, for every k of recall_at (CMC)
  std::vector<std::int64_t> precision_at;
  /// Number of r_h <= k, divided by k: over all queries, as Precisionk of PaddleClas.
  std::vector<double> precision;
  double mAP = 0;
  double r_precision = 0;
  double map_at_r = 0;  ///< Musgrave et al., "A Metric Learning Reality Check", ECCV 2020
  double mINP = 0;      ///< mean of R / r_R: Ye et al., "Deep Learning for Person Re-ID", 2021
  std::int64_t queries = 0;
  std::int64_t queries_without_positives = 0;
  std::int64_t pairs = 0;           ///< compared: without the excluded ones
  std::int64_t positive_pairs = 0;  ///< of them, of the same label
  std::vector<QueryResult> per_query;
  std::vector<std::int64_t> hits;  ///< [Q, |precision_at|] number of r_h <= k

  /// Recall@k; throws ConfigError if it was not asked for.
  double recall_of(std::int64_t k) const {
    const auto found = std::find(recall_at.begin(), recall_at.end(), k);
    if (found == recall_at.end()) throw ConfigError(text("recall@", k, " was not computed"));
    return recall[static_cast<std::size_t>(found - recall_at.begin())];
  }
  /// "recall@1 0.86000, ..., mAP 0.71234, ... (6050 queries, 3 without positives)".
  friend std::ostream& operator<<(std::ostream& out, const RetrievalResult& r) {
    std::ostringstream line;
    line << std::fixed << std::setprecision(5);
    for (std::size_t i = 0; i < r.recall.size(); ++i)
      line << "recall@" << r.recall_at[i] << ' ' << r.recall[i] << ", ";
    for (std::size_t i = 0; i < r.precision.size(); ++i)
      line << "precision@" << r.precision_at[i] << ' ' << r.precision[i] << ", ";
    line << "mAP " << r.mAP << ", R-Precision " << r.r_precision << ", MAP@R " << r.map_at_r
         << ", mINP " << r.mINP << " (" << r.queries << " queries, " << r.queries_without_positives
         << " without positives)";
    return out << line.str();
  }
};

namespace detail {

/// Which positions of a gallery have a value: its label, its id.
class PositionsByValue {
 public:
  explicit PositionsByValue(std::span<const std::int64_t> values)
      : values_(values.begin(), values.end()), positions_(values.size()) {
    std::iota(positions_.begin(), positions_.end(), std::int64_t{0});
    std::stable_sort(positions_.begin(), positions_.end(), [&](std::int64_t a, std::int64_t b) {
      return values[static_cast<std::size_t>(a)] < values[static_cast<std::size_t>(b)];
    });
    std::sort(values_.begin(), values_.end());
  }
  /// In ascending order.
  std::span<const std::int64_t> operator()(std::int64_t value) const {
    const auto [begin, end] = std::equal_range(values_.begin(), values_.end(), value);
    return all().subspan(static_cast<std::size_t>(begin - values_.begin()),
                         static_cast<std::size_t>(end - begin));
  }
  /// Of all values, one after the other; what operator() returns is a part of it.
  std::span<const std::int64_t> all() const { return positions_; }

 private:
  std::vector<std::int64_t> values_, positions_;
};

inline QueryResult query_result(const std::vector<std::int64_t>& ranks) {
  QueryResult result;
  if (ranks.empty()) return result;
  const auto relevant = static_cast<std::int64_t>(ranks.size());
  result.positives = relevant;
  result.first_rank = ranks.front();
  result.last_rank = ranks.back();
  for (std::int64_t h = 1; h <= relevant; ++h) {
    const std::int64_t rank = ranks[static_cast<std::size_t>(h - 1)];
    const double precision = static_cast<double>(h) / static_cast<double>(rank);
    result.average_precision += precision;
    if (rank > relevant) continue;
    result.r_precision += 1;
    result.map_at_r += precision;
  }
  for (double* value : {&result.average_precision, &result.r_precision, &result.map_at_r})
    *value /= static_cast<double>(relevant);
  return result;
}

/// Means over result.per_query and result.hits, in their order; 0 where there is nothing to mean.
inline void summarize_any(RetrievalResult& result) {
  result.recall.assign(result.recall_at.size(), 0);
  result.precision.assign(result.precision_at.size(), 0);
  for (const QueryResult& q : result.per_query) {
    ++result.queries;
    result.positive_pairs += q.positives;
    if (q.positives == 0) {
      ++result.queries_without_positives;
      continue;
    }
    for (std::size_t i = 0; i < result.recall.size(); ++i)
      result.recall[i] += q.first_rank <= result.recall_at[i];
    result.mAP += q.average_precision;
    result.r_precision += q.r_precision;
    result.map_at_r += q.map_at_r;
    result.mINP += static_cast<double>(q.positives) / static_cast<double>(q.last_rank);
  }
  const auto counted = static_cast<double>(
      std::max<std::int64_t>(1, result.queries - result.queries_without_positives));
  for (double* mean : {&result.mAP, &result.r_precision, &result.map_at_r, &result.mINP})
    *mean /= counted;
  for (double& recall : result.recall) recall /= counted;
  const std::size_t ranks = result.precision.size();
  for (std::size_t i = 0; i < ranks; ++i) {
    std::int64_t hits = 0;
    for (std::size_t q = 0; q < result.per_query.size(); ++q) hits += result.hits[q * ranks + i];
    result.precision[i] =
        static_cast<double>(hits) / static_cast<double>(result.precision_at[i] * result.queries);
  }
}

/// The same, where at least one query must have positives.
inline void summarize(RetrievalResult& result) {
  summarize_any(result);
  if (result.queries == result.queries_without_positives)
    throw DataError("no query has a relevant gallery item; do query and gallery share labels?");
}

/// Throws what evaluate_retrieval throws for its arguments alone.
inline void check_metrics(const FeatureSet& query, const FeatureSet& gallery,
                          const RetrievalOptions& options) {
  check_sets(query, gallery);
  if (query.labels.empty() || gallery.labels.empty())
    throw ShapeError("retrieval metrics need the labels of query and gallery");
  for (const auto& [name, ranks] : {std::pair("recall_at", &options.recall_at),
                                    std::pair("precision_at", &options.precision_at)})
    for (const std::int64_t k : *ranks)
      if (k < 1) throw ConfigError(text(name, ": expected ranks from 1, got ", k));
}

/// A result with a place for every query.
inline RetrievalResult empty_result(std::int64_t queries, const RetrievalOptions& options) {
  RetrievalResult result;
  result.recall_at = options.recall_at;
  result.precision_at = options.precision_at;
  result.per_query.resize(static_cast<std::size_t>(queries));
  result.hits.resize(static_cast<std::size_t>(queries) * options.precision_at.size());
  return result;
}

/// Notes query q, whose relevant items have these ranks, in ascending order.
inline void note_query(RetrievalResult& result, std::int64_t q,
                       const std::vector<std::int64_t>& ranks) {
  result.per_query[static_cast<std::size_t>(q)] = query_result(ranks);
  const std::size_t count = result.precision_at.size();
  for (std::size_t i = 0; i < count; ++i)
    result.hits[static_cast<std::size_t>(q) * count + i] =
        std::upper_bound(ranks.begin(), ranks.end(), result.precision_at[i]) - ranks.begin();
}

}  // namespace detail
}  // namespace kindred::eval
