// Models from YAML: the same bits as models composed in C++, PaddleClas' own files, clear errors.

#include <kindred/config/model.hpp>

#include "io/files.hpp"
#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

const std::string product = R"(
Arch:
  name: RecModel
  Backbone:
    name: PPLCNet_x0_25
    pretrained: False
    class_expand: 24
    dropout_prob: 0.1
  BackboneStopLayer:
    name: flatten
  Neck:
    name: FC
    embedding_size: 24
    class_num: 8
  Head:
    name: ArcMargin
    embedding_size: 8
    class_num: 5
    margin: 0.15
    scale: 16
Loss:
  Train:
    - CELoss:
        weight: 1.0
    - TripletLossV2:
        weight: 0.5
        margin: 0.25
  Eval:
    - CELoss:
        weight: 1.0
)";

config::Section section(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  TemporaryFolder folder;
  write_bytes(folder / "config.yaml", yaml);
  return config::Section::load(folder / "config.yaml", overrides);
}

config::Model model_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return config::Model(config::model(section(yaml, overrides)), Seed{9});
}

/// The text of the ConfigError of reading `yaml` with `overrides` as a model.
std::string error_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    model_of(yaml, overrides);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}
std::string product_with(const std::vector<std::string>& overrides) {
  return error_of(product, overrides);
}

/// Parameters, statistics and losses after one training step.
template <class Model>
std::vector<double> after_one_step(Model& model) {
  const Shape shape{6, 32, 32, 3};
  const auto images = random_values<float>(shape.size(), 3);
  const std::vector<std::int64_t> labels{0, 0, 1, 1, 4, 4};
  auto session = model.train_session({.threads = 1});
  const auto losses = session.forward_backward(view(images, shape), labels, 5);
  const optim::Momentum momentum{.weight_decay = 1e-3};
  const auto ranges = optim::ranges(model.parameters(), momentum.weight_decay, {});
  std::vector<std::vector<float>> moments(1, std::vector<float>(model.trainable().size()));
  momentum.update(session.context(), std::span<const optim::Range>(ranges),
                  optim::Update<float>{model.trainable(), session.gradients(), moments, 0.1, 1});
  std::vector<double> all;
  for (const auto& l : losses) all.insert(all.end(), {l.value, l.weight, l.active});
  all.insert(all.end(), model.trainable().begin(), model.trainable().end());
  all.insert(all.end(), model.statistics().begin(), model.statistics().end());
  return all;
}

template <class A, class B>
void expect_same(A& from_yaml, B& composed) {
  const auto& a = from_yaml.parameters().entries();
  const auto& b = composed.parameters().entries();
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].name == b[i].name);
    CHECK(a[i].shape == b[i].shape);
    CHECK(a[i].lr_multiplier == b[i].lr_multiplier);
  }
  CHECK(from_yaml.builds_logits() == composed.builds_logits());
  const bool same_bits = after_one_step(from_yaml) == after_one_step(composed);
  CHECK(same_bits);
}

}  // namespace

TEST_CASE("config: a margin head from YAML has the bits of the composed model") {
  auto from_yaml = model_of(product);
  RecModel<backbone::PPLCNet, neck::FC, head::ArcMargin,
           loss::Combined<loss::CELoss, loss::TripletLossV2>>
      composed({.backbone = {.scale = 0.25, .dropout_prob = 0.1, .class_expand = 24},
                .neck = {.embedding_size = 24, .class_num = 8},
                .head = {.embedding_size = 8, .class_num = 5, .margin = 0.15, .scale = 16},
                .loss = {{.weight = 1}, {.weight = 0.5, .margin = 0.25}}},
               Seed{9});
  expect_same(from_yaml, composed);
}

TEST_CASE("config: BNNeck, FC head and smoothed CELoss from YAML have the bits of the composed") {
  auto from_yaml = model_of(R"(
Arch:
  Backbone: {name: PPLCNet, scale: 0.25, class_expand: 24, lr_mult_list: [0.1, 0.2, 0.3, 0.4, 0.5, 1.0]}
  BackboneStopLayer: {name: flatten}
  Neck: {name: BNNeck, num_features: 24, bias_attr: {learning_rate: 0.0}}
  Head: {name: FC, embedding_size: 24, class_num: 5, bias_attr: False}
Loss:
  Train: [CELoss: {epsilon: 0.1}, TripletLossV2: {margin: 0.3, normalize_feature: False, feature_from: backbone}]
)");
  RecModel<backbone::PPLCNet, neck::BNNeck, head::FC,
           loss::Combined<loss::CELoss, loss::TripletLossV2>>
      composed({.backbone = {.scale = 0.25,
                             .class_expand = 24,
                             .lr_mult_list = {0.1, 0.2, 0.3, 0.4, 0.5, 1.0}},
                .neck = {.num_features = 24, .bias_lr_mult = 0},
                .head = {24, 5, false},
                .loss = {{.epsilon = 0.1},
                         {.margin = 0.3,
                          .normalize_feature = false,
                          .feature_from = loss::FeatureFrom::backbone}}},
               Seed{9});
  expect_same(from_yaml, composed);
}

TEST_CASE("config: a missing key, an unknown key and a misspelt name say where and what instead") {
  CHECK(error_of("Arch: {Backbone: {name: PPLCNet_x0_25}}\n") == "Arch.Head is missing");
  CHECK(error_of("Global: {}\n") == "Arch is missing");
  CHECK(error_of("") == "Arch is missing");
  CHECK(error_of("Arch: {Backbone: {pretrained: False}}\n") == "Arch.Backbone.name is missing");
  CHECK(product_with({"Arch.Head.class_num="}) == "Arch.Head.class_num is missing");
  CHECK_THAT(product_with({"Arch.Backbone.name=PPLCNet_x0_55"}),
             ContainsSubstring("Arch.Backbone: there is no PPLCNet_x0_55 (did you mean "
                               "PPLCNet_x0_25?); known: PPLCNet, PPLCNet_x0_25"));
  CHECK_THAT(product_with({"Arch.Head.name=ArcMargins"}),
             ContainsSubstring("Arch.Head: there is no ArcMargins (did you mean ArcMargin?); "
                               "known: (more with #include <kindred/config/heads.hpp> in one "
                               "file of the program), ArcMargin, FC"));
  CHECK(product_with({"Arch.Head.gradient=exactly"}) ==
        "Arch.Head.gradient: \"exactly\" is none of exact, straight_through");
  CHECK(product_with({"Arch.Head.margn=0.2"}) ==
        "Arch.Head.margn: unknown key (did you mean margin?)");
  CHECK(product_with({"Arch.Neck.embeding_size=24"}) ==
        "Arch.Neck.embeding_size: unknown key (did you mean embedding_size?)");
  CHECK(product_with({"Loss.Train.1.TripletLossV2.marginal=1"}) ==
        "Loss.Train.1.TripletLossV2.marginal: unknown key (did you mean margin?)");
  CHECK(product_with({"Arch.Heads={}"}) == "Arch.Heads: unknown key (did you mean Head?)");
  CHECK(product_with({"Arch.BackboneStopLayer.name=avg_pool"})
            .starts_with("Arch.BackboneStopLayer: there is no avg_pool"));
}

TEST_CASE("config: wrong types say what was expected") {
  CHECK(product_with({"Arch.Head.class_num=many"}) ==
        "Arch.Head.class_num: \"many\" is not a whole number");
  CHECK(product_with({"Arch.Head.class_num=3.5"}) ==
        "Arch.Head.class_num: \"3.5\" is not a whole number");
  CHECK(product_with({"Arch.Head.margin=[1]"}) ==
        "Arch.Head.margin: a list or mapping is not a number");
  CHECK(product_with({"Arch.Head.easy_margin=perhaps"}) ==
        "Arch.Head.easy_margin: \"perhaps\" is not true or false");
  CHECK_THAT(product_with({"Arch.Head=ArcMargin"}),
             ContainsSubstring("Arch.Head: expected a mapping of keys to values"));
  CHECK_THAT(product_with({"Loss.Train={CELoss: {}}"}),
             ContainsSubstring("Loss.Train: expected a list of \"- Name: {settings}\""));
  CHECK_THAT(product_with({"Loss.Train.0=CELoss"}),
             ContainsSubstring("Loss.Train.0: expected one \"Name: {settings}\""));
  CHECK_THAT(product_with({"Loss.Train=[]"}), ContainsSubstring("no loss was given"));
  CHECK_THAT(product_with({"Arch.Backbone.lr_mult_list=[1, 2]"}),
             ContainsSubstring("Arch.Backbone.lr_mult_list: expected 6 values, got 2"));
  CHECK_THAT(product_with({"Arch.Backbone.act=gelu"}),
             ContainsSubstring("Arch.Backbone.act: there is no activation gelu; known: hardswish"));
  CHECK_THAT(product_with({"Loss.Train.1.TripletLossV2.feature_from=head"}),
             ContainsSubstring("Loss.Train.1.TripletLossV2.feature_from: \"head\" is neither"));
  CHECK_THAT(product_with({"Arch.Head.class_num=-3"}), ContainsSubstring("class_num"));
}

TEST_CASE("config: overrides reach into lists and refuse what is not there") {
  auto model = model_of(product, {"Arch.Head.class_num=9", "Loss.Train.1.TripletLossV2.weight=2"});
  CHECK(model.class_num() == 9);
  CHECK(after_one_step(model).at(4) == 2.0);  // weight of the second loss
  CHECK_THAT(product_with({"Arch.Hed.class_num=9"}),
             ContainsSubstring("-o Arch.Hed.class_num=9: there is no Arch.Hed"));
  CHECK_THAT(product_with({"Loss.Train.2.CELoss.weight=1"}),
             ContainsSubstring("\"2\" is not an index of the list"));
  CHECK_THAT(product_with({"Loss.Train.first.CELoss.weight=1"}),
             ContainsSubstring("\"first\" is not an index of the list"));
  CHECK_THAT(product_with({"Loss.Train.99999999999.CELoss.weight=1"}),
             ContainsSubstring("is not an index of the list"));
  CHECK_THAT(product_with({"Arch.Head.margin.more=1"}),
             ContainsSubstring("nothing can stand below \"Arch.Head.margin\""));
  CHECK_THAT(product_with({"Arch.Head.margin"}), ContainsSubstring("expected a.b.c=value"));
  CHECK_THAT(product_with({"=1"}), ContainsSubstring("expected a.b.c=value"));
  CHECK_THAT(product_with({"Arch.Head.margin=[1"}), ContainsSubstring("-o Arch.Head.margin=[1: "));
}

TEST_CASE("config: files that are no YAML, or missing") {
  CHECK_THAT(error_of("Arch: [1, 2\nLoss: }"), ContainsSubstring("config.yaml:2:"));
  CHECK_THAT(error_of("- a\n- b\n"), ContainsSubstring("the file: expected a mapping"));
  CHECK_THAT(error_of("just words"), ContainsSubstring("expected a mapping"));
  CHECK(error_of("Arch: {? [a, b] : c}\n") == "Arch: a key is not a word");
  CHECK_THROWS_AS(config::Section::load("absent/config.yaml", {}), FileError);
  CHECK(error_of(product + "Arch: {}\n") == "Arch: the key is there twice");
}

TEST_CASE("config: widths that do not meet are named with the fix") {
  const auto message = [](const std::string& override_) {
    try {
      model_of(product, {override_});
    } catch (const ShapeError& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  CHECK_THAT(message("Arch.Neck.embedding_size=1280"),
             ContainsSubstring("neck.FC: expects features [B, 1280], but backbone.PPLCNet gives "
                               "[B, 24]; set the input size of the neck to 24"));
}

TEST_CASE("config: pretrained is a file or nothing, never a download") {
  CHECK(config::pretrained(section(product)).empty());
  CHECK(config::pretrained(section(product, {"Arch.Backbone.pretrained=a.safetensors"})) ==
        "a.safetensors");
  CHECK_THROWS_WITH(config::pretrained(section(product, {"Arch.Backbone.pretrained=True"})),
                    ContainsSubstring("Arch.Backbone.pretrained: nothing is downloaded"));
}
