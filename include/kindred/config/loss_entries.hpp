#pragma once
// The losses on features, and on features and logits, by their names in YAML, for any device.
// Settings have the names of PaddleClas or pytorch-metric-learning, and `weight` and `feature_from`
// as every loss. A file of the program that includes the kernels of a device calls register_losses
// of it; losses.hpp does so for the processor.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <kindred/config/loss_registry.hpp>
#include <kindred/config/loss_settings.hpp>
#include <kindred/loss/angular_loss.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/cross_batch_memory.hpp>
#include <kindred/loss/csq_loss.hpp>
#include <kindred/loss/dch_loss.hpp>
#include <kindred/loss/dpsh_loss.hpp>
#include <kindred/loss/dshsd_loss.hpp>
#include <kindred/loss/eml_loss.hpp>
#include <kindred/loss/fast_ap_loss.hpp>
#include <kindred/loss/greedy_hash_loss.hpp>
#include <kindred/loss/hash_net_loss.hpp>
#include <kindred/loss/intra_pair_variance_loss.hpp>
#include <kindred/loss/lcdsh_loss.hpp>
#include <kindred/loss/lifted_structure_loss.hpp>
#include <kindred/loss/mag_regularizer.hpp>
#include <kindred/loss/msm_loss.hpp>
#include <kindred/loss/npairs_loss.hpp>
#include <kindred/loss/proxy_anchor_loss.hpp>
#include <kindred/loss/proxy_nca_loss.hpp>
#include <kindred/loss/snr_contrastive_loss.hpp>
#include <kindred/loss/soft_triple_loss.hpp>
#include <kindred/loss/sup_con_loss.hpp>
#include <kindred/loss/tri_hard_loss.hpp>
#include <kindred/loss/triplet_angular_margin_loss.hpp>
#include <kindred/loss/triplet_loss.hpp>
#include <kindred/loss/vicreg_loss.hpp>

namespace kindred::config::detail {

/// The library's losses on features, as entries of the registry.
template <class Device>
class FeatureLosses {
  using AddLoss = AddLossOn<Device>;
  using AnyLosses = AnyLossesOn<Device>;
  using LossesConfig = typename AnyLosses::Config;

 public:
  static std::map<std::string, AddLoss> all() {
    std::map<std::string, AddLoss> table;
    Plain plain{table};
    for_each_mineable(plain);
    add<loss::TripletLoss>(table, {}, {}, field("margin", &loss::TripletLoss::Config::margin));
    add<loss::TriHardLoss>(table, {"batch_size", "samples_each_class"}, {},
                           field("margin", &loss::TriHardLoss::Config::margin));
    add<loss::MSMLoss>(table, {"batch_size", "samples_each_class"}, {},
                       field("margin", &loss::MSMLoss::Config::margin));
    add<loss::EmlLoss>(table, {"batch_size", "samples_each_class"}, {});
    add<loss::NpairsLoss>(table, {}, {},
                          field("reg_lambda", &loss::NpairsLoss::Config::reg_lambda));
    table["ContrastiveLoss_XBM"] = contrastive_xbm;
    add<loss::SupConLoss>(table, {"views"}, {{"contrast_mode", "all"}},
                          field("temperature", &loss::SupConLoss::Config::temperature),
                          field("base_temperature", &loss::SupConLoss::Config::base_temperature),
                          field("normalize_feature", &loss::SupConLoss::Config::normalize_feature));
    add<loss::TripletAngularMarginLoss>(
        table, {}, {{"reduction", "mean"}},
        field("margin", &loss::TripletAngularMarginLoss::Config::margin),
        field("normalize_feature", &loss::TripletAngularMarginLoss::Config::normalize_feature),
        field("add_absolute", &loss::TripletAngularMarginLoss::Config::add_absolute),
        field("absolute_loss_weight",
              &loss::TripletAngularMarginLoss::Config::absolute_loss_weight),
        field("ap_value", &loss::TripletAngularMarginLoss::Config::ap_value),
        field("an_value", &loss::TripletAngularMarginLoss::Config::an_value));
    add<loss::CenterLoss>(table, {}, {},
                          field("num_classes", &loss::CenterLoss::Config::num_classes),
                          field("feat_dim", &loss::CenterLoss::Config::feat_dim));
    add<loss::DSHSDLoss>(table, {}, {{"multi_label", "false"}},
                         field("alpha", &loss::DSHSDLoss::Config::alpha));
    add<loss::LCDSHLoss>(table, {"n_class"}, {},
                         field("_lambda", &loss::LCDSHLoss::Config::lambda));
    add<loss::DCHLoss>(table, {"n_class"}, {}, field("gamma", &loss::DCHLoss::Config::gamma),
                       field("_lambda", &loss::DCHLoss::Config::lambda));
    add<loss::DPSHLoss>(table, {}, {}, field("eta", &loss::DPSHLoss::Config::eta));
    add<loss::HashNetLoss>(
        table, {}, {}, field("alpha", &loss::HashNetLoss::Config::alpha),
        field("step_continuation", &loss::HashNetLoss::Config::step_continuation));
    add<loss::CSQLoss>(table, {}, {}, field("num_classes", &loss::CSQLoss::Config::num_classes),
                       field("embedding_size", &loss::CSQLoss::Config::embedding_size),
                       field("_lambda", &loss::CSQLoss::Config::lambda),
                       field("seed", &loss::CSQLoss::Config::seed));
    add<loss::GreedyHashLoss>(
        table, {}, {}, field("num_classes", &loss::GreedyHashLoss::Config::num_classes),
        field("embedding_size", &loss::GreedyHashLoss::Config::embedding_size),
        field("alpha", &loss::GreedyHashLoss::Config::alpha));
    add<loss::LiftedStructureLoss>(
        table, {}, {}, field("neg_margin", &loss::LiftedStructureLoss::Config::neg_margin),
        field("pos_margin", &loss::LiftedStructureLoss::Config::pos_margin));
    add<loss::AngularLoss>(table, {}, {}, field("alpha", &loss::AngularLoss::Config::alpha));
    add<loss::FastAPLoss>(table, {}, {}, field("num_bins", &loss::FastAPLoss::Config::num_bins));
    add<loss::SignalToNoiseRatioContrastiveLoss>(
        table, {}, {},
        field("pos_margin", &loss::SignalToNoiseRatioContrastiveLoss::Config::pos_margin),
        field("neg_margin", &loss::SignalToNoiseRatioContrastiveLoss::Config::neg_margin));
    add<loss::IntraPairVarianceLoss>(
        table, {}, {}, field("pos_eps", &loss::IntraPairVarianceLoss::Config::pos_eps),
        field("neg_eps", &loss::IntraPairVarianceLoss::Config::neg_eps));
    add<loss::VICRegLoss>(table, {}, {},
                          field("invariance_lambda", &loss::VICRegLoss::Config::invariance_lambda),
                          field("variance_mu", &loss::VICRegLoss::Config::variance_mu),
                          field("covariance_v", &loss::VICRegLoss::Config::covariance_v),
                          field("eps", &loss::VICRegLoss::Config::eps));
    add<loss::MagRegularizer>(table, {}, {}, field("l_a", &loss::MagRegularizer::Config::l_a),
                              field("u_a", &loss::MagRegularizer::Config::u_a));
    add<loss::ProxyAnchorLoss>(
        table, {}, {}, field("num_classes", &loss::ProxyAnchorLoss::Config::num_classes),
        field("embedding_size", &loss::ProxyAnchorLoss::Config::embedding_size),
        field("margin", &loss::ProxyAnchorLoss::Config::margin),
        field("alpha", &loss::ProxyAnchorLoss::Config::alpha));
    add<loss::ProxyNCALoss>(table, {}, {},
                            field("num_classes", &loss::ProxyNCALoss::Config::num_classes),
                            field("embedding_size", &loss::ProxyNCALoss::Config::embedding_size),
                            field("softmax_scale", &loss::ProxyNCALoss::Config::softmax_scale));
    add<loss::SoftTripleLoss>(
        table, {}, {}, field("num_classes", &loss::SoftTripleLoss::Config::num_classes),
        field("embedding_size", &loss::SoftTripleLoss::Config::embedding_size),
        field("centers_per_class", &loss::SoftTripleLoss::Config::centers_per_class),
        field("la", &loss::SoftTripleLoss::Config::la),
        field("gamma", &loss::SoftTripleLoss::Config::gamma),
        field("margin", &loss::SoftTripleLoss::Config::margin));
    return table;
  }

 private:
  /// Two losses: that of the batch, and xbm_weight times that of the memory.
  static void contrastive_xbm(LossesConfig& losses, const Section& s) {
    loss::ContrastiveLoss::Config c;
    c.weight = s.get("weight", c.weight);
    c.margin = s.get<double>("margin");
    c.normalize_feature = s.get("normalize_feature", c.normalize_feature);
    c.epsilon = s.get("epsilon", c.epsilon);
    c.feature_from = feature_from(s);
    AnyLosses::template add<loss::ContrastiveLoss>(losses, c);
    c.weight *= s.get<double>("xbm_weight");
    using Memory = loss::CrossBatchMemory<loss::ContrastiveLoss>;
    AnyLosses::template add<Memory>(losses,
                                    {.memory_size = s.get<std::int64_t>("xbm_size"),
                                     .embedding_size = s.get<std::int64_t>("embedding_size"),
                                     .start_iter = s.get<std::int64_t>("start_iter"),
                                     .loss = c});
  }
  using Only = std::pair<const char*, const char*>;

  /// The losses that a miner can stand before, here without one.
  struct Plain {
    std::map<std::string, AddLoss>& table;
    template <class Loss, class... Fields>
    void add(std::vector<const char*> ignored, Fields... fields) {
      FeatureLosses::add<Loss>(table, std::move(ignored), {}, fields...);
    }
  };

  /// `ignored` are settings of the reference that have no effect here; `only` those of which a
  /// single value is offered.
  template <class Loss, class... Fields>
  static void add(std::map<std::string, AddLoss>& table, std::vector<const char*> ignored,
                  std::vector<Only> only, Fields... fields) {
    table[Loss::name()] = [=](LossesConfig& losses, const Section& s) {
      const auto config = loss_config<Loss>(s, ignored, fields...);
      for (const auto& [key, value] : only)
        if (s.get<std::string>(key, value) != value)
          throw ConfigError(text(s.where(key), ": only ", value, " is offered"));
      AnyLosses::template add<Loss>(losses, config);
    };
  }
};

}  // namespace kindred::config::detail

namespace kindred::config {

/// Registers the library's losses on features on a device. Returns true, to initialise a variable.
template <class Device>
bool register_losses() {
  for (const auto& [name, add] : detail::FeatureLosses<Device>::all())
    register_loss<Device>(name, add);
  return true;
}

}  // namespace kindred::config
