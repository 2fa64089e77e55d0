// Every margin head from YAML with update_in_tile trains as without, to the bit. The heads are
// registered by rec/components_heads.cpp.

#include <vector>

#include <kindred/config/model.hpp>
#include <kindred/train/trainer.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

config::Model model_with(const std::string& head, bool in_tile) {
  const std::string yaml = R"(
Arch:
  name: RecModel
  Backbone: {name: PPLCNet_x0_25, class_expand: 32, dropout_prob: 0}
  BackboneStopLayer: {name: flatten}
  Neck: {name: FC, embedding_size: 32, class_num: 12}
  Head: {embedding_size: 12, class_num: 900, )";
  const config::Section root(
      YAML::Load(yaml + head + (in_tile ? ", update_in_tile: True}\n" : "}\n") +
                 "Loss: {Train: [CELoss: {weight: 1.0}, TripletLossV2: {weight: 0.5}]}\n"),
      "");
  return config::Model(config::model(root), Seed{3});
}

/// All values of the model after some steps.
std::vector<float> trained(const std::string& head, bool in_tile, int threads) {
  const std::vector<std::int64_t> labels{0, 0, 411, 411, 899, 899};
  const auto images = random_values<float>(6 * 32 * 32 * 3, 1);
  config::Model model = model_with(head, in_tile);
  CHECK((model.parameters().updated_in_tile() != nullptr) == in_tile);
  Trainer trainer(model, optim::Momentum{.weight_decay = 1e-3}, lr::Constant{0.1},
                  {.threads = threads});
  for (std::int64_t step = 0; step < 3; ++step)
    trainer.step({images.data(), {6, 32, 32, 3}}, labels, {.step = step});
  std::vector<float> all(model.trainable().begin(), model.trainable().end());
  all.insert(all.end(), model.statistics().begin(), model.statistics().end());
  return all;
}

}  // namespace

TEST_CASE("YAML models: update_in_tile changes no bit of any margin head") {
  std::vector<std::string> heads{"name: ArcMargin, margin: 0.2, scale: 30"};
  for (const auto& [name, make] : config::detail::head_registry<Cpu>()) {
    std::string settings = "name: " + name;
    if (name == "CircleMargin") settings += ", margin: 0.35, scale: 16";
    if (name == "DynamicMargin") {
      settings += ", sub_centers: 2, class_counts: [1";
      for (int c = 1; c < 900; ++c) settings += ", 2";
      settings += "]";
    }
    heads.push_back(settings);
  }
  REQUIRE(heads.size() >= 12);
  for (const std::string& head : heads) {
    INFO(head.substr(0, 60));
    const auto expected = trained(head, false, 1);
    const bool same = trained(head, true, 1) == expected;
    const bool same_with_two_threads = trained(head, true, 2) == expected;
    CHECK(same);
    CHECK(same_with_two_threads);
  }
  const bool heads_differ = trained(heads[0], true, 1) == trained(heads[1], true, 1);
  CHECK_FALSE(heads_differ);  // so the comparison can fail
}

TEST_CASE("YAML models: update_in_tile is refused beside a loss that reads the logits, and by FC") {
  const auto refused = [](const std::string& head, const std::string& loss) {
    try {
      const config::Section root(
          YAML::Load("Arch: {Backbone: {name: PPLCNet_x0_25, class_expand: 32}, BackboneStopLayer: "
                     "{name: flatten}, Head: {embedding_size: 32, class_num: 5, " +
                     head + ", update_in_tile: True}}\nLoss: {Train: [" + loss + "]}\n"),
          "");
      config::Model model(config::model(root), Seed{3});
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  CHECK(refused("name: CosMargin", "CELoss: {weight: 1.0}") == "nothing was thrown");
  CHECK_THAT(refused("name: CosMargin", "TripletLossV2: {weight: 1.0}"),
             ContainsSubstring("head.CosMargin: update_in_tile") &&
                 ContainsSubstring("no loss reads the head; add CELoss"));
  CHECK_THAT(refused("name: FC", "CELoss: {weight: 1.0}"), ContainsSubstring("update_in_tile"));
}
