// Every loss by its name in YAML.

#include <kindred/config/losses.hpp>

#include "support/catch.hpp"

using namespace kindred;
using namespace kindred::config;

namespace {

std::string refused(const std::string& name, const std::string& settings) {
  any::Losses<cpu::Context, float>::Config losses;
  const Section s(YAML::Load(settings), "Loss.Train.0." + name);
  try {
    if (!detail::add_feature_loss(losses, name, s)) return "no loss of that name";
    s.finish();
    ParameterTable table;
    const any::Losses<cpu::Context, float> made(losses, Scope(table));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("YAML: every loss on features is built under its name, with its weight and slot") {
  std::set<std::string> names;
  detail::add_feature_loss_names(names);
  CHECK(names.size() == 28);
  for (const std::string& name : names) {
    INFO(name);
    std::string settings = "{weight: 0.25, feature_from: backbone";
    if (name.starts_with("Proxy") || name == "SoftTripleLoss")
      settings += ", num_classes: 3, embedding_size: 4";
    if (name == "CenterLoss") settings += ", num_classes: 3, feat_dim: 4";
    any::Losses<cpu::Context, float>::Config config;
    const Section s(YAML::Load(settings + "}"), "loss");
    REQUIRE(detail::add_feature_loss(config, name, s));
    s.finish();
    ParameterTable table;
    const any::Losses<cpu::Context, float> losses(config, Scope(table, "loss"));
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
  any::Losses<cpu::Context, float>::Config losses;
  CHECK_FALSE(detail::add_feature_loss(losses, "TripletLos", Section(YAML::Node(), "")));
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
