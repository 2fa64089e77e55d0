#pragma once
// How the settings of a loss are read from YAML, and those of the losses on pairs that a miner or a
// memory can stand before.

#include <string>
#include <utility>
#include <vector>

#include <kindred/config/loss_registry.hpp>
#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/nt_xent_loss.hpp>
#include <kindred/loss/pairwise_cosface.hpp>
#include <kindred/loss/ranked_list_loss.hpp>
#include <kindred/loss/triplet_margin_loss.hpp>

namespace kindred::config::detail {

/// A key of the file and the setting it gives.
template <class Config, class V>
struct LossField {
  const char* key;
  V Config::*member;
};
template <class Config, class V>
LossField<Config, V> field(const char* key, V Config::*member) {
  return {key, member};
}

/// weight, feature_from and the fields of one loss; `ignored` are settings of the reference that
/// have no effect here.
template <class Loss, class... Fields>
typename Loss::Config loss_config(const Section& s, const std::vector<const char*>& ignored,
                                  const Fields&... fields) {
  typename Loss::Config config;
  config.weight = s.get("weight", config.weight);
  config.feature_from = feature_from(s);
  ((config.*fields.member = s.get(fields.key, config.*fields.member)), ...);
  for (const char* key : ignored) s.accept(key);
  return config;
}

/// Calls to.template add<Loss>(ignored keys, fields...) for each loss with Loss::mineable.
template <class To>
void for_each_mineable(To& to) {
  namespace l = kindred::loss;
  to.template add<l::CircleLoss>({}, field("m", &l::CircleLoss::Config::m),
                                 field("gamma", &l::CircleLoss::Config::gamma));
  to.template add<l::ContrastiveLoss>(
      {"embedding_size"}, field("margin", &l::ContrastiveLoss::Config::margin),
      field("normalize_feature", &l::ContrastiveLoss::Config::normalize_feature),
      field("epsilon", &l::ContrastiveLoss::Config::epsilon));
  to.template add<l::MarginLoss>({}, field("margin", &l::MarginLoss::Config::margin),
                                 field("beta", &l::MarginLoss::Config::beta),
                                 field("learn_beta", &l::MarginLoss::Config::learn_beta));
  to.template add<l::MultiSimilarityLoss>({},
                                          field("alpha", &l::MultiSimilarityLoss::Config::alpha),
                                          field("beta", &l::MultiSimilarityLoss::Config::beta),
                                          field("base", &l::MultiSimilarityLoss::Config::base));
  to.template add<l::NTXentLoss>({}, field("temperature", &l::NTXentLoss::Config::temperature));
  to.template add<l::PairwiseCosface>({}, field("margin", &l::PairwiseCosface::Config::margin),
                                      field("gamma", &l::PairwiseCosface::Config::gamma));
  to.template add<l::RankedListLoss>({}, field("margin", &l::RankedListLoss::Config::margin),
                                     field("Tn", &l::RankedListLoss::Config::Tn),
                                     field("imbalance", &l::RankedListLoss::Config::imbalance),
                                     field("alpha", &l::RankedListLoss::Config::alpha),
                                     field("Tp", &l::RankedListLoss::Config::Tp));
  to.template add<l::TripletMarginLoss>({}, field("margin", &l::TripletMarginLoss::Config::margin));
}

}  // namespace kindred::config::detail
