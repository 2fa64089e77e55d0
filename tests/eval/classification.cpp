#include <kindred/eval/class_report.hpp>
#include <kindred/eval/classification.hpp>

#include <limits>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::eval;
using namespace kindred::test;
using Integers = std::vector<std::int64_t>;

TEST_CASE("top-k accuracy: by hand, with ties, micro and macro") {
  const std::vector<float> logits{3, 2, 1,   // label 0: first
                                  1, 2, 3,   // label 0: third
                                  5, 5, 5,   // label 1: second, behind the equal class 0
                                  0, 9, 9};  // label 1: first, before the equal class 2
  const TopkAccuracy r = topk_accuracy(view(logits, {4, 3}), Integers{0, 0, 1, 1}, {1, 2, 7});
  CHECK(r.accuracy == std::vector<double>{.5, .75, 1});
  CHECK(r.class_rows == Integers{2, 2, 0});
  CHECK(r.class_accuracy == std::vector<double>{.5, .5, 1, .5, 1, 1, 0, 0, 0});
  CHECK(r.macro == std::vector<double>{.5, .75, 1});
  const TopkAccuracy uneven = topk_accuracy(view(logits, {4, 3}), Integers{0, 0, 0, 1}, {1});
  CHECK(uneven.accuracy[0] == .75);
  CHECK(uneven.macro[0] == Approx((2. / 3 + 1) / 2));
}

TEST_CASE("top-k accuracy: bad input is one clear error") {
  std::vector<float> logits(6, 1.f);
  const auto v = [&] { return view(std::as_const(logits), {2, 3}); };
  CHECK_THROWS_WITH(topk_accuracy(v(), Integers{0}), ContainsSubstring("2 rows, but 1 labels"));
  CHECK_THROWS_WITH(topk_accuracy(v(), Integers{0, 3}),
                    ContainsSubstring("label 3 of row 1 is not in [0, 3)"));
  CHECK_THROWS_AS(topk_accuracy(v(), Integers{-1, 0}), DataError);
  CHECK_THROWS_AS(topk_accuracy(v(), Integers{0, 0}, {0}), ConfigError);
  CHECK_THROWS_AS(topk_accuracy({logits.data(), {0, 3}}, Integers{}), ShapeError);
  logits[4] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(topk_accuracy(v(), Integers{0, 0}), ContainsSubstring("row 1 has a NaN"));
}

namespace {

/// Rankings of the gallery 0.9, 0.8, ... (labels 1 2 1 3 1 2) by queries of the labels.
RetrievalResult ranked(const Integers& query_labels,
                       const std::vector<std::int64_t>& precision_at) {
  const std::vector<float> scores{.9f, .8f, .7f, .6f, .5f, .4f};
  const Integers labels{1, 2, 1, 3, 1, 2};
  const std::vector<float> ones(query_labels.size(), 1.f);
  const auto queries = static_cast<std::int64_t>(ones.size());
  return evaluate_retrieval(
      {.features = view(ones, {queries, 1}), .labels = query_labels},
      {.features = view(scores, {6, 1}), .labels = labels},
      {.recall_at = {1, 2}, .precision_at = precision_at, .normalize = false});
}

}  // namespace

TEST_CASE("Precision@k: hits in the first k, over all queries, with k beyond the gallery") {
  const RetrievalResult r = ranked({1, 2, 7}, {1, 3, 10});  // no item has the label 7
  CHECK(r.hits == Integers{1, 2, 3, 0, 1, 2, 0, 0, 0});
  CHECK(r.precision[0] == Approx(1. / 3));
  CHECK(r.precision[1] == Approx((2. / 3 + 1. / 3 + 0) / 3));
  CHECK(r.precision[2] == Approx((.3 + .2 + 0) / 3));
  std::ostringstream line;
  line << r;
  CHECK_THAT(line.str(), ContainsSubstring("precision@3 0.33333, "));
  CHECK_THROWS_WITH(ranked({1}, {0}), ContainsSubstring("precision_at: expected ranks from 1"));
}

TEST_CASE("class report: the metrics of each class, and their mean over classes") {
  const Integers labels{3, 1, 1, 7, 3, 1};
  const RetrievalResult r = ranked(labels, {2});
  const ClassReport report = class_report(r, labels);
  CHECK(report.labels == Integers{1, 3, 7});
  CHECK(report.classes_without_positives == 1);
  const RetrievalResult one = ranked({1}, {2}), three = ranked({3}, {2});
  CHECK(report.classes[0].queries == 3);
  CHECK(report.classes[0].mAP == Approx(one.mAP));
  CHECK(report.classes[1].mAP == Approx(three.mAP));
  CHECK(report.classes[2].mAP == 0);
  CHECK(report.macro.mAP == Approx((one.mAP + three.mAP) / 2));
  CHECK(report.macro.recall_of(1) == Approx((one.recall[0] + three.recall[0]) / 2));
  CHECK(report.macro.map_at_r == Approx((one.map_at_r + three.map_at_r) / 2));
  CHECK(report.macro.mINP == Approx((one.mINP + three.mINP) / 2));
  CHECK(report.macro.r_precision == Approx((one.r_precision + three.r_precision) / 2));
  CHECK(report.macro.precision[0] == Approx((one.precision[0] + three.precision[0] + 0) / 3));
  CHECK(r.mAP == Approx((3 * one.mAP + 2 * three.mAP) / 5));  // micro: by size
  CHECK_THROWS_WITH(class_report(r, Integers{1, 2}), ContainsSubstring("6 queries, but 2 labels"));
}
