// Every neck by its name in YAML, with each of its settings; backbones that stop at their map.

#include <kindred/config/model.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::config;
using namespace kindred::test;

namespace {

AnyLayer::Config read(const std::string& settings, std::int64_t width = 6) {
  return config::detail::ModelReader<Cpu>::neck(
      Section(YAML::Load("{" + settings + "}"), "Arch.Neck"), width);
}

std::string refused(const std::string& settings) {
  try {
    ParameterTable table;
    const AnyLayer layer(read(settings), Scope(table, "neck"));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// Names, multipliers and start of the parameters, and the output, gradients and statistics of one
/// training pass over vectors [4,6] or maps [4,2,3,6].
std::vector<double> step(const AnyLayer::Config& config) {
  ParameterTable table;
  const AnyLayer layer(config, Scope(table, "neck"));
  std::vector<double> all;
  std::vector<float> parameters(static_cast<std::size_t>(table.trainable_size()));
  std::vector<float> statistics(static_cast<std::size_t>(table.buffer_size()));
  for (const ParameterInfo& p : table.entries()) {
    float* data = (p.kind == ParameterKind::buffer ? statistics : parameters).data() + p.offset;
    p.initializer.fill(View<float>{data, p.shape}, {5, stream_of(p.name), 0});
    all.insert(all.end(), {p.lr_multiplier, p.decay_multiplier});
  }
  all.insert(all.end(), parameters.begin(), parameters.end());
  const Shape in = layer.held_input_rank() == 4 ? Shape{4, 2, 3, 6} : Shape{4, 6};
  const Shape out{4, layer.output_size()};
  const auto x = random_values<float>(in.size(), 2), upstream = random_values<float>(out.size(), 3);
  std::vector<float> gradients(parameters.size());
  cpu::Context ctx(1);
  const Run<cpu::Context, float> run{.ctx = ctx,
                                     .parameters = parameters.data(),
                                     .statistics = statistics.data(),
                                     .new_statistics = statistics.data(),
                                     .gradients = gradients.data(),
                                     .training = true,
                                     .random = {}};
  any::Saved saved;
  run_planned(ctx, [&] {
    auto y = layer.forward(run, view(x, in), saved);
    if (!ctx.planning()) all.insert(all.end(), y.begin(), y.end());
    auto dy = run.make(out, "dy");
    if (!ctx.planning()) std::copy(upstream.begin(), upstream.end(), dy.begin());
    const auto dx = layer.backward(run, std::move(dy), view(x, in), saved);
    if (!ctx.planning()) all.insert(all.end(), dx.begin(), dx.end());
  });
  all.insert(all.end(), gradients.begin(), gradients.end());
  all.insert(all.end(), statistics.begin(), statistics.end());
  return all;
}

/// The neck from YAML has the bits of the one made in C++, with `base` and with `settings`, and
/// each single setting moves them.
template <class Neck>
void check(const std::string& base, const typename Neck::Config& start,
           const typename Neck::Config& other, const std::vector<std::string>& settings) {
  INFO(Neck::name());
  const std::string yaml = std::string("name: ") + Neck::name() + (base.empty() ? "" : ", ") + base;
  const auto plain = step(read(yaml));
  std::string all = yaml;
  for (const std::string& setting : settings) {
    INFO(setting);
    const bool moved = step(read(yaml + ", " + setting)) != plain;
    CHECK(moved);
    all += ", " + setting;
  }
  const bool same_start = plain == step(AnyLayer::component<Neck>(start));
  const bool same = step(read(all)) == step(AnyLayer::component<Neck>(other));
  CHECK(same_start);
  CHECK(same);
  CHECK_THAT(refused(yaml + ", num_featrues: 1"),
             ContainsSubstring("Arch.Neck.num_featrues: unknown key"));
}

Model model_of(const std::string& arch) {
  const std::string yaml = "Arch: {" + arch +
                           ", Head: {name: FC, embedding_size: 128, class_num: 3}}\n" +
                           "Loss: {Train: [CELoss: {weight: 1.0}]}\n";
  return Model(config::model(Section(YAML::Load(yaml), "")), Seed{1});
}

}  // namespace

TEST_CASE("YAML: every neck has the bits of the composed one, each setting is read") {
  using Mode = layers::BatchNormMode;
  check<neck::FC>("embedding_size: 6, class_num: 3", {6, 3}, {6, 3, false}, {"bias_attr: False"});
  check<neck::BNNeck>(
      "num_features: 6", {6}, {6, 0.5, true, true},
      {"bias_attr: {learning_rate: 0.5}", "freeze_bias: True", "use_global_stats: True"});
  check<neck::BNNeck>("num_features: 6", {6}, {6, 0.5}, {"bias_attr: {learning_rate: 0.5}"});
  check<neck::MetaBNNeck>(
      "num_features: 6", {6}, {6, Mode::eval, 0.5, true},
      {"bn_mode: eval", "bias_attr: {learning_rate: 0.5}", "freeze_bias: True"});
  check<neck::MetaBNNeck>("num_features: 6", {6}, {6, Mode::hold}, {"bn_mode: hold"});
  check<neck::VehicleNeck>("in_channels: 6, out_channels: 3", {6, 3}, {6, 3, false},
                           {"bias_attr: False"});
  check<neck::FRFNNeck>("num_features: 6, low_dim: 3", {6, 3}, {6, 3}, {});
  check<neck::Tanh>("", {6}, {6}, {});
  check<neck::Identity>("", {6}, {6}, {});
  check<neck::GeM>("num_features: 6", {6}, {6, 2, 0.1, true},
                   {"p: 2", "eps: 0.1", "freeze_p: True"});
}

TEST_CASE("YAML: Tanh and Identity take the width of the head, or are told theirs") {
  ParameterTable table;
  CHECK(AnyLayer(read("name: Tanh", 7), Scope(table, "a")).input_size() == 7);
  CHECK(AnyLayer(read("name: Tanh, num_features: 9", 7), Scope(table, "b")).input_size() == 9);
  CHECK(AnyLayer(read("name: Identity", 7), Scope(table, "c")).output_size() == 7);
  const Model without =
      model_of("Backbone: {name: PPLCNet_x0_25, class_num: 128}");  // no Neck, as in PaddleClas
  CHECK(std::string(without.neck().name()) == "Identity");
  CHECK(without.feature_size() == 128);
}

TEST_CASE("YAML: a wrong neck or setting is refused by name") {
  CHECK_THAT(refused("name: BNNek"),
             ContainsSubstring("Arch.Neck: there is no BNNek (did you mean BNNeck?); known: "
                               "BNNeck, FC, FRFNNeck, GeM, Identity, MetaBNNeck, Tanh"));
  CHECK(refused("name: FRFNNeck, num_features: 6") == "Arch.Neck.low_dim is missing");
  CHECK(refused("name: MetaBNNeck, num_features: 6, bn_mode: held") ==
        "Arch.Neck.bn_mode: \"held\" is none of general, hold, eval");
  CHECK(refused("name: GeM, num_features: 6, p: 0") == "neck.GeM: p must be > 0, got 0");
}

TEST_CASE("YAML: the backbone stops before its pooling for a neck that pools") {
  const Model pooled = model_of(
      "Backbone: {name: PPLCNet_x0_25, class_expand: 64}, BackboneStopLayer: {name: blocks6}, "
      "Neck: {name: GeM, num_features: 128}");
  CHECK(std::string(pooled.backbone().name()) == "PPLCNetMap");
  CHECK(pooled.parameters().find("backbone.last_conv.weight") == nullptr);
  CHECK(pooled.parameters().find("neck.p") != nullptr);
  CHECK_THROWS_WITH(model_of("Backbone: {name: PPLCNet_x0_25}, BackboneStopLayer: {name: flatten}, "
                             "Neck: {name: GeM, num_features: 1280}"),
                    ContainsSubstring("neck.GeM works on feature maps"));
  CHECK_THROWS_WITH(model_of("Backbone: {name: PPLCNet_x0_25}, BackboneStopLayer: {name: blocks6}"),
                    ContainsSubstring("neck.Identity works on feature vectors"));
  const Model merged = model_of(
      "Backbone: {name: PPLCNet_x0_25, fpn: {out_channels: 128, first_stage: blocks5}}, "
      "BackboneStopLayer: {name: blocks6}, Neck: {name: GeM, num_features: 128}");
  CHECK(std::string(merged.backbone().name()) == "FPN");
  CHECK(merged.parameters().find("backbone.fpn.lateral.2.conv.weight") == nullptr);
  CHECK(merged.parameters().find("backbone.fpn.lateral.3.conv.weight") != nullptr);
  CHECK_THROWS_WITH(model_of("Backbone: {name: PPLCNet_x0_25, fpn: {first_stage: block5}}, "
                             "BackboneStopLayer: {name: blocks6}"),
                    ContainsSubstring("Arch.Backbone.fpn: there is no block5 (did you mean"));
  CHECK_THROWS_WITH(model_of("Backbone: {name: PPLCNet_x0_25, fpn: {}}"),
                    ContainsSubstring("Arch.Backbone.fpn: unknown key"));
}
