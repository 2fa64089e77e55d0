// The whole list of components that the project promises, written out: each is built from YAML
// under its name, the list is printed, and what is registered beyond it is an error, too.

#include <algorithm>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/small_experiment.hpp"

using namespace kindred;
using namespace kindred::config;
using namespace kindred::test;

namespace {

using Reader = config::detail::ModelReader<Cpu>;
/// A name in YAML and the settings that it needs.
using Listed = std::vector<std::pair<std::string, std::string>>;

Section section(const std::string& yaml, const std::string& path = "") {
  return Section(YAML::Load(yaml), path);
}
std::string named(const std::string& name, const std::string& settings) {
  return "{name: " + name + (settings.empty() ? "" : ", ") + settings + "}";
}
std::set<std::string> names_of(const Listed& listed) {
  std::set<std::string> names;
  for (const auto& [name, settings] : listed) names.insert(name);
  return names;
}

/// Builds every component of a list and prints its name. build(name, settings) gives the name that
/// the component has itself.
template <class Build>
void check_list(const char* group, const Listed& listed, Build&& build) {
  std::cout << group << ':';
  for (const auto& [name, settings] : listed) {
    INFO(group << ": " << name);
    std::string got;
    REQUIRE_NOTHROW(got = build(name, settings));
    CHECK(got == name);
    std::cout << ' ' << got;
  }
  std::cout << std::endl;
}

const Listed necks{{"FC", "embedding_size: 8, class_num: 4"},
                   {"BNNeck", "num_features: 8"},
                   {"BNNeck", "num_features: 8, freeze_bias: True"},
                   {"MetaBNNeck", "num_features: 8"},
                   {"VehicleNeck", "in_channels: 8, out_channels: 4"},
                   {"FRFNNeck", "num_features: 8, low_dim: 4"},
                   {"Tanh", ""},
                   {"Identity", ""},
                   {"GeM", "num_features: 8"}};

const Listed heads{{"FC", ""},
                   {"NormFace", ""},
                   {"ArcMargin", "easy_margin: True"},
                   {"ArcMargin", "gradient: exact"},
                   {"ArcMargin", "gradient: straight_through"},
                   {"CosMargin", ""},
                   {"SphereFace", ""},
                   {"CombinedMargin", "m1: 1, m2: 0.3, m3: 0.2"},
                   {"CircleMargin", "margin: 0.25, scale: 32"},
                   {"SubCenterArcMargin", ""},
                   {"AdaMargin", ""},
                   {"MagMargin", ""},
                   {"CurricularMargin", ""},
                   {"ElasticMargin", ""},
                   {"ElasticMargin", "plus: True"},
                   {"DynamicMargin", "class_counts: [1, 2, 3]"}};

const std::string proxies = "num_classes: 3, embedding_size: 4";
const Listed losses{{"CELoss", ""},
                    {"CELoss", "epsilon: 0.1"},
                    {"CELoss", "target: teacher"},
                    {"TripletLoss", ""},
                    {"TripletLossV2", ""},
                    {"TriHardLoss", ""},
                    {"MSMLoss", ""},
                    {"EmlLoss", ""},
                    {"NpairsLoss", ""},
                    {"CenterLoss", "num_classes: 3, feat_dim: 4"},
                    {"SupConLoss", ""},
                    {"PairwiseCosface", ""},
                    {"ContrastiveLoss", ""},
                    {"CrossBatchMemory", "embedding_size: 4, loss: {name: ContrastiveLoss}"},
                    {"TripletAngularMarginLoss", ""},
                    {"MultiSimilarityLoss", ""},
                    {"CircleLoss", ""},
                    {"ProxyAnchorLoss", proxies},
                    {"ProxyNCALoss", proxies},
                    {"SoftTripleLoss", proxies},
                    {"NTXentLoss", ""},
                    {"MarginLoss", ""},
                    {"MarginLoss", "miner: {name: DistanceWeightedMiner}"},
                    {"AngularLoss", ""},
                    {"LiftedStructureLoss", ""},
                    {"FastAPLoss", ""},
                    {"RankedListLoss", ""},
                    {"SignalToNoiseRatioContrastiveLoss", ""},
                    {"IntraPairVarianceLoss", ""},
                    {"VICRegLoss", ""}};
const Listed distillation_losses{
    {"DMLLoss", ""}, {"KLDivLoss", ""}, {"DistanceLoss", ""}, {"RKDLoss", ""}, {"DKDLoss", ""}};
const Listed hashing_losses{{"DSHSDLoss", ""},          {"LCDSHLoss", ""},   {"DCHLoss", ""},
                            {"DPSHLoss", ""},           {"HashNetLoss", ""}, {"CSQLoss", proxies},
                            {"GreedyHashLoss", proxies}};
/// Not on the list: what else has a name, and other names of what is there.
const std::set<std::string> more_losses{"TripletMarginLoss",     "MagRegularizer",
                                        "ContrastiveLoss_XBM",   "DistillationCELoss",
                                        "DistillationGTCELoss",  "DistillationDMLLoss",
                                        "DistillationKLDivLoss", "DistillationRKDLoss",
                                        "DistillationDKDLoss",   "DistillationDistanceLoss"};

const Listed miners{{"BatchHardMiner", ""},
                    {"BatchEasyHardMiner", ""},
                    {"TripletMarginMiner", "type_of_triplets: semihard"},
                    {"DistanceWeightedMiner", ""},
                    {"MultiSimilarityMiner", ""},
                    {"PairMarginMiner", ""},
                    {"AngularMiner", ""}};

const Listed optimizer_rules{
    {"SGD", ""}, {"Momentum", ""}, {"Adam", ""}, {"AdamW", ""}, {"RMSProp", ""}};
const std::string rate = "learning_rate: 0.1";
const Listed schedules{{"Constant", rate},
                       {"ConstLR", rate},
                       {"Linear", rate},
                       {"Cosine", rate},
                       {"Cyclic", "base_learning_rate: 0.1, max_learning_rate: 1, step_size_up: 3"},
                       {"Step", rate + ", step_size: 3, gamma: 0.1"},
                       {"Piecewise", "decay_epochs: [3], values: [0.1, 0.01]"},
                       {"MultiStepDecay", rate + ", milestones: [3]"},
                       {"ReduceOnPlateau", rate},
                       {"CosineFixmatch", rate + ", num_warmup_steps: 0"},
                       {"OneCycleLR", "max_learning_rate: 0.1"}};

/// The one loss of an entry of Loss.Train; the name that it reports.
std::string built_loss(const std::string& name, const std::string& settings) {
  const auto config = Reader::losses(section("Train: [{" + name + ": {weight: 0.5" +
                                             (settings.empty() ? "" : ", ") + settings + "}}]"));
  ParameterTable table;
  const AnyLosses made(config, Scope(table, "loss"));
  std::vector<loss::LossReport> reports(static_cast<std::size_t>(made.entries()));
  made.describe(reports.data());
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].weight == 0.5);
  return reports[0].name;
}

}  // namespace

TEST_CASE("components: necks and heads of the list, and no other") {
  check_list("necks", necks, [](const std::string& name, const std::string& settings) {
    ParameterTable table;
    const AnyLayer made(Reader::neck(section(named(name, settings)), 8), Scope(table, "neck"));
    return std::string(made.name());
  });
  CHECK_THROWS_WITH(Reader::neck(section("{name: None}"), 8),
                    ContainsSubstring("known: BNNeck, FC, FRFNNeck, GeM, Identity, MetaBNNeck, "
                                      "Tanh, VehicleNeck") &&
                        !ContainsSubstring("VehicleNeck, "));
  check_list("merged stages", {{"FPN", ""}}, [](const std::string&, const std::string&) {
    ParameterTable table;
    const AnyLayer made(Reader::backbone(section("{name: PPLCNet_x0_25, fpn: {out_channels: 8}}"),
                                         config::detail::Stop::blocks6),
                        Scope(table, "backbone"));
    return std::string(made.name());
  });
  const auto build = [](const std::string& name, const std::string& settings) {
    const std::string sizes = "embedding_size: 4, class_num: 3";
    ParameterTable table;
    const AnyHead made(
        Reader::head(section(named(name, sizes + (settings.empty() ? "" : ", ") + settings))),
        Scope(table, "head"));
    CHECK(made.logit_free() == (name != "FC"));
    return std::string(made.name());
  };
  check_list("heads", heads, build);
  std::set<std::string> registered{"FC", "ArcMargin"};  // known without a registration
  for (const auto& [name, make] : config::detail::head_registry()) registered.insert(name);
  CHECK(registered == names_of(heads));
}

TEST_CASE("components: losses, miners and hashing losses of the list, and no other") {
  check_list("losses", losses, built_loss);
  check_list("distillation", distillation_losses, built_loss);
  check_list("deep hashing", hashing_losses, built_loss);
  std::set<std::string> all = more_losses;
  for (const Listed* listed : {&losses, &distillation_losses, &hashing_losses})
    all.merge(names_of(*listed));
  std::set<std::string> registered{"CELoss", "TripletLossV2"};
  for (const auto& [name, add] : config::detail::loss_registry<Cpu>()) registered.insert(name);
  CHECK(registered == all);
  check_list("miners", miners, [](const std::string& name, const std::string& settings) {
    built_loss("MarginLoss", "miner: " + named(name, settings));
    return name;
  });
  try {
    built_loss("MarginLoss", "miner: {name: none}");
  } catch (const ConfigError& e) {
    std::string known = e.what();
    for (const std::string& name : names_of(miners)) {
      const auto at = known.find(name);
      REQUIRE(at != std::string::npos);
      known.erase(at, name.size());
    }
    CHECK(known.find("Miner,") == std::string::npos);  // none is left
  }
}

TEST_CASE("components: optimizers, schedules, groups and the moving average of the list") {
  check_list(
      "optimizers", optimizer_rules, [](const std::string& name, const std::string& settings) {
        const auto groups = config::optimizers(
            section("Optimizer: " + named(name, "lr: {learning_rate: 0.1}" +
                                                    (settings.empty() ? "" : ", " + settings))));
        REQUIRE(groups.size() == 1);
        return std::string(groups[0].optimizer.name());
      });
  check_list("schedules", schedules, [](const std::string& name, const std::string& settings) {
    const auto groups =
        config::optimizers(section("Optimizer: {name: SGD, lr: " + named(name, settings) + "}"));
    return std::string(groups.at(0).schedule.name());
  });
  SmallExperiment small;
  CHECK_NOTHROW(
      small({"Optimizer=[{SGD: {scope: CenterLoss, lr: {learning_rate: 0.5}}}, {Adam: "
             "{scope: RecModel, lr: {learning_rate: 0.001}}}]",
             "EMA={decay: 0.99}", "Loss.Train.0={CenterLoss: {num_classes: 4, feat_dim: 16}}"}));
}

TEST_CASE("components: samplers and metrics of the list") {
  SmallExperiment small;
  const auto set = config::detail::data_set(section(text(
      "{name: ImageNetDataset, cls_label_path: ", (small.folder() / "list.txt").string(), "}")));
  const Listed samplers{
      {"BatchSampler", ""},
      {"PKSampler", "sample_per_id: 2"},
      {"DistributedRandomIdentitySampler", "num_instances: 2"},
      {"MixSampler", "iter_per_epoch: 3, sample_configs: [{name: BatchSampler, ratio: 1}]"},
      {"HierarchicalSampler",
       text("super_label_path: ", (small.folder() / "supers.txt").string())}};
  check_list("samplers", samplers, [&](const std::string& name, const std::string& settings) {
    const Section s =
        section(named(name, "batch_size: 8" + (settings.empty() ? "" : ", " + settings)));
    const auto sampler = config::detail::sampler(s, set);
    s.finish();
    CHECK(sampler.batches(set.list.labels(), Seed{1}, 0).size() > 0);
    return name;
  });

  // Each metric gives its numbers on the images; those of codes need codes.
  const std::map<std::string, std::vector<std::string>> metrics{
      {"Recallk", {"recall1", "recall5"}},
      {"Precisionk", {"precision1", "precision5"}},
      {"mAP", {"map", "r_precision", "map_at_r"}},
      {"mINP", {"minp"}},
      {"TopkAcc", {"top1", "top5"}},
      {"Clustering", {"nmi", "ami"}},
      {"Verification",
       {"tar_at_far_0.001", "equal_error_rate", "auc", "genuine_pairs", "impostor_pairs"}},
      {"PairVerification", {"fold_accuracy", "fold_deviation"}},
      {"ClassReport", {"class_mean_recall1", "class_mean_map"}},
      {"Hamming", {"hamming_map", "precision_in_radius2", "recall_in_radius2"}}};
  std::cout << "metrics:";
  for (const auto& [name, numbers] : metrics) {
    INFO(name);
    std::vector<std::string> overrides{"Metric.Eval=[{" + name + ": {}}, {Recallk: {}}]"};
    if (name == "Recallk") overrides[0] = "Metric.Eval=[{Recallk: {}}]";
    if (name == "Hamming") overrides.push_back("Global.feature_binarize=round");
    if (name == "PairVerification")
      overrides[0] = "Metric.Eval=[{PairVerification: {folds: 2}}, {Recallk: {}}]";
    if (name == "PairVerification") {  // 0 and 1, ...: alike; 3 and 4, ...: not
      std::string pairs;
      for (int i = 0; i < 15; ++i)
        pairs += text(i, ".png ", i / 4, "\n", i + 1, ".png ", (i + 1) / 4, "\n");
      write_bytes(small.folder() / "pairs.txt", pairs);
      overrides.push_back("DataLoader.Eval.dataset.cls_label_path=FOLDER/pairs.txt");
    }
    const auto e = small(overrides);
    auto evaluation = e.evaluation();
    auto all = e.metrics(evaluation(MeanColours{}));
    all.insert(all.end(), evaluation.further().begin(), evaluation.further().end());
    std::vector<float> logits;
    const auto top = evaluation.classify([&](View<const float> x) {
      logits.assign(static_cast<std::size_t>(6 * x.dim(0)), 0.f);
      return View<const float>{logits.data(), {x.dim(0), 6}};
    });
    all.insert(all.end(), top.begin(), top.end());
    for (const std::string& number : numbers) {
      INFO(number);
      CHECK(std::any_of(all.begin(), all.end(), [&](const auto& m) { return m.name == number; }));
    }
    std::cout << ' ' << name;
  }
  std::cout << std::endl;
  for (const char* key : {"Global.re_ranking=True", "Global.query_expansion={k: 2}",
                          "Global.feature_binarize=sign", "Global.feature_binarize=round"}) {
    INFO(key);
    const auto e = small({key});
    auto evaluation = e.evaluation();
    CHECK(evaluation(MeanColours{}).mAP > 0);
  }
}
