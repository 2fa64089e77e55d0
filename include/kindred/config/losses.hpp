#pragma once
// The losses on features, and on features and logits, by their names in YAML. Settings have the
// names of PaddleClas or pytorch-metric-learning, and `weight` and `feature_from` as every loss.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <kindred/config/section.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/angular_loss.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/dch_loss.hpp>
#include <kindred/loss/dpsh_loss.hpp>
#include <kindred/loss/dshsd_loss.hpp>
#include <kindred/loss/eml_loss.hpp>
#include <kindred/loss/fast_ap_loss.hpp>
#include <kindred/loss/intra_pair_variance_loss.hpp>
#include <kindred/loss/lcdsh_loss.hpp>
#include <kindred/loss/lifted_structure_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/msm_loss.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/npairs_loss.hpp>
#include <kindred/loss/nt_xent_loss.hpp>
#include <kindred/loss/pairwise_cosface.hpp>
#include <kindred/loss/proxy_anchor_loss.hpp>
#include <kindred/loss/proxy_nca_loss.hpp>
#include <kindred/loss/ranked_list_loss.hpp>
#include <kindred/loss/snr_contrastive_loss.hpp>
#include <kindred/loss/soft_triple_loss.hpp>
#include <kindred/loss/sup_con_loss.hpp>
#include <kindred/loss/tri_hard_loss.hpp>
#include <kindred/loss/triplet_angular_margin_loss.hpp>
#include <kindred/loss/triplet_loss.hpp>
#include <kindred/loss/vicreg_loss.hpp>
#include <kindred/model/any.hpp>

namespace kindred::config::detail {

/// Reads the settings of one loss and adds it to a model's.
using AddLoss = std::function<void(any::Losses<cpu::Context, float>::Config&, const Section&)>;

class FeatureLosses {
 public:
  static const std::map<std::string, AddLoss>& all() {
    static const std::map<std::string, AddLoss> table = make();
    return table;
  }

 private:
  template <class Config, class V>
  struct Field {
    const char* key;
    V Config::*member;
  };
  template <class Config, class V>
  static Field<Config, V> field(const char* key, V Config::*member) {
    return {key, member};
  }
  using Only = std::pair<const char*, const char*>;

  /// `ignored` are settings of the reference that have no effect here; `only` those of which a
  /// single value is offered.
  template <class Loss, class... Fields>
  static void add(std::map<std::string, AddLoss>& table, std::vector<const char*> ignored,
                  std::vector<Only> only, Fields... fields) {
    table[Loss::name()] = [=](any::Losses<cpu::Context, float>::Config& losses, const Section& s) {
      typename Loss::Config config;
      config.weight = s.get("weight", config.weight);
      config.feature_from = feature_from(s);
      ((config.*fields.member = s.get(fields.key, config.*fields.member)), ...);
      for (const char* key : ignored) s.accept(key);
      for (const auto& [key, value] : only)
        if (s.get<std::string>(key, value) != value)
          throw ConfigError(text(s.where(key), ": only ", value, " is offered"));
      any::Losses<cpu::Context, float>::add<Loss>(losses, config);
    };
  }
  static loss::FeatureFrom feature_from(const Section& s) {
    const auto name = s.get<std::string>("feature_from", "features");
    if (name == "features") return loss::FeatureFrom::features;
    if (name == "backbone") return loss::FeatureFrom::backbone;
    throw ConfigError(
        text(s.where("feature_from"), ": \"", name, "\" is neither features nor backbone"));
  }

  static std::map<std::string, AddLoss> make() {
    std::map<std::string, AddLoss> all;
    add<loss::TripletLoss>(all, {}, {}, field("margin", &loss::TripletLoss::Config::margin));
    add<loss::TriHardLoss>(all, {"batch_size", "samples_each_class"}, {},
                           field("margin", &loss::TriHardLoss::Config::margin));
    add<loss::MSMLoss>(all, {"batch_size", "samples_each_class"}, {},
                       field("margin", &loss::MSMLoss::Config::margin));
    add<loss::EmlLoss>(all, {"batch_size", "samples_each_class"}, {});
    add<loss::NpairsLoss>(all, {}, {}, field("reg_lambda", &loss::NpairsLoss::Config::reg_lambda));
    add<loss::ContrastiveLoss>(
        all, {"embedding_size"}, {}, field("margin", &loss::ContrastiveLoss::Config::margin),
        field("normalize_feature", &loss::ContrastiveLoss::Config::normalize_feature),
        field("epsilon", &loss::ContrastiveLoss::Config::epsilon));
    add<loss::SupConLoss>(all, {"views"}, {{"contrast_mode", "all"}},
                          field("temperature", &loss::SupConLoss::Config::temperature),
                          field("base_temperature", &loss::SupConLoss::Config::base_temperature),
                          field("normalize_feature", &loss::SupConLoss::Config::normalize_feature));
    add<loss::PairwiseCosface>(all, {}, {}, field("margin", &loss::PairwiseCosface::Config::margin),
                               field("gamma", &loss::PairwiseCosface::Config::gamma));
    add<loss::TripletAngularMarginLoss>(
        all, {}, {{"reduction", "mean"}},
        field("margin", &loss::TripletAngularMarginLoss::Config::margin),
        field("normalize_feature", &loss::TripletAngularMarginLoss::Config::normalize_feature),
        field("add_absolute", &loss::TripletAngularMarginLoss::Config::add_absolute),
        field("absolute_loss_weight",
              &loss::TripletAngularMarginLoss::Config::absolute_loss_weight),
        field("ap_value", &loss::TripletAngularMarginLoss::Config::ap_value),
        field("an_value", &loss::TripletAngularMarginLoss::Config::an_value));
    add<loss::CenterLoss>(all, {}, {}, field("num_classes", &loss::CenterLoss::Config::num_classes),
                          field("feat_dim", &loss::CenterLoss::Config::feat_dim));
    add<loss::DSHSDLoss>(all, {}, {{"multi_label", "false"}},
                         field("alpha", &loss::DSHSDLoss::Config::alpha));
    add<loss::LCDSHLoss>(all, {"n_class"}, {}, field("_lambda", &loss::LCDSHLoss::Config::lambda));
    add<loss::DCHLoss>(all, {"n_class"}, {}, field("gamma", &loss::DCHLoss::Config::gamma),
                       field("_lambda", &loss::DCHLoss::Config::lambda));
    add<loss::DPSHLoss>(all, {}, {}, field("eta", &loss::DPSHLoss::Config::eta));
    add<loss::MultiSimilarityLoss>(all, {}, {},
                                   field("alpha", &loss::MultiSimilarityLoss::Config::alpha),
                                   field("beta", &loss::MultiSimilarityLoss::Config::beta),
                                   field("base", &loss::MultiSimilarityLoss::Config::base));
    add<loss::NTXentLoss>(all, {}, {},
                          field("temperature", &loss::NTXentLoss::Config::temperature));
    add<loss::CircleLoss>(all, {}, {}, field("m", &loss::CircleLoss::Config::m),
                          field("gamma", &loss::CircleLoss::Config::gamma));
    add<loss::LiftedStructureLoss>(
        all, {}, {}, field("neg_margin", &loss::LiftedStructureLoss::Config::neg_margin),
        field("pos_margin", &loss::LiftedStructureLoss::Config::pos_margin));
    add<loss::AngularLoss>(all, {}, {}, field("alpha", &loss::AngularLoss::Config::alpha));
    add<loss::MarginLoss>(all, {}, {}, field("margin", &loss::MarginLoss::Config::margin),
                          field("beta", &loss::MarginLoss::Config::beta));
    add<loss::FastAPLoss>(all, {}, {}, field("num_bins", &loss::FastAPLoss::Config::num_bins));
    add<loss::RankedListLoss>(all, {}, {}, field("margin", &loss::RankedListLoss::Config::margin),
                              field("Tn", &loss::RankedListLoss::Config::Tn),
                              field("imbalance", &loss::RankedListLoss::Config::imbalance),
                              field("alpha", &loss::RankedListLoss::Config::alpha),
                              field("Tp", &loss::RankedListLoss::Config::Tp));
    add<loss::SignalToNoiseRatioContrastiveLoss>(
        all, {}, {},
        field("pos_margin", &loss::SignalToNoiseRatioContrastiveLoss::Config::pos_margin),
        field("neg_margin", &loss::SignalToNoiseRatioContrastiveLoss::Config::neg_margin));
    add<loss::IntraPairVarianceLoss>(
        all, {}, {}, field("pos_eps", &loss::IntraPairVarianceLoss::Config::pos_eps),
        field("neg_eps", &loss::IntraPairVarianceLoss::Config::neg_eps));
    add<loss::VICRegLoss>(all, {}, {},
                          field("invariance_lambda", &loss::VICRegLoss::Config::invariance_lambda),
                          field("variance_mu", &loss::VICRegLoss::Config::variance_mu),
                          field("covariance_v", &loss::VICRegLoss::Config::covariance_v),
                          field("eps", &loss::VICRegLoss::Config::eps));
    add<loss::ProxyAnchorLoss>(
        all, {}, {}, field("num_classes", &loss::ProxyAnchorLoss::Config::num_classes),
        field("embedding_size", &loss::ProxyAnchorLoss::Config::embedding_size),
        field("margin", &loss::ProxyAnchorLoss::Config::margin),
        field("alpha", &loss::ProxyAnchorLoss::Config::alpha));
    add<loss::ProxyNCALoss>(all, {}, {},
                            field("num_classes", &loss::ProxyNCALoss::Config::num_classes),
                            field("embedding_size", &loss::ProxyNCALoss::Config::embedding_size),
                            field("softmax_scale", &loss::ProxyNCALoss::Config::softmax_scale));
    add<loss::SoftTripleLoss>(
        all, {}, {}, field("num_classes", &loss::SoftTripleLoss::Config::num_classes),
        field("embedding_size", &loss::SoftTripleLoss::Config::embedding_size),
        field("centers_per_class", &loss::SoftTripleLoss::Config::centers_per_class),
        field("la", &loss::SoftTripleLoss::Config::la),
        field("gamma", &loss::SoftTripleLoss::Config::gamma),
        field("margin", &loss::SoftTripleLoss::Config::margin));
    return all;
  }
};

/// Adds the loss `name` with the settings `s`; returns whether there is one of that name.
inline bool add_feature_loss(any::Losses<cpu::Context, float>::Config& losses,
                             const std::string& name, const Section& s) {
  const auto found = FeatureLosses::all().find(name);
  if (found == FeatureLosses::all().end()) return false;
  found->second(losses, s);
  return true;
}

/// Adds the names of add_feature_loss to `known`.
inline void add_feature_loss_names(std::set<std::string>& known) {
  for (const auto& [name, add] : FeatureLosses::all()) known.insert(name);
}

}  // namespace kindred::config::detail
