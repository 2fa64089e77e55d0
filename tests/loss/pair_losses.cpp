// The derivatives of the losses on pairs, and batches without pairs.

#include <kindred/loss/angular_loss.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/eml_loss.hpp>
#include <kindred/loss/lifted_structure_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/msm_loss.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/npairs_loss.hpp>
#include <kindred/loss/nt_xent_loss.hpp>
#include <kindred/loss/pairwise_cosface.hpp>
#include <kindred/loss/sup_con_loss.hpp>
#include <kindred/loss/tri_hard_loss.hpp>
#include <kindred/loss/triplet_angular_margin_loss.hpp>
#include <kindred/loss/triplet_loss.hpp>
#include <kindred/loss/triplet_loss_v2.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// Both layouts, and features near each other as well as far apart.
template <class Loss>
void check_gradient(const typename Loss::Config& config) {
  INFO(Loss::name());
  for (const double scale : {1.0, 0.3}) {
    CHECK(gradient_error<Loss>(config, mixed_batch(1, scale)) < 1e-6);
    CHECK(gradient_error<Loss>(config, grouped_batch(2, 2, scale)) < 1e-6);
  }
}

bool all_equal(const std::vector<double>& values, double value) {
  for (const double v : values)
    if (v != value) return false;
  return true;
}

/// Batches without a pair to compare give a loss of 0, nothing active and no gradient.
template <class Loss>
void check_nothing_to_do(const typename Loss::Config& config = {}) {
  INFO(Loss::name());
  const auto x = random_values<double>(20, 3);
  for (const LossCase<double>& c :
       {LossCase<double>{5, {x.begin(), x.begin() + 5}, {3}}, LossCase<double>{5, x, {3, 3, 3, 3}},
        LossCase<double>{5, x, {0, 1, 2, 3}}}) {
    LossBench<Loss, double> bench(config);
    INFO("labels " << c.labels.front() << ".." << c.labels.back());
    CHECK(bench(c, 0.5) == 0);
    CHECK(bench.active() == 0);
    CHECK(all_equal(bench.dfeatures, 0.5));
  }
}

template <class... Losses>
struct List {};
template <class... L, class F>
void for_each(List<L...>, F&& f) {
  (f(static_cast<L*>(nullptr)), ...);
}
using NeedPairs =
    List<loss::TriHardLoss, loss::MSMLoss, loss::EmlLoss, loss::NTXentLoss, loss::PairwiseCosface,
         loss::LiftedStructureLoss, loss::AngularLoss, loss::MarginLoss>;
}  // namespace

TEST_CASE("pair losses: the gradient is the derivative") {
  check_gradient<loss::TripletLoss>({.weight = 0.7, .margin = 3});
  check_gradient<loss::TripletLossV2>({.weight = 0.7, .margin = 1.1});
  check_gradient<loss::TripletLossV2>({.weight = 0.7, .margin = 3, .normalize_feature = false});
  check_gradient<loss::TriHardLoss>({.weight = 0.7, .margin = 1.3});
  check_gradient<loss::MSMLoss>({.weight = 0.7, .margin = 0.4});
  check_gradient<loss::EmlLoss>({.weight = 0.7});
  check_gradient<loss::NpairsLoss>({.weight = 0.7, .reg_lambda = 0.3});
  check_gradient<loss::ContrastiveLoss>({.weight = 0.7, .margin = 0.1});
  check_gradient<loss::ContrastiveLoss>(
      {.weight = 0.7, .margin = -0.05, .normalize_feature = false});
  check_gradient<loss::MultiSimilarityLoss>({.weight = 0.7, .alpha = 3, .beta = 9, .base = 0.4});
  check_gradient<loss::SupConLoss>({.weight = 0.7, .temperature = 0.2, .base_temperature = 0.1});
  check_gradient<loss::SupConLoss>({.weight = 0.7, .temperature = 2, .normalize_feature = false});
  check_gradient<loss::NTXentLoss>({.weight = 0.7, .temperature = 0.3});
  check_gradient<loss::PairwiseCosface>({.weight = 0.7, .margin = 0.2, .gamma = 5});
  check_gradient<loss::LiftedStructureLoss>({.weight = 0.7, .neg_margin = 1.2, .pos_margin = 0.1});
  check_gradient<loss::AngularLoss>({.weight = 0.7, .alpha = 35});
  check_gradient<loss::MarginLoss>({.weight = 0.7, .margin = 0.31, .beta = 1.1});
  check_gradient<loss::TripletAngularMarginLoss>({.weight = 0.7, .margin = 0.9});
  check_gradient<loss::TripletAngularMarginLoss>(
      {.weight = 0.7, .margin = 0.4, .normalize_feature = false, .add_absolute = true});
  check_gradient<loss::TripletAngularMarginLoss>(
      {.weight = 0.7, .add_absolute = true, .absolute_loss_weight = 0.6, .an_value = 0.2});
}

TEST_CASE("pair losses: the weight scales the gradient, not the report") {
  const LossCase<double> c = mixed_batch(1);
  LossBench<loss::NTXentLoss, double> once({}), twice({.weight = 2});
  CHECK(once(c) == twice(c));
  for (std::size_t i = 0; i < c.features.size(); ++i)
    CHECK(twice.dfeatures[i] == Approx(2 * once.dfeatures[i]));
}

TEST_CASE("pair losses: batches without pairs are defined") {
  for_each(NeedPairs{},
           [](auto* loss) { check_nothing_to_do<std::remove_pointer_t<decltype(loss)>>(); });
  // One class: no negatives; the row is its own positive.
  const LossCase<double> one_class{5, random_values<double>(20, 3), {3, 3, 3, 3}};
  LossBench<loss::TripletLoss, double> triplet({});
  CHECK(triplet(one_class) == 0);
  LossBench<loss::TripletLossV2, double> second({});
  CHECK(second(one_class) == 0);
  CHECK(second({5, {1, 2, 3, 4, 5}, {3}}) == 0);
  LossBench<loss::TripletAngularMarginLoss, double> angular({.add_absolute = true});
  CHECK(angular(one_class) == 0);
  // SupConLoss compares with all other rows, positives too.
  LossBench<loss::SupConLoss, double> contrast({});
  CHECK(contrast({5, one_class.features, {1, 2, 3, 4}}) == 0);
  CHECK(contrast.active() == 0);
  CHECK(contrast(one_class) > 0);
  // A single row: only the regulariser of NpairsLoss is left.
  const LossCase<double> single{2, {3, 4}, {8}};
  LossBench<loss::NpairsLoss, double> npairs({.reg_lambda = 0.1});
  CHECK(npairs(single) == Approx(0.5 * 0.1 * 25));
  CHECK(npairs.active() == 0);
  LossBench<loss::ContrastiveLoss, double> contrastive({});
  CHECK(contrastive(single) == 0);
  LossBench<loss::MultiSimilarityLoss, double> similarity({});
  CHECK(similarity(single) == 0);
  CHECK(similarity.active() == 0);
}

TEST_CASE("TripletLossV2: known values") {
  // Points 0, 1 (class 5) and 3, 4.5 (class 9) on a line. The farthest positives are 1, 1, 1.5, 1.5
  // away, the nearest negatives 3, 2, 2, 3.5; with margin 1.2 the rows lose 0, 0.2, 0.7, 0.
  using Bench = LossBench<loss::TripletLossV2, double>;
  const LossCase<double> line{1, {0, 1, 3, 4.5}, {5, 5, 9, 9}};
  Bench wide({.margin = 1.2, .normalize_feature = false});
  CHECK(wide(line) == Approx((0.2 + 0.7) / 4));
  CHECK(wide.active() == 2);
  // Row 1 pulls 0 and 1 together and pushes 1 from 3; row 2 does so with 3, 4.5 and 1.
  const double expected[] = {-0.25, 0.75, -0.75, 0.25};
  for (std::size_t i = 0; i < 4; ++i) CHECK(wide.dfeatures[i] == Approx(expected[i]));

  Bench narrow({.margin = 0.4, .normalize_feature = false});
  CHECK(narrow(line, 0.5) == 0);
  CHECK(narrow.active() == 0);
  CHECK(all_equal(narrow.dfeatures, 0.5));

  // All features equal: the distances are clipped, so the margin is left, and no gradient.
  Bench collapsed({.normalize_feature = false});
  CHECK(collapsed({1, {2, 2, 2, 2}, {1, 1, 2, 2}}, 0.5) == Approx(0.5));
  CHECK(collapsed.active() == 4);
  CHECK(all_equal(collapsed.dfeatures, 0.5));

  // Corners of squares: of equal distances the first index counts. Row 0 pulls at row 1, not at 2.
  Bench ties({.margin = 5, .normalize_feature = false});
  ties({2, {0, 0, 1, 0, -1, 0, 0, 1}, {1, 1, 1, 2}});
  CHECK(ties.dfeatures[2] > -ties.dfeatures[4]);
}

TEST_CASE("pair losses: settings out of range are refused") {
  ParameterTable table;
  const Scope scope(table);
  CHECK_THROWS_AS(loss::NTXentLoss({.temperature = 0}, scope), ConfigError);
  CHECK_THROWS_AS(loss::SupConLoss({.base_temperature = -1}, scope), ConfigError);
  CHECK_THROWS_AS(loss::MultiSimilarityLoss({.beta = 0}, scope), ConfigError);
  CHECK_THROWS_AS(loss::AngularLoss({.alpha = 90}, scope), ConfigError);
}
