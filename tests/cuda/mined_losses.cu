// Every miner before a loss, and the memory of past batches, CPU against CUDA.

#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/cross_batch_memory.hpp>
#include <kindred/loss/mined.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/triplet_margin_loss.hpp>
#include <kindred/miner/angular_miner.hpp>
#include <kindred/miner/batch_easy_hard_miner.hpp>
#include <kindred/miner/batch_hard_miner.hpp>
#include <kindred/miner/distance_weighted_miner.hpp>
#include <kindred/miner/multi_similarity_miner.hpp>
#include <kindred/miner/pair_margin_miner.hpp>
#include <kindred/miner/triplet_margin_miner.hpp>

#include "cuda/loss_side.hpp"

using namespace kindred;
using test::compare_loss;
using test::loss_dim;
using test::random_labels;
using test::random_values;

namespace {

/// The miner before a loss of pairs.
template <class Miner, class T>
void compare_miner(test::Side& side, const typename Miner::Config& config) {
  compare_loss<loss::Mined<Miner, loss::MultiSimilarityLoss>, T>(
      side, {.miner = config, .loss = {.weight = 0.7, .alpha = 3, .beta = 9, .base = 0.4}});
}
/// The miner before a loss of triplets.
template <class Miner, class T>
void compare_triplets(test::Side& side, const typename Miner::Config& config) {
  compare_loss<loss::Mined<Miner, loss::TripletMarginLoss>, T>(
      side, {.miner = config, .loss = {.weight = 0.7, .margin = 0.3}});
}

KINDRED_PARITY(miners_of_pairs) {
  using miner::Strategy;
  compare_miner<miner::BatchHardMiner, T>(side, {});
  compare_miner<miner::BatchEasyHardMiner, T>(side, {});
  compare_miner<miner::BatchEasyHardMiner, T>(
      side, {.pos_strategy = Strategy::semihard, .neg_strategy = Strategy::hard});
  compare_miner<miner::MultiSimilarityMiner, T>(side, {.epsilon = 0.07});
  compare_miner<miner::PairMarginMiner, T>(side, {.pos_margin = 0.7, .neg_margin = 1.2});
}

KINDRED_PARITY(miners_that_count) {
  using miner::TripletType;
  compare_miner<miner::DistanceWeightedMiner, T>(side, {.nonzero_loss_cutoff = 1.45});
  compare_triplets<miner::DistanceWeightedMiner, T>(side, {.nonzero_loss_cutoff = 1.45});
  compare_miner<miner::AngularMiner, T>(side, {.angle = 31});
  compare_triplets<miner::TripletMarginMiner, T>(
      side, {.margin = 0.23, .type_of_triplets = TripletType::semihard});
}

KINDRED_PARITY(triplets_without_a_miner) {
  compare_loss<loss::TripletMarginLoss, T>(side, {.weight = 0.7, .margin = 0.3});
}

/// Seven batches through a memory that takes three and a half of them, from the second one on.
template <class Loss, class T>
void compare_memory(test::Side& side, const typename Loss::Config& config) {
  using Memory = loss::CrossBatchMemory<Loss>;
  constexpr std::int64_t batch = 22, steps = 7;
  test::run_loss<T, Memory>(
      side, text("memory of ", Loss::name(), ':'),
      {.memory_size = 77, .embedding_size = loss_dim, .start_iter = 1, .loss = config},
      random_values<T>(steps * batch * loss_dim, 6), random_labels(batch, 6, 7),
      test::Side::tolerance<T>(1e-4));
}

KINDRED_PARITY(cross_batch_memory) {
  compare_memory<loss::MultiSimilarityLoss, T>(side,
                                               {.weight = 0.7, .alpha = 3, .beta = 9, .base = 0.4});
  compare_memory<loss::ContrastiveLoss, T>(side, {.weight = 0.7, .margin = 0.1});
  compare_memory<loss::TripletMarginLoss, T>(side, {.weight = 0.7, .margin = 0.3});
}

}  // namespace
