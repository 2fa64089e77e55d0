#pragma once
// Miners by their names in YAML, for any device: the key `miner: {name: MultiSimilarityMiner, ...}`
// within the settings of a loss on pairs. Settings have the names of pytorch-metric-learning. A
// file of the program that includes the kernels of a device calls register_miners of it; miners.hpp
// does so for the processor.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/config/loss_settings.hpp>
#include <kindred/loss/mined.hpp>
#include <kindred/miner/angular_miner.hpp>
#include <kindred/miner/batch_easy_hard_miner.hpp>
#include <kindred/miner/batch_hard_miner.hpp>
#include <kindred/miner/distance_weighted_miner.hpp>
#include <kindred/miner/multi_similarity_miner.hpp>
#include <kindred/miner/pair_margin_miner.hpp>
#include <kindred/miner/triplet_margin_miner.hpp>

namespace kindred::config::detail {

/// The section `miner` of a loss.
template <class Device>
class MinerReader {
  using Context = typename Device::Context;
  using AnyLosses = AnyLossesOn<Device>;

 public:
  using AnyMiner = any::Miner<Context, float>;
  using Make = std::function<typename AnyMiner::Config(const Section&)>;

  static const std::map<std::string, Make>& all() {
    namespace m = kindred::miner;
    static const std::map<std::string, Make> known = {
        {m::AngularMiner::name(),
         [](const Section& s) {
           return AnyMiner::template component<m::AngularMiner>(angular(s));
         }},
        {m::BatchEasyHardMiner::name(),
         [](const Section& s) {
           return AnyMiner::template component<m::BatchEasyHardMiner>(easy_hard(s));
         }},
        {m::BatchHardMiner::name(),
         [](const Section&) { return AnyMiner::template component<m::BatchHardMiner>({}); }},
        {m::DistanceWeightedMiner::name(),
         [](const Section& s) {
           m::DistanceWeightedMiner::Config c;
           c.cutoff = s.get("cutoff", c.cutoff);
           c.nonzero_loss_cutoff = s.get("nonzero_loss_cutoff", c.nonzero_loss_cutoff);
           return AnyMiner::template component<m::DistanceWeightedMiner>(c);
         }},
        {m::MultiSimilarityMiner::name(),
         [](const Section& s) {
           m::MultiSimilarityMiner::Config c;
           c.epsilon = s.get("epsilon", c.epsilon);
           return AnyMiner::template component<m::MultiSimilarityMiner>(c);
         }},
        {m::PairMarginMiner::name(),
         [](const Section& s) {
           m::PairMarginMiner::Config c;
           c.pos_margin = s.get("pos_margin", c.pos_margin);
           c.neg_margin = s.get("neg_margin", c.neg_margin);
           return AnyMiner::template component<m::PairMarginMiner>(c);
         }},
        {m::TripletMarginMiner::name(), [](const Section& s) {
           return AnyMiner::template component<m::TripletMarginMiner>(triplet(s));
         }}};
    return known;
  }

  /// Adds the loss behind the miner that `s` describes.
  template <class Loss>
  static void add(typename AnyLosses::Config& losses, const Section& s,
                  const typename Loss::Config& config) {
    namespace m = kindred::miner;
    const auto name = s.get<std::string>("name");
    // The one loss that sees the triplets themselves.
    if constexpr (std::is_same_v<Loss, loss::TripletMarginLoss>) {
      using Angular = loss::Mined<m::AngularMiner, Loss>;
      using Margin = loss::Mined<m::TripletMarginMiner, Loss>;
      if (name == m::AngularMiner::name())
        return AnyLosses::template add<Angular>(losses, {angular(s), config});
      if (name == m::TripletMarginMiner::name())
        return AnyLosses::template add<Margin>(losses, {triplet(s), config});
    }
    const auto found = all().find(name);
    if (found == all().end()) {
      std::set<std::string> names;
      for (const auto& [known, make] : all()) names.insert(known);
      s.unknown_name(name, names);
    }
    AnyLosses::template add<loss::Mined<AnyMiner, Loss>>(losses, {found->second(s), config});
  }

 private:
  static miner::AngularMiner::Config angular(const Section& s) {
    miner::AngularMiner::Config c;
    c.angle = s.get("angle", c.angle);
    return c;
  }
  static miner::TripletMarginMiner::Config triplet(const Section& s) {
    using miner::TripletType;
    miner::TripletMarginMiner::Config c;
    c.margin = s.get("margin", c.margin);
    c.type_of_triplets = word(s, "type_of_triplets",
                              {{"all", TripletType::all},
                               {"hard", TripletType::hard},
                               {"semihard", TripletType::semihard},
                               {"easy", TripletType::easy}},
                              c.type_of_triplets);
    return c;
  }
  static miner::BatchEasyHardMiner::Config easy_hard(const Section& s) {
    using miner::Strategy;
    const std::map<std::string, Strategy> known = {{"hard", Strategy::hard},
                                                   {"semihard", Strategy::semihard},
                                                   {"easy", Strategy::easy},
                                                   {"all", Strategy::all}};
    miner::BatchEasyHardMiner::Config c;
    c.pos_strategy = word(s, "pos_strategy", known, c.pos_strategy);
    c.neg_strategy = word(s, "neg_strategy", known, c.neg_strategy);
    c.allowed_pos_range = array(s, "allowed_pos_range", c.allowed_pos_range);
    c.allowed_neg_range = array(s, "allowed_neg_range", c.allowed_neg_range);
    return c;
  }
};

/// The losses on pairs, each behind a miner.
template <class Device>
struct MinedLosses {
  template <class Loss, class... Fields>
  void add(std::vector<const char*> ignored, Fields... fields) {
    mined_registry<Device>()[Loss::name()] = [=](typename AnyLossesOn<Device>::Config& losses,
                                                 const Section& s) {
      const auto config = loss_config<Loss>(s, ignored, fields...);
      const Section miner = s.section("miner");
      MinerReader<Device>::template add<Loss>(losses, miner, config);
      miner.finish();
    };
  }
};

}  // namespace kindred::config::detail

namespace kindred::config {

/// Registers the library's miners on a device. Returns true, to initialise a variable.
template <class Device>
bool register_miners() {
  detail::MinedLosses<Device> to;
  detail::for_each_mineable(to);
  return true;
}

}  // namespace kindred::config
