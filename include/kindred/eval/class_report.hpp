#pragma once
// Retrieval metrics of every class, and their mean over classes: evaluate_retrieval averages over
// queries (micro), in which a class counts by its size.

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/eval/retrieval.hpp>

namespace kindred::eval {

/// Metrics of each class of the queries.
struct ClassReport {
  std::vector<std::int64_t> labels;      ///< of the classes, ascending
  std::vector<RetrievalResult> classes;  ///< without per_query, hits and pairs
  /// Means over the classes whose queries have relevant items; precision over all classes.
  RetrievalResult macro;
  std::int64_t classes_without_positives = 0;
};

namespace detail {

/// Adds the means of one class to the sums over classes.
inline void add_means(RetrievalResult& sum, const RetrievalResult& one) {
  sum.mAP += one.mAP;
  sum.r_precision += one.r_precision;
  sum.map_at_r += one.map_at_r;
  sum.mINP += one.mINP;
  for (std::size_t i = 0; i < one.recall.size(); ++i) sum.recall[i] += one.recall[i];
}

}  // namespace detail

/// Splits a result of evaluate_retrieval by the labels [Q] of its queries. Throws ShapeError for
/// another number of labels.
inline ClassReport class_report(const RetrievalResult& result,
                                std::span<const std::int64_t> labels) {
  if (labels.size() != result.per_query.size())
    throw ShapeError(text("class_report: ", result.per_query.size(), " queries, but ",
                          labels.size(), " labels"));
  std::map<std::int64_t, RetrievalResult> classes;
  const std::size_t ranks = result.precision_at.size();
  for (std::size_t q = 0; q < labels.size(); ++q) {
    RetrievalResult& one = classes[labels[q]];
    one.per_query.push_back(result.per_query[q]);
    for (std::size_t i = 0; i < ranks; ++i) one.hits.push_back(result.hits[q * ranks + i]);
  }
  ClassReport report;
  RetrievalResult& macro = report.macro;
  macro.recall_at = result.recall_at;
  macro.recall.assign(result.recall_at.size(), 0);
  macro.precision_at = result.precision_at;
  macro.precision.assign(ranks, 0);
  for (auto& [label, one] : classes) {
    one.recall_at = result.recall_at;
    one.precision_at = result.precision_at;
    detail::summarize_any(one);
    one.per_query = {};
    one.hits = {};
    detail::add_means(macro, one);
    for (std::size_t i = 0; i < ranks; ++i) macro.precision[i] += one.precision[i];
    macro.queries += one.queries;
    macro.queries_without_positives += one.queries_without_positives;
    macro.positive_pairs += one.positive_pairs;
    report.classes_without_positives += one.queries == one.queries_without_positives;
    report.labels.push_back(label);
    report.classes.push_back(std::move(one));
  }
  const auto all = static_cast<double>(report.classes.size());
  const double counted = all - static_cast<double>(report.classes_without_positives);
  for (double* mean : {&macro.mAP, &macro.r_precision, &macro.map_at_r, &macro.mINP})
    *mean /= counted;
  for (double& recall : macro.recall) recall /= counted;
  for (double& precision : macro.precision) precision /= all;
  return report;
}

}  // namespace kindred::eval
