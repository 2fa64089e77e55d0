// Learning-rate schedules against PaddleClas, every rate of whole trainings.

#include <kindred/lr/schedule.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// The attributes of a case, or a default where it has none.
struct Arguments {
  const Fixture& one;
  double operator()(const char* key, double fallback = 0) const {
    return one.has(std::string("attr.") + key) ? one.attribute(key) : fallback;
  }
  std::int64_t whole(const char* key, std::int64_t fallback = 0) const {
    return static_cast<std::int64_t>((*this)(key, static_cast<double>(fallback)));
  }
  std::vector<double> list(const char* key) const {
    return one.stored<double>(std::string("attr.") + key);
  }
};

/// The schedule of the class `name` of PaddleClas with the arguments of the case.
lr::AnySchedule schedule(const std::string& name, const Arguments& a) {
  const double base = a("learning_rate"), start = a("warmup_start_lr");
  const std::int64_t warmup = a.whole("warmup_epoch");
  const bool by_epoch = a("by_epoch") != 0;
  if (name == "ConstLR")
    return lr::ConstLR{
        .base = base, .warmup_epochs = warmup, .warmup_start = start, .by_epoch = by_epoch};
  if (name == "Linear")
    return lr::Linear{.base = base,
                      .end_lr = a("end_lr"),
                      .power = a("power", 1),
                      .warmup_epochs = warmup,
                      .warmup_start = start,
                      .by_epoch = by_epoch};
  if (name == "Cyclic")
    return lr::Cyclic{.base = a("base_learning_rate"),
                      .max_lr = a("max_learning_rate"),
                      .step_size_up = a.whole("step_size_up"),
                      .step_size_down = a.whole("step_size_down"),
                      .mode = static_cast<lr::CyclicMode>(a.whole("mode")),
                      .exp_gamma = a("exp_gamma", 1),
                      .warmup_epochs = warmup,
                      .warmup_start = start};
  if (name == "Step")
    return lr::Step{.base = base,
                    .step_size = a("step_size"),
                    .gamma = a("gamma"),
                    .warmup_epochs = warmup,
                    .warmup_start = start,
                    .by_epoch = by_epoch};
  if (name == "Piecewise")
    return lr::Piecewise{.decay_epochs = a.list("decay_epochs"),
                         .values = a.list("values"),
                         .warmup_epochs = warmup,
                         .warmup_start = start,
                         .by_epoch = by_epoch};
  if (name == "MultiStepDecay")
    return lr::MultiStepDecay{.base = base,
                              .milestones = a.list("milestones"),
                              .gamma = a("gamma", 0.1),
                              .warmup_epochs = warmup,
                              .warmup_start = start,
                              .by_epoch = by_epoch};
  if (name == "CosineFixmatch")
    return lr::CosineFixmatch{.base = base,
                              .num_warmup_steps = a.whole("num_warmup_steps"),
                              .num_cycles = a("num_cycles", 7. / 16)};
  if (name == "OneCycleLR")
    return lr::OneCycleLR{
        .max_lr = a("max_learning_rate"),
        .divide_factor = a("divide_factor", 25),
        .end_lr = a("end_learning_rate", 1e-10),
        .phase_pct = a("phase_pct", 0.3),
        .anneal_strategy = static_cast<lr::AnnealStrategy>(a.whole("anneal_strategy")),
        .three_phase = a("three_phase") != 0,
        .warmup_epochs = warmup,
        .warmup_start = start};
  FAIL("no schedule " << name);
  return lr::Constant{};
}

}  // namespace

TEST_CASE("parity: every schedule at every step") {
  const Fixture fixture("schedules");
  std::size_t cases = 0;
  for (const std::string& name : fixture.cases()) {
    const std::string kind = name.substr(0, name.find('.'));
    if (kind == "ReduceOnPlateau") continue;
    ++cases;
    INFO(name);
    const Fixture one = fixture.at(name);
    const Arguments arguments{one};
    const lr::AnySchedule rule = schedule(kind, arguments);
    CHECK(rule.name() == kind);
    const auto expected = one.stored<double>("out.learning_rate");
    const std::int64_t steps = arguments.whole("step_each_epoch"), epochs = 6;
    const bool by_epoch = arguments("by_epoch") != 0;
    REQUIRE(expected.size() == static_cast<std::size_t>(by_epoch ? epochs : epochs * steps));
    for (std::int64_t step = 0; step < epochs * steps; ++step) {
      INFO("step " << step);
      const double rate = rule.at({.step = step, .steps_per_epoch = steps, .epochs = epochs});
      const double wanted = expected[static_cast<std::size_t>(by_epoch ? step / steps : step)];
      CHECK(std::abs(rate - wanted) <= 1e-14);
    }
  }
  CHECK(cases == 22);
}

TEST_CASE("parity: ReduceOnPlateau after every score") {
  const Fixture fixture("schedules");
  for (const char* name :
       {"ReduceOnPlateau.min", "ReduceOnPlateau.max", "ReduceOnPlateau.absolute"}) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const Arguments a{one};
    const lr::ReduceOnPlateau rule{
        .base = 0.1,
        .mode = static_cast<lr::PlateauMode>(a.whole("mode")),
        .factor = a("factor"),
        .patience = a.whole("patience"),
        .threshold = a("threshold", 1e-4),
        .threshold_mode = static_cast<lr::PlateauThreshold>(a.whole("threshold_mode")),
        .cooldown = a.whole("cooldown"),
        .min_lr = a("min_lr")};
    const auto scores = one.stored<double>("in.scores");
    const auto expected = one.stored<double>("out.learning_rate");
    REQUIRE(expected.size() == scores.size() + 1);
    REQUIRE(expected.back() < 0.05);
    for (std::size_t k = 0; k < expected.size(); ++k) {
      INFO("after " << k << " scores");
      const double rate = rule.at({.step = 3,
                                   .steps_per_epoch = 10,
                                   .epochs = 100,
                                   .scores = std::span<const double>(scores).first(k)});
      CHECK(std::abs(rate - expected[k]) <= 1e-15);
    }
  }
}

TEST_CASE("schedules: settings that cannot be are refused by name") {
  const lr::Progress at{.step = 0, .steps_per_epoch = 10, .epochs = 3};
  const auto refused = [&](const lr::AnySchedule& s) {
    try {
      s.at(at);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  CHECK_THAT(refused(lr::Linear{.warmup_epochs = 3}),
             ContainsSubstring("lr.Linear: warmup_epochs"));
  CHECK_THAT(refused(lr::Cyclic{.step_size_up = 0}), ContainsSubstring("step_size_up"));
  CHECK_THAT(refused(lr::Step{.step_size = 0.05}), ContainsSubstring("less than a step"));
  CHECK_THAT(refused(lr::Piecewise{.decay_epochs = {1}, .values = {1}}),
             ContainsSubstring("one value more, got 1"));
  CHECK_THAT(refused(lr::Piecewise{.decay_epochs = {2, 1}, .values = {1, 2, 3}}),
             ContainsSubstring("must increase"));
  CHECK_THAT(refused(lr::MultiStepDecay{.milestones = {2, 1}}), ContainsSubstring("increase"));
  CHECK_THAT(refused(lr::ReduceOnPlateau{.factor = 1}), ContainsSubstring("factor"));
  CHECK_THAT(refused(lr::CosineFixmatch{.num_warmup_steps = -1}), ContainsSubstring(">= 0"));
  CHECK_THAT(refused(lr::OneCycleLR{.phase_pct = 0.6, .three_phase = true}),
             ContainsSubstring("phase_pct"));
}
