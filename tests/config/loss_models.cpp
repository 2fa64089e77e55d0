// Every loss in a model from YAML trains. The losses are registered by rec/components_losses.cpp.

#include <cmath>
#include <vector>

#include <kindred/config/model.hpp>

#include "support/catch.hpp"
#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

config::Model model_with(const std::string& losses) {
  const std::string yaml = R"(
Arch:
  name: RecModel
  Backbone: {name: PPLCNet_x0_25, class_expand: 32, dropout_prob: 0}
  BackboneStopLayer: {name: flatten}
  Neck: {name: FC, embedding_size: 32, class_num: 16}
  Head: {name: FC, embedding_size: 16, class_num: 3}
Loss:
  Train:)";
  const config::Section root(YAML::Load(yaml + losses + "\n"), "");
  return config::Model(config::model(root), Seed{3});
}

const std::vector<std::int64_t> labels{0, 0, 1, 1, 2, 2};  // as grouped batches and N-pairs want

}  // namespace

TEST_CASE("YAML models: every loss trains one step") {
  const auto images = random_values<float>(6 * 32 * 32 * 3, 1);
  REQUIRE(config::detail::loss_registry<Cpu>().size() >= 34);
  for (const auto& [name, add] : config::detail::loss_registry<Cpu>()) {
    INFO(name);
    std::string settings = "weight: 0.5";
    if (name.starts_with("Proxy") || name == "SoftTripleLoss" || name == "CSQLoss" ||
        name == "GreedyHashLoss")
      settings += ", num_classes: 3, embedding_size: 16";
    if (name == "ContrastiveLoss_XBM")
      settings += ", xbm_size: 16, xbm_weight: 1, start_iter: 0, margin: 0.3, embedding_size: 16";
    if (name == "CenterLoss") settings += ", num_classes: 3, feat_dim: 16";
    if (name == "MagRegularizer") settings += ", l_a: 0.01, u_a: 100";
    config::Model model =
        model_with(text("\n    - CELoss: {weight: 1.0}\n    - ", name, ": {", settings, "}"));
    auto session = model.train_session({.threads = 1});
    const View<const float> x{images.data(), {6, 32, 32, 3}};
    const auto losses = session.forward_backward(x, labels, 0);
    if (name == "ContrastiveLoss_XBM") {  // the memory has moved on at the next step
      CHECK(losses.size() == 3);
      CHECK(session.gradients_finite());
      continue;
    }
    REQUIRE(losses.size() == 2);
    CHECK(losses[1].name == name);
    CHECK(std::isfinite(losses[1].value));
    CHECK(losses[1].active > 0);
    REQUIRE(session.gradients_finite());
    if (name == "GreedyHashLoss") continue;  // its gradient is on purpose not the derivative
    const double before = losses[0].value + losses[1].value;
    const auto gradients = session.gradients();
    double square = 0;
    for (const float g : gradients) square += static_cast<double>(g) * g;
    const auto rate = static_cast<float>(1e-3 / square);  // to first order the loss falls by 1e-3
    for (std::size_t i = 0; i < gradients.size(); ++i) model.trainable()[i] -= rate * gradients[i];
    session.zero_gradients();
    const auto after = session.forward_backward(x, labels, 0);
    CHECK(before - after[0].value - after[1].value == Approx(1e-3).epsilon(0.5));
  }
}

TEST_CASE("YAML models: a loss that is not there is refused with the names of those that are") {
  CHECK_THROWS_WITH(model_with("\n    - TripletLos: {weight: 1.0}"),
                    ContainsSubstring("Loss.Train.0.TripletLos: there is no TripletLos (did you "
                                      "mean TripletLoss?)") &&
                        ContainsSubstring("CELoss") && ContainsSubstring("VICRegLoss"));
}

TEST_CASE("YAML models: a program's own loss is registered under its name") {
  config::register_loss("Mine", [](config::AnyLosses::Config& losses, const config::Section& s) {
    config::AnyLosses::add<loss::CELoss>(losses, {.weight = s.get<double>("strength")});
  });
  const config::Model model = model_with("\n    - Mine: {strength: 0.25}");
  loss::LossReport report;
  model.loss().describe(&report);
  CHECK(report.weight == 0.25);
  CHECK_THROWS_WITH(model_with("\n    - Mine: {strenght: 0.25}"), ContainsSubstring("strength"));
  config::detail::loss_registry<Cpu>().erase("Mine");
}
