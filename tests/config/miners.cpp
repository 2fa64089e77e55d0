// Miners and memories around losses on pairs, from YAML: the bits of the composed ones, every
// setting, and what is refused. They are registered by support/config_miners.cpp and
// config_memories.cpp.

#include <kindred/config/loss_registry.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/cross_batch_memory.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/mined.hpp>
#include <kindred/loss/triplet_margin_loss.hpp>
#include <kindred/miner/angular_miner.hpp>
#include <kindred/miner/batch_easy_hard_miner.hpp>
#include <kindred/miner/batch_hard_miner.hpp>
#include <kindred/miner/distance_weighted_miner.hpp>
#include <kindred/miner/multi_similarity_miner.hpp>
#include <kindred/miner/pair_margin_miner.hpp>
#include <kindred/miner/triplet_margin_miner.hpp>

#include "support/catch.hpp"
#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::config;
using namespace kindred::test;

namespace {

/// The losses of one entry of Loss.Train, with a miner or of a memory.
AnyLosses::Config read(const std::string& name, const std::string& settings) {
  const Section s(YAML::Load("{" + settings + "}"), "Loss.Train.0." + name);
  AnyLosses::Config losses;
  if (s.has("miner"))
    add_mined_loss(losses, name, s);
  else
    add_registered_loss(losses, name, s);
  s.finish();
  return losses;
}

std::string refused(const std::string& name, const std::string& settings) {
  try {
    ParameterTable table;
    const AnyLosses losses(read(name, settings), Scope(table));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

constexpr std::int64_t batch = 12, dim = 4;

/// Two batches after one another: reports and gradients.
template <class Loss>
std::vector<float> evaluate(const typename Loss::Config& config) {
  LossCase<float> c{dim, {}, {}};
  for (std::int64_t i = 0; i < batch; ++i) c.labels.push_back(i % 3);
  LossBench<Loss, float> bench(config);
  std::vector<float> all;
  for (const std::uint64_t seed : {1u, 2u}) {
    c.features = random_values<float>(batch * dim, seed);
    bench(c);
    all.insert(all.end(), bench.report.begin(), bench.report.end());
    all.insert(all.end(), bench.dfeatures.begin(), bench.dfeatures.end());
  }
  return all;
}
std::vector<float> from_yaml(const std::string& name, const std::string& settings) {
  return evaluate<AnyLosses>(read(name, settings));
}

/// The miner of YAML before a loss chooses as the composed one; each setting moves the choice.
template <class Loss, class Miner>
void check(const typename Miner::Config& other, const std::vector<std::string>& settings) {
  using Mined = loss::Mined<Miner, Loss>;
  INFO(Miner::name() << " before " << Loss::name());
  const auto with = [](const std::string& more) {
    return from_yaml(Loss::name(),
                     text("weight: 0.5, margin: 0.4, miner: {name: ", Miner::name(), more, "}"));
  };
  const auto composed = [](const typename Miner::Config& miner) {
    return evaluate<Mined>({.miner = miner, .loss = {.weight = 0.5, .margin = 0.4}});
  };
  const bool same_defaults = with("") == composed({});
  CHECK(same_defaults);
  std::string all;
  for (const std::string& setting : settings) {
    INFO(setting);
    const bool moved = with(", " + setting) != with("");
    CHECK(moved);
    all += ", " + setting;
  }
  const bool same = with(all) == composed(other);
  CHECK(same);
  CHECK_THAT(refused(Loss::name(), text("miner: {name: ", Miner::name(), ", epsilom: 1}")),
             ContainsSubstring(text(Loss::name(), ".miner.epsilom: unknown key")));
}

}  // namespace

TEST_CASE("YAML: every miner before a loss has the bits of the composed one") {
  using namespace miner;
  using loss::MarginLoss;
  check<MarginLoss, AngularMiner>({.angle = 60}, {"angle: 60"});
  check<MarginLoss, BatchEasyHardMiner>(
      {.pos_strategy = Strategy::hard,
       .neg_strategy = Strategy::easy,
       .allowed_pos_range = {0.1, 1.2},
       .allowed_neg_range = {0.2, 1.3}},
      {"pos_strategy: hard", "neg_strategy: easy", "allowed_pos_range: [0.1, 1.2]",
       "allowed_neg_range: [0.2, 1.3]"});
  check<MarginLoss, BatchHardMiner>({}, {});
  check<MarginLoss, DistanceWeightedMiner>({.cutoff = 1.2, .nonzero_loss_cutoff = 1.6},
                                           {"cutoff: 1.2", "nonzero_loss_cutoff: 1.6"});
  check<MarginLoss, MultiSimilarityMiner>({.epsilon = -0.5}, {"epsilon: -0.5"});
  check<MarginLoss, PairMarginMiner>({.pos_margin = 0.9, .neg_margin = 1.3},
                                     {"pos_margin: 0.9", "neg_margin: 1.3"});
  check<MarginLoss, TripletMarginMiner>({.margin = 0.6, .type_of_triplets = TripletType::semihard},
                                        {"margin: 0.6", "type_of_triplets: semihard"});
}

TEST_CASE("YAML: MarginLoss learns its boundary behind a miner") {
  const auto config =
      read("MarginLoss", "learn_beta: true, beta: 0.9, miner: {name: BatchHardMiner}");
  ParameterTable table;
  const AnyLosses losses(config, Scope(table, "loss"));
  REQUIRE(table.find("loss.0.beta") != nullptr);
  CHECK(table.find("loss.0.beta")->loss == "MarginLoss");  // the scope of its optimizer
  CHECK_NOTHROW(from_yaml("MarginLoss", "learn_beta: true, miner: {name: BatchHardMiner}"));
}

TEST_CASE("YAML: TripletMarginLoss sees the triplets that a miner chose, not their pairs alone") {
  using namespace miner;
  using loss::TripletMarginLoss;
  check<TripletMarginLoss, AngularMiner>({.angle = 60}, {"angle: 60"});
  check<TripletMarginLoss, TripletMarginMiner>(
      {.margin = 0.3, .type_of_triplets = TripletType::hard},
      {"margin: 0.3", "type_of_triplets: hard"});
  check<TripletMarginLoss, BatchHardMiner>({}, {});
}

TEST_CASE("YAML: a miner stands before every loss that leaves the choice to it") {
  std::set<std::string> names;
  for (const auto& [name, add] : config::detail::mined_registry<Cpu>()) {
    INFO(name);
    names.insert(name);
    const auto got = from_yaml(name, "miner: {name: BatchHardMiner}");
    CHECK(std::all_of(got.begin(), got.end(), [](float x) { return std::isfinite(x); }));
    CHECK(std::any_of(got.begin(), got.end(), [](float x) { return x != 0; }));
  }
  CHECK(names == std::set<std::string>{"CircleLoss", "ContrastiveLoss", "MarginLoss",
                                       "MultiSimilarityLoss", "NTXentLoss", "PairwiseCosface",
                                       "RankedListLoss", "TripletMarginLoss"});
  CHECK_THAT(refused("CELoss", "miner: {name: BatchHardMiner}"),
             ContainsSubstring("Loss.Train.0.CELoss.miner: no miner stands before CELoss; it can "
                               "before: CircleLoss, ContrastiveLoss"));
  CHECK_THAT(refused("MarginLoss", "miner: {name: BatchHardMine}"),
             ContainsSubstring("Loss.Train.0.MarginLoss.miner: there is no BatchHardMine (did you "
                               "mean BatchHardMiner?)"));
  CHECK_THAT(refused("MarginLoss", "miner: {}"), ContainsSubstring("miner.name is missing"));
  CHECK_THAT(refused("MarginLoss", "miner: BatchHardMiner"),
             ContainsSubstring("miner: expected a mapping"));
  CHECK_THAT(refused("MarginLoss", "miner: {name: DistanceWeightedMiner, cutoff: 3}"),
             ContainsSubstring("cutoff must be in (0, 2), got 3"));
  CHECK_THAT(refused("MarginLoss", "miner: {name: TripletMarginMiner, type_of_triplets: any}"),
             ContainsSubstring("any is none of all, easy, hard, semihard"));
}

TEST_CASE("YAML: CrossBatchMemory around every loss on pairs") {
  using Memory = loss::CrossBatchMemory<loss::ContrastiveLoss>;
  const bool same =
      from_yaml("CrossBatchMemory",
                "weight: 0.5, memory_size: 16, embedding_size: 4, start_iter: 1, loss: {name: "
                "ContrastiveLoss, weight: 0.4, margin: 0.3}") ==
      evaluate<Memory>({.memory_size = 16,
                        .embedding_size = dim,
                        .start_iter = 1,
                        .loss = {.weight = 0.2, .margin = 0.3}});
  CHECK(same);
  for (const auto& [name, add] : config::detail::mined_registry<Cpu>()) {
    INFO(name);
    const auto got = from_yaml(
        "CrossBatchMemory", text("memory_size: 32, embedding_size: 4, loss: {name: ", name, "}"));
    CHECK(std::all_of(got.begin(), got.end(), [](float x) { return std::isfinite(x); }));
    CHECK(std::any_of(got.begin(), got.end(), [](float x) { return x != 0; }));
  }
  CHECK_THAT(refused("CrossBatchMemory", "loss: {name: CircleLoss}"),
             ContainsSubstring("CrossBatchMemory.embedding_size is missing"));
  CHECK_THAT(refused("CrossBatchMemory", "embedding_size: 4, loss: {name: SupConLoss}"),
             ContainsSubstring("CrossBatchMemory.loss: there is no SupConLoss"));
  CHECK_THAT(refused("CrossBatchMemory", "embedding_size: 4, loss: {name: CircleLoss, gama: 3}"),
             ContainsSubstring("CrossBatchMemory.loss.gama: unknown key (did you mean gamma?)"));
  CHECK_THAT(refused("CrossBatchMemory",
                     "embedding_size: 4, memry_size: 3, loss: {name: "
                     "CircleLoss}"),
             ContainsSubstring("did you mean memory_size?"));
}
