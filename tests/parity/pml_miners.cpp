// Miners, and losses behind them, against pytorch-metric-learning.

#include <cmath>

#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
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

#include "support/loss_parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// What the miner chooses of the features of a case, at a step.
template <class Miner>
std::vector<double> chosen(const Fixture& one, const Miner& miner, std::uint64_t step = 0) {
  const auto features = one.stored<double>("in.features");
  const auto labels = one.labels();
  const auto batch = static_cast<std::int64_t>(labels.size());
  cpu::Context ctx(1);
  const Run<cpu::Context, double> run{.ctx = ctx, .training = true, .random = {7, 0, step}};
  std::vector<double> out;
  run_planned(ctx, [&] {
    miner::mine(run, miner, view(features, one.shape("in.features")), view(labels, {batch}),
                [&](const miner::Mining<double>& m) {
                  if (!ctx.planning()) out.assign(m.selected, m.selected + batch * batch);
                });
  });
  return out;
}

/// A case of `Miner` before `Loss`: the choice, the loss and its gradient.
template <class Miner, class Loss>
void check_case(const Fixture& fixture, const std::string& name,
                const typename Miner::Config& miner, const typename Loss::Config& loss) {
  INFO(name);
  const Fixture one = fixture.at(name);
  CHECK(chosen(one, Miner(miner)) == one.stored<double>("out.selected"));
  LossBench<loss::Mined<Miner, Loss>, double> bench({.miner = miner, .loss = loss});
  const LossCase<double> c{6, one.stored<double>("in.features"), one.labels()};
  CHECK(relative_difference(static_cast<double>(bench(c)), one.number("out.loss")) < 1e-9);
  CHECK(relative_difference(bench.dfeatures, one.stored<double>("grad.features")) < 1e-9);
}

}  // namespace

TEST_CASE("parity: miners of pytorch-metric-learning, and losses behind them") {
  const Fixture f("pml_miners", "pytorch-metric-learning");
  REQUIRE(f.cases().size() == 21);
  for (const char* name : {"MultiSimilarityMiner.0.1", "MultiSimilarityMiner.0.4"})
    check_case<miner::MultiSimilarityMiner, loss::MultiSimilarityLoss>(
        f, name, {.epsilon = f.at(name).attribute("epsilon")},
        {.alpha = 2, .beta = 10, .base = 0.4});
  for (const char* name : {"PairMarginMiner.0.2", "PairMarginMiner.0.9"})
    check_case<miner::PairMarginMiner, loss::CircleLoss>(
        f, name,
        {.pos_margin = f.at(name).attribute("pos_margin"),
         .neg_margin = f.at(name).attribute("neg_margin")},
        {.m = 0.25, .gamma = 8});
  check_case<miner::BatchHardMiner, loss::TripletMarginLoss>(f, "BatchHardMiner.default", {},
                                                             {.margin = 0.3});
  for (const char* name : {"AngularMiner.20", "AngularMiner.35"})
    check_case<miner::AngularMiner, loss::TripletMarginLoss>(
        f, name, {.angle = f.at(name).attribute("angle")}, {.margin = 0.3});
}

TEST_CASE("parity: strategies and types of miners of pytorch-metric-learning") {
  const Fixture f("pml_miners", "pytorch-metric-learning");
  std::size_t cases = 0;
  for (const std::string& name : f.cases()) {
    const Fixture one = f.at(name);
    const auto whole = [&](const char* key) { return static_cast<int>(one.attribute(key)); };
    if (name.starts_with("BatchEasyHardMiner.")) {
      miner::BatchEasyHardMiner::Config c{
          .pos_strategy = static_cast<miner::Strategy>(whole("pos_strategy")),
          .neg_strategy = static_cast<miner::Strategy>(whole("neg_strategy"))};
      if (one.has("attr.allowed_pos_range")) {
        const auto pos = one.stored<double>("attr.allowed_pos_range"),
                   neg = one.stored<double>("attr.allowed_neg_range");
        c.allowed_pos_range = {pos[0], pos[1]};
        c.allowed_neg_range = {neg[0], neg[1]};
      }
      check_case<miner::BatchEasyHardMiner, loss::TripletMarginLoss>(f, name, c, {.margin = 0.3});
      ++cases;
    }
    if (name.starts_with("TripletMarginMiner.")) {
      const miner::TripletMarginMiner::Config c{
          .margin = one.attribute("margin"),
          .type_of_triplets = static_cast<miner::TripletType>(whole("type_of_triplets"))};
      if (name == "TripletMarginMiner.margin_loss")
        check_case<miner::TripletMarginMiner, loss::MarginLoss>(f, name, c,
                                                                {.margin = 0.2, .beta = 1});
      else
        check_case<miner::TripletMarginMiner, loss::TripletMarginLoss>(f, name, c, {.margin = 0.3});
      ++cases;
    }
  }
  CHECK(cases == 12);
}

TEST_CASE("parity: DistanceWeightedMiner draws with the same frequencies") {
  const Fixture f("pml_miners", "pytorch-metric-learning");
  for (const char* name : {"DistanceWeightedMiner.default", "DistanceWeightedMiner.near"}) {
    INFO(name);
    const Fixture one = f.at(name);
    const miner::DistanceWeightedMiner miner(
        {.cutoff = one.attribute("cutoff"),
         .nonzero_loss_cutoff = one.attribute("nonzero_loss_cutoff")});
    const auto expected = one.stored<double>("out.selected");
    const int draws = 4000;
    std::vector<double> mean(expected.size());
    for (int step = 0; step < draws; ++step) {
      const auto now = chosen(one, miner, static_cast<std::uint64_t>(step));
      for (std::size_t k = 0; k < now.size(); ++k) mean[k] += now[k] / draws;
    }
    const auto labels = one.labels();
    const std::size_t n = labels.size();
    for (std::size_t i = 0; i < n; ++i) {
      // The positives are drawn there, all of them here: the negatives are compared as shares.
      double ours = 0, theirs = 0, positives = 0;
      for (std::size_t j = 0; j < n; ++j) {
        if (labels[j] == labels[i]) {
          positives += mean[i * n + j];
          continue;
        }
        ours += mean[i * n + j];
        theirs += expected[i * n + j];
      }
      CHECK(ours == Approx(positives));
      REQUIRE((ours > 0) == (theirs > 0));
      for (std::size_t j = 0; j < n && ours > 0; ++j)
        if (labels[j] != labels[i])  // 5 sigma of two means
          CHECK(std::abs(mean[i * n + j] / ours - expected[i * n + j] / theirs) <
                5 * std::sqrt(2 * 0.25 / draws));
    }
    CHECK(chosen(one, miner, 3) == chosen(one, miner, 3));
    CHECK(chosen(one, miner, 3) != chosen(one, miner, 4));
  }
}
