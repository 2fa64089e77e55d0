#pragma once
// The losses between a model and its teacher by their names in YAML, for any device, also under
// PaddleClas' names (DistillationKLDivLoss and so on), whose model_name_pairs must be [[Student,
// Teacher]]. A file of the program that includes the kernels of a device calls
// register_distillation of it; distillation.hpp does so for the processor.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <kindred/config/loss_registry.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/distance_loss.hpp>
#include <kindred/loss/dkd_loss.hpp>
#include <kindred/loss/dml_loss.hpp>
#include <kindred/loss/kl_div_loss.hpp>
#include <kindred/loss/rkd_loss.hpp>

namespace kindred::config::detail {

template <class Device>
class DistillationLosses {
  using AddLoss = AddLossOn<Device>;
  using AnyLosses = AnyLossesOn<Device>;
  using LossesConfig = typename AnyLosses::Config;

 public:
  static std::map<std::string, AddLoss> all() {
    std::map<std::string, AddLoss> table;
    add<loss::KLDivLoss>(table, [](const Section& s, loss::KLDivLoss::Config& c) {
      c.key = key(s, c.key);
      c.temperature = s.get("temperature", c.temperature);
    });
    add<loss::DMLLoss>(table, [](const Section& s, loss::DMLLoss::Config& c) {
      using loss::DMLActivation;
      c.key = key(s, c.key);
      c.act =
          word(s, "act", {{"softmax", DMLActivation::softmax}, {"sigmoid", DMLActivation::sigmoid}},
               c.act);
      c.sum_across_class_dim = s.get("sum_across_class_dim", c.sum_across_class_dim);
      c.eps = s.get("eps", c.eps);
    });
    add<loss::DistanceLoss>(table, [](const Section& s, loss::DistanceLoss::Config& c) {
      using loss::DistanceMode;
      c.key = key(s, c.key);
      c.mode = word(s, "mode",
                    {{"l2", DistanceMode::l2},
                     {"l1", DistanceMode::l1},
                     {"smooth_l1", DistanceMode::smooth_l1}},
                    c.mode);
    });
    add<loss::RKDLoss>(table, [](const Section& s, loss::RKDLoss::Config& c) {
      c.key = key(s, c.key);
      c.distance = s.get("distance", c.distance);
      c.angle = s.get("angle", c.angle);
    });
    add<loss::DKDLoss>(table, [](const Section& s, loss::DKDLoss::Config& c) {
      c.temperature = s.get("temperature", c.temperature);
      c.alpha = s.get("alpha", c.alpha);
      c.beta = s.get("beta", c.beta);
      c.use_target_as_gt = s.get("use_target_as_gt", c.use_target_as_gt);
    });
    table["DistillationCELoss"] = [](LossesConfig& losses, const Section& s) {
      check_pair(s);
      check_logits(s);
      AnyLosses::template add<loss::CELoss>(losses, {.weight = s.get("weight", 1.),
                                                     .epsilon = s.get("epsilon", 0.),
                                                     .target = loss::CETarget::teacher});
    };
    table["DistillationGTCELoss"] = [](LossesConfig& losses, const Section& s) {
      using Names = std::vector<std::string>;
      s.accept("name");
      check_logits(s);
      if (s.get<Names>("model_names", {"Student"}) != Names{"Student"})
        throw ConfigError(
            text(s.where("model_names"), ": only [Student] learns; the teacher is ", "fixed"));
      AnyLosses::template add<loss::CELoss>(
          losses, {.weight = s.get("weight", 1.), .epsilon = s.get("epsilon", 0.)});
    };
    return table;
  }

 private:
  static loss::DistillationKey key(const Section& s, loss::DistillationKey fallback) {
    return word(
        s, "key",
        {{"logits", loss::DistillationKey::logits}, {"features", loss::DistillationKey::features}},
        fallback);
  }
  static void check_logits(const Section& s) {
    if (const auto key = s.get<std::string>("key", "logits"); key != "logits")
      throw ConfigError(text(s.where("key"), ": \"", key, "\": only logits have classes"));
  }
  /// PaddleClas' choice of two models, and a name for logs.
  static void check_pair(const Section& s) {
    using Pairs = std::vector<std::vector<std::string>>;
    s.accept("name");
    const Pairs pairs = s.get<Pairs>("model_name_pairs", {{"Student", "Teacher"}});
    if (pairs != Pairs{{"Student", "Teacher"}})
      throw ConfigError(text(s.where("model_name_pairs"),
                             ": expected [[Student, Teacher]], the one pair that is there"));
  }

  /// Under its own name and as Distillation...
  template <class Loss, class Read>
  static void add(std::map<std::string, AddLoss>& table, Read read) {
    table[Loss::name()] = table[std::string("Distillation") + Loss::name()] =
        [read](LossesConfig& losses, const Section& s) {
          typename Loss::Config config;
          config.weight = s.get("weight", config.weight);
          check_pair(s);
          read(s, config);
          AnyLosses::template add<Loss>(losses, config);
        };
  }
};

}  // namespace kindred::config::detail

namespace kindred::config {

/// Registers the losses of distillation on a device. Returns true, to initialise a variable.
template <class Device>
bool register_distillation() {
  for (const auto& [name, add] : detail::DistillationLosses<Device>::all())
    register_loss<Device>(name, add);
  return true;
}

}  // namespace kindred::config
