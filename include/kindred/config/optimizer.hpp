#pragma once
// Optimizers and learning rates described in YAML: the section Optimizer of PaddleClas.

#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/config/section.hpp>
#include <kindred/train/parameter_group.hpp>

namespace kindred::config {

namespace detail {

/// What all schedules but Constant share.
template <class S>
S with_warmup(const Section& s, S schedule) {
  schedule.warmup_epochs = s.get("warmup_epoch", schedule.warmup_epochs);
  schedule.warmup_start = s.get("warmup_start_lr", schedule.warmup_start);
  if constexpr (std::is_assignable_v<decltype((schedule.by_epoch)), bool>)
    schedule.by_epoch = s.get("by_epoch", schedule.by_epoch);
  return schedule;
}

inline lr::Cyclic cyclic(const Section& s) {
  lr::Cyclic c{.base = s.get<double>("base_learning_rate"),
               .max_lr = s.get<double>("max_learning_rate"),
               .step_size_up = s.get<std::int64_t>("step_size_up")};
  c.step_size_down = s.get("step_size_down", c.step_size_down);
  c.mode = word(s, "mode",
                {{"triangular", lr::CyclicMode::triangular},
                 {"triangular2", lr::CyclicMode::triangular2},
                 {"exp_range", lr::CyclicMode::exp_range}},
                c.mode);
  c.exp_gamma = s.get("exp_gamma", c.exp_gamma);
  return with_warmup(s, c);
}

/// PaddleClas lets learning_rate override the intervals that the file gives: tenths every 30
/// epochs. Here both together are refused.
inline lr::AnySchedule piecewise(const Section& s) {
  if (!s.has("learning_rate"))
    return with_warmup(s, lr::Piecewise{.decay_epochs = s.get<std::vector<double>>("decay_epochs"),
                                        .values = s.get<std::vector<double>>("values")});
  if (s.has("values") || s.has("decay_epochs"))
    throw ConfigError(text(s.where("learning_rate"), ": means a tenth every 30 epochs, whatever ",
                           "decay_epochs and values are; remove it or them"));
  return with_warmup(s, lr::Step{.base = s.get<double>("learning_rate")});
}

inline lr::ReduceOnPlateau reduce_on_plateau(const Section& s) {
  lr::ReduceOnPlateau r{.base = s.get<double>("learning_rate")};
  r.mode = word(s, "mode", {{"min", lr::PlateauMode::min}, {"max", lr::PlateauMode::max}}, r.mode);
  r.factor = s.get("factor", r.factor);
  r.patience = s.get("patience", r.patience);
  r.threshold = s.get("threshold", r.threshold);
  r.threshold_mode =
      word(s, "threshold_mode",
           {{"rel", lr::PlateauThreshold::relative}, {"abs", lr::PlateauThreshold::absolute}},
           r.threshold_mode);
  r.cooldown = s.get("cooldown", r.cooldown);
  r.min_lr = s.get("min_lr", r.min_lr);
  r.epsilon = s.get("epsilon", r.epsilon);
  return with_warmup(s, r);
}

inline lr::OneCycleLR one_cycle(const Section& s) {
  lr::OneCycleLR o{.max_lr = s.get<double>("max_learning_rate")};
  o.divide_factor = s.get("divide_factor", o.divide_factor);
  o.end_lr = s.get("end_learning_rate", o.end_lr);
  o.phase_pct = s.get("phase_pct", o.phase_pct);
  o.anneal_strategy =
      word(s, "anneal_strategy",
           {{"cos", lr::AnnealStrategy::cos}, {"linear", lr::AnnealStrategy::linear}},
           o.anneal_strategy);
  o.three_phase = s.get("three_phase", o.three_phase);
  return with_warmup(s, o);
}

inline lr::AnySchedule schedule_named(const std::string& name, const Section& s) {
  const auto base = [&] { return s.get<double>("learning_rate"); };
  if (name == "Constant") return lr::Constant{base()};
  if (name == "ConstLR") return with_warmup(s, lr::ConstLR{.base = base()});
  if (name == "Linear")
    return with_warmup(
        s, lr::Linear{.base = base(), .end_lr = s.get("end_lr", 0.), .power = s.get("power", 1.)});
  if (name == "Cosine")
    return with_warmup(s, lr::Cosine{.base = base(), .eta_min = s.get("eta_min", 0.)});
  if (name == "Step")
    return with_warmup(s, lr::Step{.base = base(),
                                   .step_size = s.get<double>("step_size"),
                                   .gamma = s.get<double>("gamma")});
  if (name == "MultiStepDecay")
    return with_warmup(s, lr::MultiStepDecay{.base = base(),
                                             .milestones = s.get<std::vector<double>>("milestones"),
                                             .gamma = s.get("gamma", 0.1)});
  if (name == "CosineFixmatch") {
    lr::CosineFixmatch c{.base = base(),
                         .num_warmup_steps = s.get<std::int64_t>("num_warmup_steps")};
    c.num_cycles = s.get("num_cycles", c.num_cycles);
    return c;
  }
  if (name == "Cyclic") return cyclic(s);
  if (name == "Piecewise") return piecewise(s);
  if (name == "ReduceOnPlateau") return reduce_on_plateau(s);
  if (name == "OneCycleLR") return one_cycle(s);
  s.unknown_name(name, {"Constant", "ConstLR", "Linear", "Cosine", "Cyclic", "Step", "Piecewise",
                        "MultiStepDecay", "ReduceOnPlateau", "CosineFixmatch", "OneCycleLR"});
}

/// The section lr; without a name the rate is constant.
inline lr::AnySchedule schedule(const Section& s) {
  lr::AnySchedule out = schedule_named(s.get<std::string>("name", "Constant"), s);
  s.finish();
  return out;
}

inline double l2(const Section& s) {
  if (!s.has("regularizer")) return 0;
  const Section r = s.section("regularizer");
  const auto name = r.get<std::string>("name");
  if (name != "L2") r.unknown_name(name, {"L2"});
  const auto coeff = r.get<double>("coeff");
  r.finish();
  return coeff;
}

inline optim::Kinds kinds(const Section& s, const std::string& key) {
  if (!s.has(key)) return {};
  static const std::map<std::string, optim::Kinds> known = {{"weight", {ParameterKind::weight}},
                                                            {"bias", {ParameterKind::bias}},
                                                            {"norm", {ParameterKind::norm}},
                                                            {"center", {ParameterKind::center}}};
  optim::Kinds out;
  for (const auto& name : s.get<std::vector<std::string>>(key)) {
    const auto found = known.find(name);
    if (found == known.end())
      throw ConfigError(text(s.where(key), ": ", name, " is none of weight, bias, norm, center"));
    out = out | found->second;
  }
  return out;
}

/// The kinds that no_decay names; PaddleClas' one_dim_param_no_weight_decay means bias and norm.
inline optim::Kinds no_decay(const Section& s) {
  const bool one_dimensional = s.get("one_dim_param_no_weight_decay", false);
  return kinds(s, "no_decay") |
         (one_dimensional ? optim::Kinds{ParameterKind::bias, ParameterKind::norm}
                          : optim::Kinds{});
}

inline optim::AnyOptimizer optimizer(const std::string& name, const Section& s) {
  s.accept("multi_precision");  // all is in single precision
  if (name == "SGD") return optim::SGD{.weight_decay = l2(s), .no_decay = no_decay(s)};
  if (name == "Momentum") {
    optim::Momentum m{.weight_decay = l2(s), .no_decay = no_decay(s)};
    m.momentum = s.get("momentum", m.momentum);
    m.use_nesterov = s.get("use_nesterov", m.use_nesterov);
    return m;
  }
  if (name == "Adam") {
    optim::Adam a{.weight_decay = l2(s), .no_decay = no_decay(s)};
    a.beta1 = s.get("beta1", a.beta1);
    a.beta2 = s.get("beta2", a.beta2);
    a.epsilon = s.get("epsilon", a.epsilon);
    return a;
  }
  if (name == "AdamW") {
    optim::AdamW a{.no_decay = no_decay(s)};
    a.beta1 = s.get("beta1", a.beta1);
    a.beta2 = s.get("beta2", a.beta2);
    a.epsilon = s.get("epsilon", a.epsilon);
    a.weight_decay = s.get("weight_decay", a.weight_decay);
    return a;
  }
  if (name == "RMSProp") {
    optim::RMSProp r{.weight_decay = l2(s), .no_decay = no_decay(s)};
    r.rho = s.get("rho", r.rho);
    r.momentum = s.get("momentum", r.momentum);
    r.epsilon = s.get("epsilon", r.epsilon);
    r.centered = s.get("centered", r.centered);
    return r;
  }
  s.unknown_name(name, {"SGD", "Momentum", "Adam", "AdamW", "RMSProp"});
}

}  // namespace detail

/// The section Optimizer: {name, lr, ...} for all parameters, or a list of "- Name: {scope, lr,
/// ...}" for parts of them, see train::ParameterGroup. Throws ConfigError that names the key.
inline std::vector<train::ParameterGroup<>> optimizers(const Section& root) {
  std::vector<train::ParameterGroup<>> groups;
  const auto add = [&](const std::string& scope, const std::string& name, const Section& s) {
    lr::AnySchedule rates = detail::schedule(s.section("lr"));
    groups.push_back({scope, detail::optimizer(name, s), std::move(rates)});
  };
  if (root.is_list("Optimizer")) {
    root.for_each("Optimizer", [&](const std::string& name, const Section& s) {
      add(s.get<std::string>("scope"), name, s);
    });
  } else {
    const Section s = root.section("Optimizer");
    add("all", s.get<std::string>("name"), s);
    s.finish();
  }
  return groups;
}

}  // namespace kindred::config
