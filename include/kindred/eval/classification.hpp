#pragma once
// Accuracy of a classifier.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/shape.hpp>

namespace kindred::eval {

struct TopkAccuracy {
  std::vector<std::int64_t> topk;
  std::vector<double> accuracy;  ///< micro: share of the rows whose label is among the first k
  std::vector<double> macro;     ///< mean over the classes that occur of their share
  std::int64_t rows = 0;
  std::vector<std::int64_t> class_rows;  ///< [C]
  std::vector<double> class_accuracy;    ///< [C, |topk|]; 0 for a class without rows
};

/// Top-k accuracy of logits [B,C] with labels [B] in [0, C): rows whose label has fewer than k
/// classes before it, by logit and, of equal logits, by index. So k >= C gives 1, as TopkAcc of
/// PaddleClas. Throws ShapeError (shapes), ConfigError (k below 1), DataError (a label outside
/// [0, C)), NumericError (a row with a NaN).
inline TopkAccuracy topk_accuracy(View<const float> logits, std::span<const std::int64_t> labels,
                                  std::vector<std::int64_t> topk = {1, 5}) {
  if (logits.shape.rank() != 2 || logits.size() == 0)
    throw ShapeError(text("topk_accuracy: expected logits [B, C], got ", logits.shape));
  const std::int64_t classes = logits.dim(1);
  if (static_cast<std::int64_t>(labels.size()) != logits.dim(0))
    throw ShapeError(
        text("topk_accuracy: ", logits.dim(0), " rows, but ", labels.size(), " labels"));
  for (const std::int64_t k : topk)
    if (k < 1) throw ConfigError(text("topk_accuracy: expected k from 1, got ", k));
  const std::size_t ranks = topk.size(), width = static_cast<std::size_t>(classes);
  TopkAccuracy result{
      std::move(topk), std::vector<double>(ranks),       std::vector<double>(ranks),
      logits.dim(0),   std::vector<std::int64_t>(width), std::vector<double>(width * ranks)};
  for (std::int64_t b = 0; b < logits.dim(0); ++b) {
    const float* row = logits.row(b);
    const std::int64_t label = labels[static_cast<std::size_t>(b)];
    if (label < 0 || label >= classes)
      throw DataError(
          text("topk_accuracy: label ", label, " of row ", b, " is not in [0, ", classes, ")"));
    std::int64_t before = 0;
    for (std::int64_t c = 0; c < classes; ++c) {
      if (std::isnan(row[c])) throw NumericError(text("topk_accuracy: row ", b, " has a NaN"));
      before += row[c] > row[label] || (row[c] == row[label] && c < label);
    }
    ++result.class_rows[static_cast<std::size_t>(label)];
    for (std::size_t i = 0; i < ranks; ++i)
      result.class_accuracy[static_cast<std::size_t>(label) * ranks + i] += before < result.topk[i];
  }
  double present = 0;
  for (std::size_t c = 0; c < width; ++c) {
    if (result.class_rows[c] == 0) continue;
    ++present;
    for (std::size_t i = 0; i < ranks; ++i) {
      double& share = result.class_accuracy[c * ranks + i];
      result.accuracy[i] += share;
      share /= static_cast<double>(result.class_rows[c]);
      result.macro[i] += share;
    }
  }
  for (std::size_t i = 0; i < ranks; ++i) {
    result.accuracy[i] /= static_cast<double>(result.rows);
    result.macro[i] /= present;
  }
  return result;
}

}  // namespace kindred::eval
