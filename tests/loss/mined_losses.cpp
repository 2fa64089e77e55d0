// Losses behind miners: gradients, batches of which nothing is chosen, and miners that choose all.

#include <cmath>

#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/mined.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/nt_xent_loss.hpp>
#include <kindred/loss/pairwise_cosface.hpp>
#include <kindred/loss/ranked_list_loss.hpp>
#include <kindred/loss/triplet_margin_loss.hpp>
#include <kindred/miner/angular_miner.hpp>
#include <kindred/miner/batch_hard_miner.hpp>
#include <kindred/miner/distance_weighted_miner.hpp>
#include <kindred/miner/multi_similarity_miner.hpp>
#include <kindred/miner/pair_margin_miner.hpp>
#include <kindred/miner/triplet_margin_miner.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

using miner::PairMarginMiner;

/// Behind a miner that chooses every pair a loss gives what it gives alone.
template <class Loss>
void check_all_chosen(const typename Loss::Config& config) {
  INFO(Loss::name());
  const auto c = mixed_batch(11);
  LossBench<Loss, double> alone(config);
  LossBench<loss::Mined<PairMarginMiner, Loss>, double> behind(
      {.miner = {.pos_margin = -1, .neg_margin = 9}, .loss = config});
  CHECK(behind(c) == Approx(alone(c)).epsilon(1e-12));
  CHECK(difference(behind.dfeatures, alone.dfeatures) < 1e-12);
}

/// Nothing to choose from: no loss, no gradient, no NaN.
template <class Miner, class Loss>
void check_nothing_chosen() {
  INFO(Miner::name());
  LossBench<loss::Mined<Miner, Loss>, double> bench({});
  for (const std::vector<std::int64_t>& labels :
       {std::vector<std::int64_t>{3, 3, 3, 3}, std::vector<std::int64_t>{0, 1, 2, 3}}) {
    LossCase<double> c{.dim = 5, .features = random_values<double>(20, 3), .labels = labels};
    std::fill(c.features.begin(), c.features.begin() + 5, 0.);        // a zero vector
    std::copy_n(c.features.begin() + 5, 5, c.features.begin() + 10);  // a duplicate
    CHECK(bench(c) == 0);
    CHECK(bench.active() == 0);
    for (const double d : bench.dfeatures) CHECK(d == 0);
  }
  LossCase<double> single{.dim = 5, .features = random_values<double>(5, 3), .labels = {1}};
  CHECK(bench(single) == 0);
}

}  // namespace

TEST_CASE("mined losses: gradients against central differences") {
  const auto c = mixed_batch(21, 2);
  using loss::Mined;
  CHECK(gradient_error<loss::TripletMarginLoss>({.weight = 0.7, .margin = 0.3}, c) < 1e-6);
  const auto error = [&]<class L>(std::type_identity<L>, typename L::Config config) {
    LossBench<L, double> bench(config);
    auto moving = c;
    bench(moving, 0.25);
    REQUIRE(bench.active() > 0);
    const auto got = bench.dfeatures;
    auto wanted = central_differences(moving.features, [&] { return bench(moving); });
    for (double& d : wanted) d = 0.25 + config.loss.weight * d;
    return difference(got, wanted);
  };
  using Semihard = Mined<miner::TripletMarginMiner, loss::TripletMarginLoss>;
  CHECK(error(std::type_identity<Semihard>{},
              {.miner = {.margin = 0.4, .type_of_triplets = miner::TripletType::semihard},
               .loss = {.weight = 0.7, .margin = 0.5}}) < 1e-6);
  using Drawn = Mined<miner::DistanceWeightedMiner, loss::MarginLoss>;
  CHECK(error(std::type_identity<Drawn>{}, {.loss = {.weight = 0.7, .beta = 1}}) < 1e-6);
  using Similar = Mined<miner::MultiSimilarityMiner, loss::MultiSimilarityLoss>;
  CHECK(error(std::type_identity<Similar>{}, {.loss = {.weight = 0.7, .beta = 5}}) < 1e-6);
  using Near = Mined<PairMarginMiner, loss::ContrastiveLoss>;
  CHECK(error(std::type_identity<Near>{}, {.loss = {.weight = 0.7, .margin = 0.1}}) < 1e-6);
}

TEST_CASE("mined losses: a miner that chooses every pair changes nothing") {
  check_all_chosen<loss::CircleLoss>({.gamma = 8});
  check_all_chosen<loss::ContrastiveLoss>({});
  check_all_chosen<loss::MarginLoss>({});
  check_all_chosen<loss::MultiSimilarityLoss>({});
  check_all_chosen<loss::NTXentLoss>({});
  check_all_chosen<loss::PairwiseCosface>({.margin = 0.25, .gamma = 8});
  check_all_chosen<loss::RankedListLoss>({});
  check_all_chosen<loss::TripletMarginLoss>({.margin = 0.3});
}

TEST_CASE("mined losses: batches of which nothing can be chosen") {
  check_nothing_chosen<miner::BatchHardMiner, loss::TripletMarginLoss>();
  check_nothing_chosen<miner::TripletMarginMiner, loss::TripletMarginLoss>();
  check_nothing_chosen<miner::AngularMiner, loss::TripletMarginLoss>();
  check_nothing_chosen<miner::DistanceWeightedMiner, loss::MarginLoss>();
  check_nothing_chosen<miner::PairMarginMiner, loss::TripletMarginLoss>();
  check_nothing_chosen<miner::MultiSimilarityMiner, loss::CircleLoss>();
}

TEST_CASE("miners: settings that cannot be are refused by name") {
  using miner::Strategy;
  CHECK_THROWS_WITH(miner::BatchEasyHardMiner(
                        {.pos_strategy = Strategy::semihard, .neg_strategy = Strategy::semihard}),
                    ContainsSubstring("BatchEasyHardMiner: semihard"));
  CHECK_THROWS_WITH(miner::BatchEasyHardMiner(
                        {.pos_strategy = Strategy::all, .neg_strategy = Strategy::semihard}),
                    ContainsSubstring("BatchEasyHardMiner: semihard"));
  CHECK_THROWS_WITH(miner::AngularMiner({.angle = 90}), ContainsSubstring("[0, 90) degrees"));
  CHECK_THROWS_WITH(miner::DistanceWeightedMiner({.cutoff = 2}), ContainsSubstring("cutoff"));
}
