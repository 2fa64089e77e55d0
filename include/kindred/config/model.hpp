#pragma once
// A model described in YAML, in PaddleClas' own words: the sections Arch and Loss.

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <kindred/config/head_registry.hpp>
#include <kindred/config/loss_registry.hpp>
#include <kindred/config/section.hpp>
#include <kindred/kindred.hpp>
#include <kindred/model/any.hpp>

namespace kindred::config {

template <class Device>
using AnyLayerOn = any::Layer<typename Device::Context, float>;
using AnyLayer = AnyLayerOn<Cpu>;
/// Any composition at all: the slots are filled when the file is read.
template <class Device>
using ModelOn = RecModel<AnyLayerOn<Device>, AnyLayerOn<Device>, AnyHeadOn<Device>,
                         AnyLossesOn<Device>, Device>;
using Model = ModelOn<Cpu>;

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

/// Where BackboneStopLayer ends the backbone: before its classifier, or before its pooling.
enum class Stop { nowhere, flatten, blocks6 };

/// "bias_attr: {learning_rate: 0.0}" of PaddleClas' batch norms; freeze_bias is kindred's.
template <class Config>
void read_norm_bias(const Section& s, Config& c) {
  if (s.has("bias_attr")) {
    const Section bias = s.section("bias_attr");
    c.bias_lr_mult = bias.get("learning_rate", c.bias_lr_mult);
    bias.finish();
  }
  c.freeze_bias = s.get("freeze_bias", c.freeze_bias);
}

/// Reads the slots of a model on one device.
template <class Device>
class ModelReader {
 public:
  using AnyLayer = AnyLayerOn<Device>;
  using AnyHead = AnyHeadOn<Device>;
  using AnyLosses = AnyLossesOn<Device>;
  using LayerConfig = typename AnyLayer::Config;
  using HeadConfig = typename AnyHead::Config;
  using LossesConfig = typename AnyLosses::Config;

  /// PPLCNet without its pooling; "fpn: {out_channels, first_stage: blocks4}" merges its stages.
  static LayerConfig pp_lcnet_map(const Section& s, double scale) {
    backbone::PPLCNetMap::Config c;
    c.scale = scale;
    c.lr_mult_list = array(s, "lr_mult_list", c.lr_mult_list);
    c.stride_list = array(s, "stride_list", c.stride_list);
    c.act = activation(s, "act", c.act);
    // Of the layers behind the stop.
    for (const char* key : {"class_num", "dropout_prob", "class_expand", "use_last_conv"})
      s.accept(key);
    if (!s.has("fpn")) return AnyLayer::template component<backbone::PPLCNetMap>(c);
    const Section pyramid = s.section("fpn");
    backbone::FPN<backbone::PPLCNetMap>::Config f{.trunk = c, .act = c.act};
    f.out_channels = pyramid.get("out_channels", f.out_channels);
    static const std::vector<std::string> stages = {"blocks2", "blocks3", "blocks4", "blocks5",
                                                    "blocks6"};
    const auto first = pyramid.get<std::string>("first_stage", "blocks4");
    const auto found = std::find(stages.begin(), stages.end(), first);
    if (found == stages.end()) pyramid.unknown_name(first, {stages.begin(), stages.end()});
    f.first_stage = static_cast<int>(found - stages.begin());
    pyramid.finish();
    return AnyLayer::template component<backbone::FPN<backbone::PPLCNetMap>>(f);
  }

  static LayerConfig pp_lcnet(const Section& s, double scale, Stop stop) {
    if (stop == Stop::blocks6) return pp_lcnet_map(s, scale);
    backbone::PPLCNet::Config c;
    c.scale = scale;
    // PaddleClas builds a classifier of 1000 classes unless it is told to stop before it.
    const auto class_num = s.get<std::int64_t>("class_num", 1000);
    c.class_num = stop == Stop::flatten ? 0 : class_num;
    c.dropout_prob = s.get("dropout_prob", c.dropout_prob);
    c.class_expand = s.get("class_expand", c.class_expand);
    c.use_last_conv = s.get("use_last_conv", c.use_last_conv);
    c.lr_mult_list = array(s, "lr_mult_list", c.lr_mult_list);
    c.stride_list = array(s, "stride_list", c.stride_list);
    c.act = activation(s, "act", c.act);
    return AnyLayer::template component<backbone::PPLCNet>(c);
  }

  static LayerConfig backbone(const Section& s, Stop stop) {
    static const std::map<std::string, double> pp_lcnets = {
        {"PPLCNet_x0_25", 0.25}, {"PPLCNet_x0_35", 0.35}, {"PPLCNet_x0_5", 0.5},
        {"PPLCNet_x0_75", 0.75}, {"PPLCNet_x1_0", 1.0},   {"PPLCNet_x1_5", 1.5},
        {"PPLCNet_x2_0", 2.0},   {"PPLCNet_x2_5", 2.5}};
    const auto name = s.get<std::string>("name");
    s.accept("pretrained");
    s.accept("use_ssld");
    LayerConfig config;
    if (name == "PPLCNet") {
      config = pp_lcnet(s, s.get<double>("scale"), stop);
    } else if (const auto found = pp_lcnets.find(name); found != pp_lcnets.end()) {
      config = pp_lcnet(s, found->second, stop);
    } else {
      std::set<std::string> known = {"PPLCNet"};
      for (const auto& [key, scale] : pp_lcnets) known.insert(key);
      s.unknown_name(name, known);
    }
    s.finish();
    return config;
  }

  static LayerConfig batch_norm_neck(const Section& s, const std::string& name) {
    const auto size = s.get<std::int64_t>("num_features");
    if (name == "BNNeck") {
      kindred::neck::BNNeck::Config c{.num_features = size};
      read_norm_bias(s, c);
      c.use_global_stats = s.get("use_global_stats", c.use_global_stats);
      return AnyLayer::template component<kindred::neck::BNNeck>(c);
    }
    using Mode = layers::BatchNormMode;
    kindred::neck::MetaBNNeck::Config c{.num_features = size};
    read_norm_bias(s, c);
    c.bn_mode = named(s, "bn_mode", c.bn_mode, {Mode::general, Mode::hold, Mode::eval});
    return AnyLayer::template component<kindred::neck::MetaBNNeck>(c);
  }

  static LayerConfig gem(const Section& s) {
    kindred::neck::GeM::Config c{.num_features = s.get<std::int64_t>("num_features")};
    c.p = s.get("p", c.p);
    c.eps = s.get("eps", c.eps);
    c.freeze_p = s.get("freeze_p", c.freeze_p);
    return AnyLayer::template component<kindred::neck::GeM>(c);
  }

  /// `width` is what the head takes: the size of necks that PaddleClas does not tell theirs.
  static LayerConfig neck(const Section& s, std::int64_t width) {
    const auto name = s.get<std::string>("name");
    LayerConfig config;
    if (name == "FC") {
      config = AnyLayer::template component<kindred::neck::FC>(
          {s.get<std::int64_t>("embedding_size"), s.get<std::int64_t>("class_num"), has_bias(s)});
    } else if (name == "BNNeck" || name == "MetaBNNeck") {
      config = batch_norm_neck(s, name);
    } else if (name == "VehicleNeck") {
      config = AnyLayer::template component<kindred::neck::VehicleNeck>(
          {s.get<std::int64_t>("in_channels"), s.get<std::int64_t>("out_channels"), has_bias(s)});
    } else if (name == "FRFNNeck") {
      config = AnyLayer::template component<kindred::neck::FRFNNeck>(
          {s.get<std::int64_t>("num_features"), s.get<std::int64_t>("low_dim")});
    } else if (name == "Tanh") {
      config = AnyLayer::template component<kindred::neck::Tanh>({s.get("num_features", width)});
    } else if (name == "Identity") {
      config =
          AnyLayer::template component<kindred::neck::Identity>({s.get("num_features", width)});
    } else if (name == "GeM") {
      config = gem(s);
    } else {
      s.unknown_name(name, {"BNNeck", "FC", "FRFNNeck", "GeM", "Identity", "MetaBNNeck", "Tanh",
                            "VehicleNeck"});
    }
    s.finish();
    return config;
  }

  static HeadConfig head(const Section& s) {
    const auto name = s.get<std::string>("name");
    HeadConfig config;
    if (name == "FC") {
      config = AnyHead::template component<kindred::head::FC>(
          {s.get<std::int64_t>("embedding_size"), s.get<std::int64_t>("class_num"), has_bias(s)});
    } else if (name == "ArcMargin") {
      kindred::head::ArcMargin::Config c;
      c.embedding_size = s.get<std::int64_t>("embedding_size");
      c.class_num = s.get<std::int64_t>("class_num");
      c.margin = s.get("margin", c.margin);
      c.scale = s.get("scale", c.scale);
      c.easy_margin = s.get("easy_margin", c.easy_margin);
      c.gradient =
          named(s, "gradient", c.gradient, {GradientMode::exact, GradientMode::straight_through});
      c.update_in_tile = s.get("update_in_tile", c.update_in_tile);
      config = AnyHead::template component<kindred::head::ArcMargin>(c);
    } else {
      config = registered_head<Device>(name, s, {"ArcMargin", "FC"});
    }
    s.finish();
    return config;
  }

  static LossesConfig losses(const Section& s) {
    LossesConfig config;
    s.for_each("Train", [&](const std::string& name, const Section& l) {
      const auto weight = l.get<double>("weight", 1.);
      if (l.has("miner")) {
        add_mined_loss<Device>(config, name, l);
      } else if (name == "CELoss") {
        using loss::CETarget;
        loss::CELoss::Config c{.weight = weight, .epsilon = l.get<double>("epsilon", 0.)};
        c.target = named(l, "target", c.target, {CETarget::labels, CETarget::teacher});
        AnyLosses::template add<loss::CELoss>(config, c);
      } else if (name == "TripletLossV2") {
        loss::TripletLossV2::Config c{.weight = weight};
        c.margin = l.get("margin", c.margin);
        c.normalize_feature = l.get("normalize_feature", c.normalize_feature);
        c.feature_from = feature_from(l);
        AnyLosses::template add<loss::TripletLossV2>(config, c);
      } else {
        add_registered_loss<Device>(config, name, l, {"CELoss", "TripletLossV2"});
      }
    });
    s.accept("Eval");
    s.finish();
    return config;
  }

  /// The model of one section Arch. losses() is called last: errors come in the order of the file.
  template <class MakeLosses>
  static typename ModelOn<Device>::Config rec_model(const Section& arch, MakeLosses&& losses) {
    const auto name = arch.get<std::string>("name", "RecModel");
    if (name != "RecModel") arch.unknown_name(name, {"RecModel", "DistillationModel"});
    auto stop = Stop::nowhere;
    if (arch.has("BackboneStopLayer")) {
      const Section layer = arch.section("BackboneStopLayer");
      const auto at = layer.get<std::string>("name");
      if (at != "flatten" && at != "blocks6") layer.unknown_name(at, {"blocks6", "flatten"});
      layer.finish();
      stop = at == "flatten" ? Stop::flatten : Stop::blocks6;
    }
    for (const char* key : {"infer_output_key", "infer_add_softmax", "is_rec"}) arch.accept(key);
    auto trunk = backbone(arch.section("Backbone"), stop);
    const Section of_head = arch.section("Head");
    const auto width = of_head.get<std::int64_t>("embedding_size", 512);  // AdaMargin's is optional
    typename ModelOn<Device>::Config config{
        std::move(trunk),
        arch.has("Neck")
            ? neck(arch.section("Neck"), width)
            : AnyLayer::template component<kindred::neck::Identity>({.num_features = width}),
        head(of_head), losses()};
    arch.finish();
    return config;
  }
};

/// The section Arch: one model, or PaddleClas' DistillationModel with a fixed teacher.
struct Architecture {
  Section student;
  std::optional<Section> teacher{};
  std::string teacher_weights{}, student_weights{};  ///< of the whole model; empty: none
};

/// The i-th file of pretrained_list, empty for null.
inline std::string pretrained_file(const Section& arch, std::size_t i) {
  if (!arch.has("pretrained_list")) return {};
  const auto files = arch.get<std::vector<std::string>>("pretrained_list");
  if (files.size() != 2)
    throw ConfigError(text(arch.where("pretrained_list"), ": expected one file (or null) for each ",
                           "of the two models"));
  for (const char* none : {"null", "~", "None", "False", "false"})
    if (files[i] == none) return {};
  return files[i];
}

inline Architecture distillation(const Section& arch) {
  std::vector<std::pair<std::string, Section>> models;
  arch.for_each_unfinished(
      "models", [&](const std::string& name, const Section& s) { models.emplace_back(name, s); });
  const std::size_t teacher = !models.empty() && models[0].first == "Teacher" ? 0 : 1;
  if (models.size() != 2 || models[teacher].first != "Teacher" ||
      models[1 - teacher].first != "Student")
    throw ConfigError(
        text(arch.where("models"), ": expected \"- Teacher: {...}\" and \"- Student: {...}\""));
  std::vector<bool> frozen(2, false);
  frozen[teacher] = true;
  if (arch.get<std::vector<bool>>("freeze_params_list", frozen) != frozen)
    throw ConfigError(
        text(arch.where("freeze_params_list"), ": only the Teacher is frozen, and it always is"));
  if (arch.get<std::string>("infer_model_name", "Student") != "Student")
    throw ConfigError(text(arch.where("infer_model_name"), ": only Student is there"));
  Architecture out{models[1 - teacher].second, models[teacher].second,
                   pretrained_file(arch, teacher), pretrained_file(arch, 1 - teacher)};
  if (out.teacher_weights.empty())
    throw ConfigError(
        text(arch.where("pretrained_list"), ": the Teacher needs a safetensors file"));
  for (const char* key : {"name", "infer_output_key", "infer_add_softmax", "is_rec"})
    arch.accept(key);
  arch.finish();
  return out;
}

inline Architecture architecture(const Section& root) {
  Section arch = root.section("Arch");
  if (arch.get<std::string>("name", "RecModel") == "DistillationModel") return distillation(arch);
  return {std::move(arch)};
}

}  // namespace detail

/// The model that the sections Arch and Loss describe:
///   Arch: {name: RecModel, Backbone: {name: PPLCNet_x2_5, ...},
///          BackboneStopLayer: {name: flatten | blocks6},
///          Neck: {name: FC | BNNeck | MetaBNNeck | VehicleNeck | FRFNNeck | Tanh | Identity
///          | GeM, ...}, Head: {name: FC | ArcMargin, ...}}
///   Loss: {Train: [- CELoss: {weight, epsilon}, - TripletLossV2: {weight, margin, ...}]}
/// or the Student of a DistillationModel, see teacher(). More heads and losses by their names after
/// register_head and register_loss, or with config/heads.hpp and config/losses.hpp; miners
/// (miner: {name, ...} in the settings of a loss on pairs) with config/miners.hpp, CrossBatchMemory
/// with config/memories.hpp, losses of distillation with config/distillation.hpp. blocks6 stops
/// before the pooling, as GeM needs it; then Backbone may have fpn: {out_channels, first_stage:
/// blocks4}. Without a Neck the features are the backbone's output. Throws ConfigError that names
/// the key. Backbone.pretrained is read by pretrained().
template <class Device = Cpu>
typename ModelOn<Device>::Config model(const Section& root) {
  using Reader = detail::ModelReader<Device>;
  const Section arch = detail::architecture(root).student;
  return Reader::rec_model(arch, [&] { return Reader::losses(root.section("Loss")); });
}

/// The teacher of a DistillationModel.
template <class Device>
struct TeacherConfig {
  typename ModelOn<Device>::Config model{};
  std::string weights{};  ///< safetensors file
};

/// The teacher that Arch describes, if it does:
///   Arch: {name: DistillationModel, pretrained_list: [teacher.safetensors, null],
///          models: [- Teacher: {name: RecModel, Backbone: ...}, - Student: {...}]}
/// The model trained, evaluated and saved is the Student. freeze_params_list may say [True, False]
/// and nothing else. Throws ConfigError that names the key.
template <class Device = Cpu>
std::optional<TeacherConfig<Device>> teacher(const Section& root) {
  using Reader = detail::ModelReader<Device>;
  const detail::Architecture arch = detail::architecture(root);
  if (!arch.teacher) return {};
  const auto unused = [] {  // a model has some loss
    typename Reader::LossesConfig losses;
    Reader::AnyLosses::template add<loss::CELoss>(losses, {});
    return losses;
  };
  return TeacherConfig<Device>{Reader::rec_model(*arch.teacher, unused), arch.teacher_weights};
}

/// Arch.Backbone.pretrained: a safetensors file with Paddle's names, or empty for none.
/// Throws ConfigError for `true`, which PaddleClas understands as a download.
inline std::string pretrained(const Section& root) {
  const Section backbone = detail::architecture(root).student.section("Backbone");
  const auto value = backbone.get<std::string>("pretrained", "");
  if (value == "true" || value == "True")
    throw ConfigError(text(backbone.where("pretrained"),
                           ": nothing is downloaded; give a safetensors file, or false"));
  return value == "false" || value == "False" ? std::string() : value;
}

}  // namespace kindred::config
