// The section Optimizer in YAML: every optimizer and schedule by name, groups, and mistakes.

#include <kindred/config/optimizer.hpp>

#include "support/catch.hpp"

using namespace kindred;
using namespace kindred::config;

namespace {

std::vector<train::ParameterGroup<>> read(const std::string& yaml) {
  return optimizers(Section(YAML::Load("{Optimizer: " + yaml + "}"), ""));
}
std::string refused(const std::string& yaml) {
  try {
    read(yaml);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}
/// The rule of type S that `lr` names.
template <class S>
S schedule(const std::string& lr) {
  const auto groups = read("{name: SGD, lr: {" + lr + "}}");
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].scope == "all");
  return std::get<S>(groups[0].schedule.rule);
}
template <class O>
O optimizer(const std::string& settings) {
  return std::get<O>(read("{lr: {learning_rate: 0.1}, " + settings + "}").at(0).optimizer.rule);
}

}  // namespace

TEST_CASE("YAML: every schedule with its settings under PaddleClas' names") {
  CHECK(schedule<lr::Constant>("learning_rate: 0.3").base == 0.3);
  CHECK(schedule<lr::Constant>("name: Constant, learning_rate: 0.3").base == 0.3);
  const auto constant = schedule<lr::ConstLR>(
      "name: ConstLR, learning_rate: 0.3, warmup_epoch: 2, warmup_start_lr: 0.1, by_epoch: True");
  CHECK(constant.warmup_epochs == 2);
  CHECK(constant.warmup_start == 0.1);
  CHECK(constant.by_epoch);
  const auto linear = schedule<lr::Linear>("name: Linear, learning_rate: 1, end_lr: 0.1, power: 2");
  CHECK(linear.end_lr == 0.1);
  CHECK(linear.power == 2);
  CHECK(schedule<lr::Cosine>("name: Cosine, learning_rate: 1, eta_min: 0.1").eta_min == 0.1);
  const auto cyclic = schedule<lr::Cyclic>(
      "name: Cyclic, base_learning_rate: 0.1, max_learning_rate: 1, step_size_up: 3, "
      "step_size_down: 4, mode: exp_range, exp_gamma: 0.9");
  CHECK(cyclic.max_lr == 1);
  CHECK(cyclic.step_size_down == 4);
  CHECK(cyclic.mode == lr::CyclicMode::exp_range);
  CHECK(cyclic.exp_gamma == 0.9);
  const auto step = schedule<lr::Step>("name: Step, learning_rate: 1, step_size: 7, gamma: 0.2");
  CHECK(step.step_size == 7);
  CHECK(step.gamma == 0.2);
  const auto pieces = schedule<lr::Piecewise>(
      "name: Piecewise, decay_epochs: [30, 60], values: [0.1, 0.01, 0.001]");
  CHECK(pieces.decay_epochs == std::vector<double>{30, 60});
  CHECK(pieces.values == std::vector<double>{0.1, 0.01, 0.001});
  const auto tenths = schedule<lr::Step>("name: Piecewise, learning_rate: 0.1");
  CHECK(tenths.at({.step = 65, .steps_per_epoch = 1, .epochs = 100}) == Approx(0.001));
  const auto multi = schedule<lr::MultiStepDecay>(
      "name: MultiStepDecay, learning_rate: 0.04, milestones: [30, 60], gamma: 0.5");
  CHECK(multi.milestones == std::vector<double>{30, 60});
  CHECK(multi.gamma == 0.5);
  const auto plateau = schedule<lr::ReduceOnPlateau>(
      "name: ReduceOnPlateau, learning_rate: 1, mode: max, factor: 0.3, patience: 4, threshold: "
      "0.1, threshold_mode: abs, cooldown: 2, min_lr: 0.01, epsilon: 0.001, by_epoch: True");
  CHECK(plateau.mode == lr::PlateauMode::max);
  CHECK(plateau.patience == 4);
  CHECK(plateau.threshold_mode == lr::PlateauThreshold::absolute);
  CHECK(plateau.cooldown == 2);
  CHECK(plateau.min_lr == 0.01);
  const auto fixmatch = schedule<lr::CosineFixmatch>(
      "name: CosineFixmatch, learning_rate: 1, num_warmup_steps: 5, num_cycles: 0.5");
  CHECK(fixmatch.num_warmup_steps == 5);
  CHECK(fixmatch.num_cycles == 0.5);
  const auto cycle = schedule<lr::OneCycleLR>(
      "name: OneCycleLR, max_learning_rate: 1, divide_factor: 10, end_learning_rate: 0.01, "
      "phase_pct: 0.2, anneal_strategy: linear, three_phase: True, warmup_epoch: 1");
  CHECK(cycle.divide_factor == 10);
  CHECK(cycle.anneal_strategy == lr::AnnealStrategy::linear);
  CHECK(cycle.three_phase);
}

TEST_CASE("YAML: every optimizer with its settings under PaddleClas' names") {
  const std::string l2 = "regularizer: {name: L2, coeff: 0.01}, ";
  CHECK(optimizer<optim::SGD>(l2 + "name: SGD").weight_decay == 0.01);
  const auto momentum = optimizer<optim::Momentum>(
      l2 + "name: Momentum, momentum: 0.8, use_nesterov: True, multi_precision: False");
  CHECK(momentum.momentum == 0.8);
  CHECK(momentum.use_nesterov);
  const auto adam =
      optimizer<optim::Adam>(l2 + "name: Adam, beta1: 0.8, beta2: 0.9, epsilon: 0.001");
  CHECK(adam.beta1 == 0.8);
  CHECK(adam.beta2 == 0.9);
  CHECK(adam.epsilon == 0.001);
  CHECK(adam.weight_decay == 0.01);
  const auto adamw = optimizer<optim::AdamW>(
      "name: AdamW, weight_decay: 0.05, one_dim_param_no_weight_decay: True");
  CHECK(adamw.weight_decay == 0.05);
  CHECK(adamw.no_decay.contains(ParameterKind::bias));
  CHECK(adamw.no_decay.contains(ParameterKind::norm));
  CHECK_FALSE(adamw.no_decay.contains(ParameterKind::weight));
  const auto rmsprop =
      optimizer<optim::RMSProp>(l2 + "name: RMSProp, momentum: 0.9, rho: 0.8, centered: True");
  CHECK(rmsprop.momentum == 0.9);
  CHECK(rmsprop.rho == 0.8);
  CHECK(rmsprop.moments() == 3);
}

TEST_CASE("YAML: groups of parameters by scope") {
  const auto groups = read(
      "[{Adam: {scope: RecModel, lr: {name: Cosine, learning_rate: 0.001, warmup_epoch: 3}, "
      "regularizer: {name: L2, coeff: 0.0005}}}, "
      "{SGD: {scope: CenterLoss, lr: {name: Constant, learning_rate: 1000.0}}}]");
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].scope == "RecModel");
  CHECK(groups[0].optimizer.weight_decay == 0.0005);
  CHECK(groups[1].scope == "CenterLoss");
  CHECK(std::string(groups[1].optimizer.name()) == "SGD");
  CHECK(groups[1].schedule.at({}) == 1000);
}

TEST_CASE("YAML: mistakes in the section Optimizer are named") {
  CHECK_THAT(refused("{name: SGD}"), ContainsSubstring("Optimizer.lr is missing"));
  CHECK_THAT(refused("{name: SDG, lr: {learning_rate: 1}}"),
             ContainsSubstring("did you mean SGD?"));
  CHECK_THAT(refused("{name: SGD, momentum: 0.9, lr: {learning_rate: 1}}"),
             ContainsSubstring("Optimizer.momentum: unknown key"));
  CHECK_THAT(refused("{name: SGD, lr: {name: MultiStepDeca, learning_rate: 1}}"),
             ContainsSubstring("Optimizer.lr: there is no MultiStepDeca (did you mean"));
  CHECK_THAT(refused("{name: SGD, lr: {name: Cyclic, base_learning_rate: 0.1, max_learning_rate: "
                     "1, step_size_up: 1, mode: square}}"),
             ContainsSubstring("square is none of exp_range, triangular, triangular2"));
  CHECK_THAT(refused("{name: SGD, lr: {name: Piecewise, learning_rate: 1, values: [1]}}"),
             ContainsSubstring("a tenth every 30 epochs"));
  CHECK_THAT(refused("{name: SGD, lr: {name: OneCycleLR, max_learning_rate: 1, by_epoch: True}}"),
             ContainsSubstring("Optimizer.lr.by_epoch: unknown key"));
  CHECK_THAT(refused("[{SGD: {lr: {learning_rate: 1}}}]"),
             ContainsSubstring("Optimizer.0.SGD.scope is missing"));
  CHECK_THAT(refused("{name: SGD, no_decay: [biases], lr: {learning_rate: 1}}"),
             ContainsSubstring("biases is none of weight, bias, norm, center"));
}
