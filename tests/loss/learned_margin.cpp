// MarginLoss with a boundary that is learned: alone, behind a miner and within a memory.

#include <kindred/loss/cross_batch_memory.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/mined.hpp>
#include <kindred/miner/distance_weighted_miner.hpp>
#include <kindred/miner/triplet_margin_miner.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;
using loss::MarginLoss;

namespace {

constexpr MarginLoss::Config learned{
    .weight = 0.7, .margin = 0.15, .beta = 1.1, .learn_beta = true};

}  // namespace

TEST_CASE("MarginLoss: the learned boundary has the gradient of the loss") {
  for (const std::uint64_t stream : {1u, 2u, 3u})
    CHECK(gradient_error<MarginLoss>(learned, mixed_batch(stream)) < 1e-6);
}

TEST_CASE(
    "MarginLoss: the learned boundary starts as the fixed one, and moves with the negatives") {
  auto fixed_config = learned;
  fixed_config.learn_beta = false;
  LossBench<MarginLoss, double> moving(learned), fixed(fixed_config);
  REQUIRE(moving.table.entries().size() == 1);
  CHECK(moving.table.find("loss.beta")->shape == Shape{1});
  CHECK(fixed.table.entries().empty());
  const auto c = mixed_batch(4);
  CHECK(moving(c) == fixed(c));
  CHECK(moving.dfeatures == fixed.dfeatures);
  // With every distance below beta - margin, only the negatives push, and beta falls.
  LossCase<double> near = grouped_batch(2, 5);
  for (std::size_t i = 0; i < near.features.size(); ++i)
    near.features[i] = 1 + 0.01 * near.features[i];
  moving(near);
  CHECK(moving.dparameters[0] > 0);
  CHECK(moving.dparameters[0] == Approx(0.7).epsilon(1e-12));  // the mean of 1 over all terms
  // No pairs: no gradient.
  LossCase<double> alone{5, random_values<double>(15, 6), {0, 1, 2}};
  CHECK(moving(alone) == 0);
  CHECK(moving.dparameters[0] == 0);
}

TEST_CASE("MarginLoss: the learned boundary behind a miner and within a memory") {
  using Triplets = loss::Mined<miner::TripletMarginMiner, MarginLoss>;
  CHECK(
      gradient_error<Triplets>(
          {.miner = {.margin = 0.5, .type_of_triplets = miner::TripletType::all}, .loss = learned},
          mixed_batch(7), learned.weight) < 1e-6);
  using Weighted = loss::Mined<miner::DistanceWeightedMiner, MarginLoss>;
  CHECK(gradient_error<Weighted>({.miner = {.nonzero_loss_cutoff = 1.9}, .loss = learned},
                                 mixed_batch(8), learned.weight) < 1e-6);
  // The batch alone in a memory: the pairs are those of the batch, but the rows of the memory have
  // no gradient.
  using Memory = loss::CrossBatchMemory<MarginLoss>;
  LossBench<Memory, double> memory({.memory_size = 9, .embedding_size = 5, .loss = learned});
  LossBench<MarginLoss, double> plain(learned);
  const auto c = mixed_batch(9);
  CHECK(memory(c) == Approx(plain(c)).epsilon(1e-12));
  CHECK(memory.dparameters[0] == Approx(plain.dparameters[0]).epsilon(1e-12));
}
