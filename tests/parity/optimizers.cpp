// Optimizers, moving average and the cosine schedule against PaddleClas.

#include <map>

#include <kindred/kindred.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// The four parameters of the optimizer fixtures and what an optimizer needs of them.
struct Parameters {
  /// `norm_decay`: the multiplier of the parameter that PaddleClas gives L2Decay(0.0).
  explicit Parameters(double norm_decay) {
    const Scope scope(table);
    const auto start = Initializer::constant(0);
    scope.declare("weight", {4, 3}, ParameterKind::weight, start);
    scope.declare("bias", {3}, ParameterKind::bias, start);
    scope.with_decay(norm_decay).declare("norm", {3}, ParameterKind::norm, start);
    scope.with_lr(0.1).declare("slow", {4, 3}, ParameterKind::weight, start);
    values.resize(static_cast<std::size_t>(table.trainable_size()));
  }
  ParameterTable table;
  std::vector<double> values;
};

/// Element [step] of a stack of arrays like p.
std::vector<double> at_step(const std::vector<double>& stack, const ParameterInfo& p, int step) {
  const auto begin = stack.begin() + step * p.shape.size();
  return {begin, begin + p.shape.size()};
}

/// Runs the optimizer on the gradients of the fixture and returns by parameter name the largest
/// difference from Paddle's parameters over all steps.
template <class Optimizer>
std::map<std::string, double> differences(const Fixture& one, const Optimizer& optimizer,
                                          double norm_decay) {
  Parameters p(norm_decay);
  std::vector<double> gradients(p.values.size());
  std::vector<std::vector<double>> moments(optimizer.moments(),
                                           std::vector<double>(p.values.size()));
  const auto ranges = optim::ranges(p.table, optimizer.weight_decay, optimizer.no_decay);
  const auto rates = one.stored<double>("in.learning_rate");
  REQUIRE(rates.size() == 10);
  std::map<std::string, std::vector<double>> given, expected;
  for (const ParameterInfo& info : p.table.entries()) {
    given[info.name] = one.stored<double>("in.gradient." + info.name);
    expected[info.name] = one.stored<double>("out.parameter." + info.name);
    const auto first = at_step(expected[info.name], info, 0);
    std::copy(first.begin(), first.end(), p.values.begin() + info.offset);
  }
  cpu::Context ctx(2);
  std::map<std::string, double> worst;
  for (int step = 0; step < 10; ++step) {
    for (const ParameterInfo& info : p.table.entries()) {
      const auto g = at_step(given[info.name], info, step);
      std::copy(g.begin(), g.end(), gradients.begin() + info.offset);
    }
    optimizer.update(ctx, ranges,
                     optim::Update<double>{p.values, gradients, moments,
                                           rates[static_cast<std::size_t>(step)], step + 1});
    for (const ParameterInfo& info : p.table.entries()) {
      const auto now = p.values.begin() + info.offset;
      const double d = relative_difference(std::vector<double>(now, now + info.shape.size()),
                                           at_step(expected[info.name], info, step + 1));
      worst[info.name] = std::max(worst[info.name], d);
    }
  }
  return worst;
}

void check_all(const std::map<std::string, double>& differences, double limit) {
  REQUIRE(differences.size() == 4);
  for (const auto& [name, d] : differences) {
    INFO(name);
    CHECK(d < limit);
  }
}

}  // namespace

TEST_CASE("parity: Momentum over ten steps") {
  const Fixture fixture("momentum");
  REQUIRE(fixture.cases().size() == 4);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const optim::Momentum momentum{.momentum = single(one.attribute("momentum")),
                                   .weight_decay = single(one.attribute("decay")),
                                   .use_nesterov = one.has("attr.nesterov")};
    check_all(differences(one, momentum, 0), 1e-12);
  }
}

TEST_CASE("parity: AdamW over ten steps") {
  const Fixture fixture("adamw");
  using K = ParameterKind;
  const std::pair<const char*, optim::Kinds> cases[] = {
      {"decay_all", {}},
      {"exempt_one_dimensional", {K::bias, K::norm}},
      {"exempt_norm_by_name", {K::norm}}};
  REQUIRE(fixture.cases().size() == std::size(cases));
  for (const auto& [name, no_decay] : cases) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const optim::AdamW adamw{.beta1 = one.attribute("beta1"),
                             .beta2 = one.attribute("beta2"),
                             .epsilon = one.attribute("epsilon"),
                             .weight_decay = single(one.attribute("decay")),
                             .no_decay = no_decay};
    check_all(differences(one, adamw, 1), 1e-12);

    // L2Decay(0.0) on a parameter means nothing to Paddle's AdamW. In kindred what a component
    // exempts from decay is exempt from every kind of decay.
    auto exempt = differences(one, adamw, 0);
    CHECK((exempt["norm"] > 1e-4) == !no_decay.contains(K::norm));
    exempt["norm"] = 0;
    check_all(exempt, 1e-12);
  }
}

TEST_CASE("parity: Cosine at every step") {
  const Fixture fixture("cosine_schedule");
  REQUIRE(fixture.cases().size() == 4);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const auto expected = one.stored<double>("out.learning_rate");
    auto whole = [&](const char* key) { return static_cast<std::int64_t>(one.attribute(key)); };
    const lr::Cosine cosine{.base = one.attribute("learning_rate"),
                            .eta_min = one.attribute("eta_min"),
                            .warmup_epochs = whole("warmup_epoch"),
                            .warmup_start = one.attribute("warmup_start_lr")};
    // PaddleClas' by_epoch is a schedule with one step in an epoch.
    const std::int64_t steps = whole("by_epoch") == 1 ? 1 : whole("step_each_epoch");
    const std::int64_t epochs = whole("epochs");
    REQUIRE(static_cast<std::int64_t>(expected.size()) == epochs * steps + 2);
    for (std::int64_t step = 0; step < epochs * steps; ++step) {
      INFO("step " << step);
      const double rate = cosine.at({.step = step, .steps_per_epoch = steps, .epochs = epochs});
      CHECK(std::abs(rate - expected[static_cast<std::size_t>(step)]) <= 1e-12 * cosine.base);
    }
    REQUIRE(*std::max_element(expected.begin(), expected.end()) == cosine.base);
  }
}

TEST_CASE("parity: SGD, Adam and RMSProp over ten steps") {
  const Fixture fixture("plain_optimizers");
  REQUIRE(fixture.cases().size() == 7);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const double decay = one.attribute("decay");
    if (name.starts_with("SGD.")) {
      check_all(differences(one, optim::SGD{.weight_decay = decay}, 0), 1e-12);
    } else if (name.starts_with("Adam.")) {
      const optim::Adam adam{.beta1 = one.attribute("beta1"),
                             .beta2 = one.attribute("beta2"),
                             .epsilon = one.attribute("epsilon"),
                             .weight_decay = decay};
      check_all(differences(one, adam, 0), 1e-12);
      check_all(differences(one, optim::AnyOptimizer(adam), 0), 1e-12);
    } else {
      const optim::RMSProp rmsprop{.rho = single(one.attribute("rho")),
                                   .momentum = single(one.attribute("momentum")),
                                   .epsilon = single(one.attribute("epsilon")),
                                   .centered = one.has("attr.centered"),
                                   .weight_decay = decay};
      check_all(differences(one, rmsprop, 0), 1e-12);
    }
  }
}

TEST_CASE("parity: the moving average of weights") {
  const Fixture fixture("moving_average");
  const auto values = fixture.stored<double>("in.weight");
  const auto averages = fixture.stored<double>("out.weight");
  const std::int64_t n = 12;
  REQUIRE(values.size() == 6 * 12);
  cpu::Context ctx(1);
  std::vector<double> average(values.begin(), values.begin() + n);
  for (std::int64_t step = 1; step <= 5; ++step) {
    kernels::moving_average_update(ctx, View<double>{average.data(), {n}},
                                   View<const double>{values.data() + step * n, {n}},
                                   fixture.attribute("decay"));
    CHECK(relative_difference(average, std::vector<double>(averages.begin() + step * n,
                                                           averages.begin() + (step + 1) * n)) <
          1e-14);
  }
}
