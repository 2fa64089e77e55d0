// Every loss by its name in YAML.

#include <kindred/config/losses.hpp>

#include "support/catch.hpp"

using namespace kindred;
using namespace kindred::config;

namespace {

std::string refused(const std::string& name, const std::string& settings) {
  AnyLosses::Config losses;
  const Section s(YAML::Load(settings), "Loss.Train.0." + name);
  try {
    add_registered_loss(losses, name, s);
    s.finish();
    ParameterTable table;
    const AnyLosses made(losses, Scope(table));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("YAML: every loss on features is built under its name, with its weight and slot") {
  CHECK(config::detail::loss_registry<Cpu>().size() == 34);
  for (const auto& [name, add] : config::detail::loss_registry<Cpu>()) {
    INFO(name);
    if (name == "ContrastiveLoss_XBM") continue;  // two losses, see below
    std::string settings = "{weight: 0.25, feature_from: backbone";
    if (name.starts_with("Proxy") || name == "SoftTripleLoss" || name == "CSQLoss" ||
        name == "GreedyHashLoss")
      settings += ", num_classes: 3, embedding_size: 4";
    if (name == "CenterLoss") settings += ", num_classes: 3, feat_dim: 4";
    AnyLosses::Config config;
    const Section s(YAML::Load(settings + "}"), "loss");
    add_registered_loss(config, name, s);
    s.finish();
    ParameterTable table;
    const AnyLosses losses(config, Scope(table, "loss"));
    loss::LossReport report;
    REQUIRE(losses.entries() == 1);
    losses.describe(&report);
    CHECK(report.name == name);
    CHECK(report.weight == 0.25);
    CHECK(losses.reads(loss::FeatureFrom::backbone));
    CHECK_FALSE(losses.reads(loss::FeatureFrom::features));
    CHECK(losses.logit_use() ==
          (name == "DSHSDLoss" ? loss::LogitUse::full : loss::LogitUse::none));
  }
}

TEST_CASE("YAML: settings of losses are read, ignored, or refused by name") {
  CHECK(refused("TripletLos", "{}").find("did you mean TripletLoss?") != std::string::npos);
  CHECK(refused("MSMLoss", "{margin: 0.2, batch_size: 60, samples_each_class: 4}") == "");
  CHECK(refused("SupConLoss", "{views: 4, contrast_mode: all}") == "");
  CHECK(refused("SupConLoss", "{contrast_mode: one}").find("only all") != std::string::npos);
  CHECK(refused("DSHSDLoss", "{multi_label: true}").find("only false") != std::string::npos);
  CHECK(refused("DCHLoss", "{gamma: 20, _lambda: 0.1, n_class: 7}") == "");
  CHECK(refused("DCHLoss", "{gamma: -1}").find("gamma") != std::string::npos);
  CHECK(refused("NTXentLoss", "{temperature: 0}").find("temperature") != std::string::npos);
  CHECK(refused("NTXentLoss", "{temprature: 1}").find("did you mean temperature") !=
        std::string::npos);
  CHECK(refused("CenterLoss", "{num_classes: 3}").find("feat_dim") != std::string::npos);
  CHECK(refused("TripletLoss", "{feature_from: neck}").find("neck") != std::string::npos);
}

TEST_CASE("YAML: ContrastiveLoss_XBM is the loss of the batch and that of the memory") {
  const Section s(YAML::Load("{weight: 0.5, xbm_size: 32, xbm_weight: 0.4, start_iter: 3, margin: "
                             "0.3, embedding_size: 4}"),
                  "loss");
  AnyLosses::Config config;
  add_registered_loss(config, "ContrastiveLoss_XBM", s);
  s.finish();
  ParameterTable table;
  const AnyLosses losses(config, Scope(table, "loss"));
  REQUIRE(losses.entries() == 2);
  loss::LossReport reports[2];
  losses.describe(reports);
  CHECK(reports[0].weight == 0.5);
  CHECK(reports[1].weight == Approx(0.2));
  CHECK(table.find("loss.1.features")->shape == Shape{32, 4});
  CHECK(refused("ContrastiveLoss_XBM", "{xbm_size: 32}").find("margin is missing") !=
        std::string::npos);
}
