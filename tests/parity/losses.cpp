// CELoss, TripletLossV2 and CombinedLoss against PaddleClas.

#include <kindred/kindred.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class T>
struct Evaluated {
  std::vector<double> losses;  ///< as reported, without weights
  std::vector<double> active;
  std::vector<T> dfeatures, dlogits;
};

/// Gives `loss` the features and logits that the fixture has.
template <class T, class Loss>
Evaluated<T> evaluate(const Fixture& one, const Loss& loss) {
  std::vector<T> features, logits, soft;
  loss::LossInput<T> in;
  loss::LossGradient<T> gradient;
  Evaluated<T> out;
  if (one.has("in.features")) {
    features = one.stored<T>("in.features");
    out.dfeatures.resize(features.size());
    in.features = view(features, one.shape("in.features"));
    gradient.features = view(out.dfeatures, one.shape("in.features"));
  }
  if (one.has("in.logits")) {
    logits = one.stored<T>("in.logits");
    out.dlogits.resize(logits.size());
    in.logits = view(logits, one.shape("in.logits"));
    gradient.logits = view(out.dlogits, one.shape("in.logits"));
  }
  std::vector<std::int64_t> labels;
  if (one.has("in.logits") && one.shape("in.label") == one.shape("in.logits")) {
    soft = one.stored<T>("in.label");
    labels.resize(static_cast<std::size_t>(one.shape("in.logits")[0]));
    in.teacher.logits = view(soft, one.shape("in.label"));
  } else {
    labels = one.labels();
  }
  in.labels = view(labels, {static_cast<std::int64_t>(labels.size())});
  auto report = poisoned<T>(loss.entries() * loss::report_size);
  cpu::Context ctx(2);
  const Run<cpu::Context, T> run{.ctx = ctx, .training = true, .random = {}};
  run_planned(ctx, [&] {
    loss.evaluate(run, in, gradient, view(report, {static_cast<std::int64_t>(report.size())}));
  });
  for (std::size_t i = 0; i < report.size(); i += 2) {
    out.losses.push_back(static_cast<double>(report[i]));
    out.active.push_back(static_cast<double>(report[i + 1]));
  }
  return out;
}

/// Constructs a loss without parameters.
template <class Loss>
Loss make_loss(const typename Loss::Config& config) {
  ParameterTable table;
  Loss loss(config, Scope(table, "loss"));
  REQUIRE(table.entries().empty());
  return loss;
}

std::vector<double> one_number(double value) { return {value}; }

}  // namespace

TEMPLATE_TEST_CASE("parity: CELoss", "", double, float) {
  using T = TestType;
  const Fixture fixture("ce_loss");
  REQUIRE(fixture.cases().size() == 5);
  std::vector<std::string> cut;
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const double epsilon = one.attribute("epsilon"), expected = one.number("out.CELoss");
    const double limit = epsilon > 0 ? smoothed_tolerance<T> : tolerance<T>;
    const auto got = evaluate<T>(one, make_loss<loss::CELoss>({.epsilon = epsilon}));
    CHECK(relative_difference(got.dlogits, one.stored<double>("grad.logits")) < limit);
    CHECK(got.active == one_number(double(one.shape("in.logits")[0])));
    if (epsilon > 0) {
      CHECK(relative_difference(got.losses[0], expected) < limit);
      continue;
    }
    const auto logits = one.stored<double>("in.logits");
    const double exact = cross_entropy(logits, one.labels());
    CHECK(relative_difference(got.losses[0], exact) < limit);
    CHECK(relative_difference(cross_entropy(logits, one.labels(), paddle_cut), expected) < 1e-9);
    if (exact > 1.001 * expected) cut.push_back(name);
  }
  CHECK(cut == std::vector<std::string>{"large_logits"});  // elsewhere both are the same
}

TEMPLATE_TEST_CASE("parity: CELoss with soft labels", "", double, float) {
  using T = TestType;
  const Fixture fixture("soft_ce_loss");
  REQUIRE(fixture.cases().size() == 4);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const double epsilon = one.attribute("epsilon");
    const double limit = epsilon > 0 ? smoothed_tolerance<T> : tolerance<T>;
    const auto target = epsilon > 0 ? loss::CETarget::distribution : loss::CETarget::teacher;
    const auto got =
        evaluate<T>(one, make_loss<loss::CELoss>({.epsilon = epsilon, .target = target}));
    CHECK(relative_difference(got.losses[0], one.number("out.CELoss")) < limit);
    CHECK(relative_difference(got.dlogits, one.stored<double>("grad.logits")) < limit);
  }
}

TEMPLATE_TEST_CASE("parity: TripletLossV2", "", double, float) {
  using T = TestType;
  const Fixture fixture("triplet_loss_v2");
  REQUIRE(fixture.cases().size() == 8);
  std::vector<std::string> inactive;
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const auto got =
        evaluate<T>(one, make_loss<loss::TripletLossV2>(
                             {.margin = one.attribute("margin"),
                              .normalize_feature = one.attribute("normalize_feature") != 0}));
    const auto expected = one.stored<double>("grad.features");
    if (one.number("out.TripletLossV2") == 0) {
      inactive.push_back(name);
      CHECK(got.losses == one_number(0));
      CHECK(got.active == one_number(0));
      CHECK(all_zero(expected));
      CHECK(all_zero(got.dfeatures));
      continue;
    }
    CHECK(relative_difference(got.losses, one.stored<double>("out.TripletLossV2")) < tolerance<T>);
    CHECK(relative_difference(got.dfeatures, expected) < tolerance<T>);
    CHECK(got.active[0] > 0);
  }
  CHECK(inactive == std::vector<std::string>{"all_inactive"});
}

TEMPLATE_TEST_CASE("parity: Combined", "", double, float) {
  using T = TestType;
  using Two = loss::Combined<loss::CELoss, loss::TripletLossV2>;
  const Fixture fixture("combined_loss");
  for (const std::string name : {"ce_triplet", "smoothed_ce_triplet"}) {
    INFO(name);
    const Fixture one = fixture.at(name);
    auto setting = [&](const std::string& key, double value) {
      return one.has("attr." + key) ? one.attribute(key) : value;
    };
    const double ce_weight = one.attribute("CELoss.weight");
    const double triplet_weight = one.attribute("TripletLossV2.weight");
    const auto got = evaluate<T>(
        one, make_loss<Two>(
                 {{.weight = ce_weight, .epsilon = setting("CELoss.epsilon", 0)},
                  {.weight = triplet_weight,
                   .margin = one.attribute("TripletLossV2.margin"),
                   .normalize_feature = setting("TripletLossV2.normalize_feature", 1) != 0}}));
    REQUIRE(got.losses.size() == 2);
    const double ce = ce_weight * got.losses[0], triplet = triplet_weight * got.losses[1];
    const double limit = one.has("attr.CELoss.epsilon") ? smoothed_tolerance<T> : tolerance<T>;
    auto check = [&](double value, const char* key) {
      CHECK(relative_difference(value, one.number(key)) < limit);
    };
    check(ce, "out.CELoss");
    check(triplet, "out.TripletLossV2");
    check(ce + triplet, "out.loss");
    CHECK(relative_difference(got.dlogits, one.stored<double>("grad.logits")) < limit);
    CHECK(relative_difference(got.dfeatures, one.stored<double>("grad.features")) < tolerance<T>);
  }
}

TEST_CASE("parity: the weight of a single loss counts, where PaddleClas ignores it") {
  const Fixture one = Fixture("combined_loss").at("single");
  const double weight = one.attribute("CELoss.weight");
  REQUIRE(weight == 0.25);
  auto got = evaluate<double>(one, make_loss<loss::Combined<loss::CELoss>>({{.weight = weight}}));
  CHECK(relative_difference(got.losses, one.stored<double>("out.loss")) < 1e-9);  // unweighted
  for (double& d : got.dlogits) d /= weight;
  CHECK(relative_difference(got.dlogits, one.stored<double>("grad.logits")) < 1e-9);
  CHECK(all_zero(got.dfeatures));
  CHECK_FALSE(one.has("grad.features"));
}
