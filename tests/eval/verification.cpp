#include <kindred/eval/verification.hpp>

#include <limits>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::eval;
using namespace kindred::test;
using Doubles = std::vector<double>;
using Integers = std::vector<std::int64_t>;

TEST_CASE("ROC: by hand; pairs of equal score are accepted together") {
  const RocCurve roc =
      roc_curve({{.9f, .7f, .7f, .7f, .2f, .1f}, {true, true, false, true, false, false}});
  CHECK(roc.genuine == 3);
  CHECK(roc.impostors == 3);
  CHECK(roc.tar == Doubles{0, 1. / 3, 1, 1, 1});
  CHECK(roc.far == Doubles{0, 0, 1. / 3, 2. / 3, 1});
  CHECK(roc.thresholds[0] == std::numeric_limits<double>::infinity());
  CHECK(roc.thresholds[2] == double(.7f));
  CHECK(roc.auc == Approx((1. / 3 + 1) / 2 / 3 + 2. / 3));
  // From (far, tar) = (0, 1/3) to (1/3, 1): t/3 = 1 - 1/3 - 2t/3 at t = 2/3.
  CHECK(roc.equal_error_rate == Approx(2. / 9));
}

TEST_CASE("TAR at FAR: the best point that is not above the limit, with the counts") {
  VerificationPairs pairs;
  for (int i = 0; i < 1000; ++i) {
    pairs.scores.push_back(static_cast<float>(i % 500));
    pairs.genuine.push_back(i >= 500);
  }
  const RocCurve roc = roc_curve(pairs);
  const OperatingPoint p = tar_at_far(roc, 0.01);
  CHECK(p.threshold == 495);
  CHECK(p.impostors_accepted == 5);
  CHECK(p.impostors == 500);
  CHECK(p.genuine == 500);
  CHECK(p.tar == Approx(.01));
  CHECK(p.fnmr() == Approx(.99));
  CHECK_FALSE(p.supported());  // 500 impostor pairs for a rate of 1 in 100
  CHECK(tar_at_far(roc, 0.02).supported());
  CHECK(tar_at_far(roc, 0.0019).impostors_accepted == 0);
  CHECK(tar_at_far(roc, 1).tar == 1);
  const RocCurve perfect = roc_curve({{2.f, 1.f}, {true, false}});
  CHECK(tar_at_far(perfect, 0).tar == 1);
  CHECK(tar_at_far(perfect, 0).threshold == 2);
  CHECK(perfect.auc == 1);
  CHECK(perfect.equal_error_rate == 0);
  const RocCurve reversed = roc_curve({{1.f, 2.f}, {true, false}});
  CHECK(reversed.auc == 0);
  CHECK(reversed.equal_error_rate == 1);
}

TEST_CASE("fold accuracy: thresholds come from the other folds, the first of equal ones") {
  // Separable at any threshold in (0.5, 1.5], so 0.51; the fold with a wrong label stays wrong.
  std::vector<float> distances;
  std::vector<bool> genuine;
  for (int i = 0; i < 20; ++i) {
    distances.push_back(i % 2 == 0 ? .5f : 1.5f);
    genuine.push_back(i % 2 == 0);
  }
  const FoldAccuracy r = fold_accuracy(distances, genuine);
  CHECK(r.mean == 1);
  CHECK(r.deviation == 0);
  CHECK(r.pairs == 20);
  CHECK(r.genuine == 10);
  CHECK(r.thresholds[0] == Approx(.51));
  genuine[4] = false;
  const FoldAccuracy wrong = fold_accuracy(distances, genuine);
  CHECK(wrong.accuracy[2] == .5);
  CHECK(wrong.mean == Approx(.95));
  CHECK(wrong.deviation == Approx(.15));
}

TEST_CASE("pairs: cosines of listed rows, and of all rows of a set") {
  const std::vector<float> x{1, 0, 2, 0, 0, 3, 1, 1, 0, 0, 5, 5};
  const auto cosines = pair_cosines(view(x, {6, 2}));
  CHECK(cosines.size() == 3);
  CHECK(cosines[0] == 1);
  CHECK(cosines[1] == Approx(std::sqrt(.5)));
  CHECK(cosines[2] == 0);
  const Integers labels{4, 4, 5, 5, 4, 5}, ids{0, 0, 1, 2, 3, 4};
  const FeatureSet set{.features = view(x, {6, 2}), .labels = labels, .ids = ids};
  const VerificationPairs all = all_pairs(set);
  REQUIRE(all.scores.size() == 14);  // 15 pairs, one of them of the same image
  CHECK(std::count(all.genuine.begin(), all.genuine.end(), true) == 5);
  CHECK_FALSE(bool(all.genuine[0]));  // rows 0 and 2
  CHECK(all.scores[0] == 0);
  const VerificationPairs threads = all_pairs(set, {.threads = 3});
  CHECK(threads.scores == all.scores);
  CHECK(threads.genuine == all.genuine);
}

TEST_CASE("verification: bad input is one clear error") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(roc_curve({{1.f, 2.f}, {true}}), ContainsSubstring("2 scores, but 1 pairs"));
  CHECK_THROWS_WITH(roc_curve({}), ContainsSubstring("there are no pairs"));
  CHECK_THROWS_WITH(roc_curve({{1.f, nan}, {true, false}}),
                    ContainsSubstring("score of pair 1 is not finite"));
  CHECK_THROWS_WITH(roc_curve({{1.f, 2.f}, {true, true}}),
                    ContainsSubstring("2 genuine and 0 impostor pairs"));
  const RocCurve roc = roc_curve({{2.f, 1.f}, {true, false}});
  for (const double bad : {-.1, 1.1, double(nan)})
    CHECK_THROWS_AS(tar_at_far(roc, bad), ConfigError);
  const std::vector<float> d{1, 2, 3};
  for (const std::int64_t folds : {1, 4})
    CHECK_THROWS_WITH(fold_accuracy(d, {true, false, true}, folds),
                      ContainsSubstring("2 to 3 folds (the pairs)"));
  CHECK_THROWS_AS(pair_cosines(view(d, {3, 1})), ShapeError);
  const std::vector<float> x{1, nan};
  CHECK_THROWS_AS(pair_cosines(view(x, {2, 1})), NumericError);
  CHECK_THROWS_AS(all_pairs({.features = view(d, {3, 1})}), ShapeError);
}
