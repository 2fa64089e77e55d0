#pragma once
// A model described in YAML, in PaddleClas' own words: the sections Arch and Loss.

#include <map>
#include <set>
#include <string>
#include <vector>

#include <kindred/config/section.hpp>
#include <kindred/head/ada_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>
#include <kindred/kindred.hpp>
#include <kindred/model/any.hpp>

namespace kindred::config {

using AnyLayer = any::Layer<cpu::Context, float>;
using AnyHead = any::Head<cpu::Context, float>;
using AnyLosses = any::Losses<cpu::Context, float>;
/// Any composition at all: the slots are filled when the file is read.
using Model = RecModel<AnyLayer, AnyLayer, AnyHead, AnyLosses>;

namespace detail {

inline Activation activation(const Section& s, const std::string& key, Activation fallback) {
  if (!s.has(key)) return fallback;
  static const std::map<std::string, Activation> known = {{"hardswish", Activation::hardswish},
                                                          {"relu", Activation::relu},
                                                          {"relu6", Activation::relu6}};
  const auto name = s.get<std::string>(key);
  const auto found = known.find(name);
  if (found == known.end())
    throw ConfigError(
        text(s.where(key), ": there is no activation ", name, "; known: hardswish, relu, relu6"));
  return found->second;
}

/// "bias_attr: False" of PaddleClas' gears.
inline bool has_bias(const Section& s) { return !s.has("bias_attr") || s.get<bool>("bias_attr"); }

inline backbone::PPLCNet::Config pp_lcnet(const Section& s, double scale, bool stop_at_flatten) {
  backbone::PPLCNet::Config c;
  c.scale = scale;
  // PaddleClas builds a classifier of 1000 classes unless it is told to stop before it.
  const auto class_num = s.get<std::int64_t>("class_num", 1000);
  c.class_num = stop_at_flatten ? 0 : class_num;
  c.dropout_prob = s.get("dropout_prob", c.dropout_prob);
  c.class_expand = s.get("class_expand", c.class_expand);
  c.use_last_conv = s.get("use_last_conv", c.use_last_conv);
  c.lr_mult_list = array(s, "lr_mult_list", c.lr_mult_list);
  c.stride_list = array(s, "stride_list", c.stride_list);
  c.act = activation(s, "act", c.act);
  return c;
}

inline AnyLayer::Config backbone(const Section& s, bool stop_at_flatten) {
  static const std::map<std::string, double> pp_lcnets = {
      {"PPLCNet_x0_25", 0.25}, {"PPLCNet_x0_35", 0.35}, {"PPLCNet_x0_5", 0.5},
      {"PPLCNet_x0_75", 0.75}, {"PPLCNet_x1_0", 1.0},   {"PPLCNet_x1_5", 1.5},
      {"PPLCNet_x2_0", 2.0},   {"PPLCNet_x2_5", 2.5}};
  const auto name = s.get<std::string>("name");
  s.accept("pretrained");
  s.accept("use_ssld");
  AnyLayer::Config config;
  if (name == "PPLCNet") {
    config = AnyLayer::component<kindred::backbone::PPLCNet>(
        pp_lcnet(s, s.get<double>("scale"), stop_at_flatten));
  } else if (const auto found = pp_lcnets.find(name); found != pp_lcnets.end()) {
    config = AnyLayer::component<kindred::backbone::PPLCNet>(
        pp_lcnet(s, found->second, stop_at_flatten));
  } else {
    std::set<std::string> known = {"PPLCNet"};
    for (const auto& [key, scale] : pp_lcnets) known.insert(key);
    s.unknown_name(name, known);
  }
  s.finish();
  return config;
}

inline AnyLayer::Config neck(const Section& s) {
  const auto name = s.get<std::string>("name");
  AnyLayer::Config config;
  if (name == "FC") {
    config = AnyLayer::component<kindred::neck::FC>(
        {s.get<std::int64_t>("embedding_size"), s.get<std::int64_t>("class_num"), has_bias(s)});
  } else if (name == "BNNeck") {
    kindred::neck::BNNeck::Config c{.num_features = s.get<std::int64_t>("num_features")};
    if (s.has("bias_attr")) {
      const Section bias = s.section("bias_attr");
      c.bias_lr_mult = bias.get("learning_rate", c.bias_lr_mult);
      bias.finish();
    }
    config = AnyLayer::component<kindred::neck::BNNeck>(c);
  } else {
    s.unknown_name(name, {"FC", "BNNeck"});
  }
  s.finish();
  return config;
}

inline GradientMode gradient_mode(const Section& s) {
  const auto name = s.get<std::string>("gradient", "exact");
  for (const GradientMode mode : {GradientMode::exact, GradientMode::straight_through})
    if (name == name_of(mode)) return mode;
  throw ConfigError(
      text(s.where("gradient"), ": \"", name, "\" is neither exact nor straight_through"));
}

/// The sizes of a margin head, which must be there.
template <class Head>
typename Head::Config margin_head(const Section& s) {
  typename Head::Config c;
  c.embedding_size = s.get<std::int64_t>("embedding_size");
  c.class_num = s.get<std::int64_t>("class_num");
  return c;
}

inline AnyHead::Config head(const Section& s) {
  const auto name = s.get<std::string>("name");
  AnyHead::Config config;
  if (name == "FC") {
    config = AnyHead::component<kindred::head::FC>(
        {s.get<std::int64_t>("embedding_size"), s.get<std::int64_t>("class_num"), has_bias(s)});
  } else if (name == "ArcMargin") {
    auto c = margin_head<kindred::head::ArcMargin>(s);
    c.margin = s.get("margin", c.margin);
    c.scale = s.get("scale", c.scale);
    c.easy_margin = s.get("easy_margin", c.easy_margin);
    c.gradient = gradient_mode(s);
    config = AnyHead::component<kindred::head::ArcMargin>(c);
  } else if (name == "CosMargin") {
    auto c = margin_head<kindred::head::CosMargin>(s);
    c.margin = s.get("margin", c.margin);
    c.scale = s.get("scale", c.scale);
    config = AnyHead::component<kindred::head::CosMargin>(c);
  } else if (name == "CircleMargin") {
    auto c = margin_head<kindred::head::CircleMargin>(s);
    c.margin = s.get<double>("margin");
    c.scale = s.get<double>("scale");
    config = AnyHead::component<kindred::head::CircleMargin>(c);
  } else if (name == "AdaMargin") {
    kindred::head::AdaMargin::Config c;
    c.embedding_size = s.get("embedding_size", c.embedding_size);
    c.class_num = s.get("class_num", c.class_num);
    c.m = s.get("m", c.m);
    c.h = s.get("h", c.h);
    c.s = s.get("s", c.s);
    c.t_alpha = s.get("t_alpha", c.t_alpha);
    config = AnyHead::component<kindred::head::AdaMargin>(c);
  } else if (name == "MagMargin") {
    auto c = margin_head<kindred::head::MagMargin>(s);
    c.l_a = s.get("l_a", c.l_a);
    c.u_a = s.get("u_a", c.u_a);
    c.l_margin = s.get("l_margin", c.l_margin);
    c.u_margin = s.get("u_margin", c.u_margin);
    c.scale = s.get("scale", c.scale);
    config = AnyHead::component<kindred::head::MagMargin>(c);
  } else if (name == "SubCenterArcMargin") {
    auto c = margin_head<kindred::head::SubCenterArcMargin>(s);
    c.sub_centers = s.get("sub_centers", c.sub_centers);
    c.margin = s.get("margin", c.margin);
    c.scale = s.get("scale", c.scale);
    c.easy_margin = s.get("easy_margin", c.easy_margin);
    config = AnyHead::component<kindred::head::SubCenterArcMargin>(c);
  } else {
    s.unknown_name(name, {"AdaMargin", "ArcMargin", "CircleMargin", "CosMargin", "FC", "MagMargin",
                          "SubCenterArcMargin"});
  }
  s.finish();
  return config;
}

inline loss::FeatureFrom feature_from(const Section& s) {
  const auto name = s.get<std::string>("feature_from", "features");
  if (name == "features") return loss::FeatureFrom::features;
  if (name == "backbone") return loss::FeatureFrom::backbone;
  throw ConfigError(
      text(s.where("feature_from"), ": \"", name, "\" is neither features nor backbone"));
}

inline AnyLosses::Config losses(const Section& s) {
  AnyLosses::Config config;
  s.for_each("Train", [&](const std::string& name, const Section& l) {
    const auto weight = l.get<double>("weight", 1.);
    if (name == "CELoss") {
      AnyLosses::add<loss::CELoss>(config, {weight, l.get<double>("epsilon", 0.)});
    } else if (name == "TripletLossV2") {
      loss::TripletLossV2::Config c{.weight = weight};
      c.margin = l.get("margin", c.margin);
      c.normalize_feature = l.get("normalize_feature", c.normalize_feature);
      c.feature_from = feature_from(l);
      AnyLosses::add<loss::TripletLossV2>(config, c);
    } else {
      l.unknown_name(name, {"CELoss", "TripletLossV2"});
    }
  });
  s.accept("Eval");
  s.finish();
  return config;
}

}  // namespace detail

/// The model that the sections Arch and Loss describe:
///   Arch: {name: RecModel, Backbone: {name: PPLCNet_x2_5, ...}, BackboneStopLayer: {name:
///   flatten},
///          Neck: {name: FC | BNNeck, ...}, Head: {name: FC | ArcMargin | CosMargin
///          | CircleMargin | AdaMargin | MagMargin | SubCenterArcMargin, ...}}
///   Loss: {Train: [- CELoss: {weight, epsilon}, - TripletLossV2: {weight, margin, ...}]}
/// Throws ConfigError that names the key. Backbone.pretrained is read by pretrained().
inline Model::Config model(const Section& root) {
  const Section arch = root.section("Arch");
  const auto name = arch.get<std::string>("name", "RecModel");
  if (name != "RecModel") arch.unknown_name(name, {"RecModel"});
  bool stop = false;
  if (arch.has("BackboneStopLayer")) {
    const Section layer = arch.section("BackboneStopLayer");
    const auto at = layer.get<std::string>("name");
    if (at != "flatten") layer.unknown_name(at, {"flatten"});
    layer.finish();
    stop = true;
  }
  for (const char* key : {"infer_output_key", "infer_add_softmax", "is_rec"}) arch.accept(key);
  Model::Config config{detail::backbone(arch.section("Backbone"), stop),
                       detail::neck(arch.section("Neck")), detail::head(arch.section("Head")),
                       detail::losses(root.section("Loss"))};
  arch.finish();
  return config;
}

/// Arch.Backbone.pretrained: a safetensors file with Paddle's names, or empty for none.
/// Throws ConfigError for `true`, which PaddleClas understands as a download.
inline std::string pretrained(const Section& root) {
  const Section backbone = root.section("Arch").section("Backbone");
  const auto value = backbone.get<std::string>("pretrained", "");
  if (value == "true" || value == "True")
    throw ConfigError(text(backbone.where("pretrained"),
                           ": nothing is downloaded; give a safetensors file, or false"));
  return value == "false" || value == "False" ? std::string() : value;
}

}  // namespace kindred::config
