// ArcMargin against PaddleClas: its logits, and its cross-entropy without them.

#include <kindred/kindred.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// The margin softmax with cross-entropy that builds no logits.
template <class T>
void check_fused(const Fixture& one, double expected_loss, double limit) {
  const Shape in = one.shape("in.x");
  Bench<head::ArcMargin, T> bench(
      "", head::ArcMargin::Config{.embedding_size = in[1],
                                  .class_num = one.extents("param.weight")[1],
                                  .margin = one.attribute("margin"),
                                  .scale = one.attribute("scale"),
                                  .easy_margin = one.attribute("easy_margin") != 0});
  bench.load(one);
  const auto x = one.stored<T>("in.x");
  const auto labels = one.labels();
  auto loss = poisoned<T>(1);
  std::vector<T> dx(x.size());
  run_planned(bench.context, [&] {
    bench.component.margin_cross_entropy(bench.run(true), view(x, in), view(labels, {in[0]}),
                                         static_cast<T>(one.attribute("epsilon")), T(1),
                                         view(loss, {1}), view(dx, in));
  });
  CHECK(relative_difference(loss[0], expected_loss) < limit);
  CHECK(relative_difference(dx, one.stored<double>("grad.x")) < limit);
  bench.check_gradients(one, limit);
}

/// Logits from the head, CELoss on them, and back. Returns the exact loss of the logits.
template <class T>
double check_through_logits(const Fixture& one, double limit) {
  const Shape in = one.shape("in.x");
  const std::int64_t classes = one.extents("param.weight")[1];
  Bench<head::ArcMargin, T> bench(
      "", head::ArcMargin::Config{.embedding_size = in[1],
                                  .class_num = classes,
                                  .margin = one.attribute("margin"),
                                  .scale = one.attribute("scale"),
                                  .easy_margin = one.attribute("easy_margin") != 0});
  bench.load(one);
  const loss::CELoss ce({.epsilon = one.attribute("epsilon")}, Scope(bench.table, "loss"));
  const auto x = one.stored<T>("in.x");
  const auto labels = one.labels();
  const auto y = view(labels, {in[0]});
  std::vector<T> report(2), logits_out, dx;
  head::ArcMargin::Saved<T> saved;
  run_planned(bench.context, [&] {
    const auto run = bench.run(true);
    const Tensor<T> logits = bench.component.forward(run, view(x, in), y, saved);
    if (!run.ctx.planning()) logits_out.assign(logits.begin(), logits.end());
    auto d = run.make(logits.shape, "dlogits");
    kernels::fill(run.ctx, T(0), d);
    loss::LossInput<T> input;
    input.logits = logits;
    input.labels = y;
    ce.evaluate(run, input, {{}, {}, d}, view(report, {2}));
    const Tensor<T> back = bench.component.backward(run, std::move(d), view(x, in), y, saved);
    if (!run.ctx.planning()) dx.assign(back.begin(), back.end());
  });
  CHECK(relative_difference(dx, one.stored<double>("grad.x")) < limit);
  bench.check_gradients(one, limit);
  const double expected = one.number("out.CELoss");
  if (one.attribute("epsilon") > 0) {
    CHECK(relative_difference(report[0], expected) < limit);
    return expected;
  }
  const double exact = cross_entropy(logits_out, labels);
  CHECK(relative_difference(report[0], exact) < limit);
  CHECK(relative_difference(cross_entropy(logits_out, labels, paddle_cut), expected) < limit);
  return exact;
}

}  // namespace

TEMPLATE_TEST_CASE("parity: ArcMargin", "", double, float) {
  using T = TestType;
  const Fixture fixture("arc_margin");
  REQUIRE(fixture.cases().size() == 6);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const Shape in = one.shape("in.x"), out = one.shape("out.train");
    Bench<head::ArcMargin, T> bench(
        "", head::ArcMargin::Config{.embedding_size = in[1],
                                    .class_num = out[1],
                                    .margin = one.attribute("margin"),
                                    .scale = one.attribute("scale"),
                                    .easy_margin = one.attribute("easy_margin") != 0});
    bench.load(one);
    const auto x = one.stored<T>("in.x");
    const auto labels = one.labels();
    const auto y = view(labels, {in[0]});
    head::ArcMargin::Saved<T> saved;
    const Passed<T> got = bench.train(
        one.stored<T>("upstream.y"),
        [&](const auto& run) { return bench.component.forward(run, view(x, in), y, saved); },
        [&](const auto& run, Tensor<T> dy) {
          return bench.component.backward(run, std::move(dy), view(x, in), y, saved);
        });
    // Row 0 lies on its centre, where sin = sqrt(1 - cos^2 + 1e-6) is 1e-3 and its derivative
    // 1000: rounding of the cosine is amplified as much in float.
    const double limit = std::is_same_v<T, double> ? 1e-9 : 3e-4;
    CHECK(relative_difference(got.y, one.stored<double>("out.train")) < limit);
    CHECK(relative_difference(got.dx, one.stored<double>("grad.x")) < limit);
    bench.check_gradients(one, limit);
    // At evaluation labels change nothing: the cosines, unscaled.
    for (const auto& given : {y, View<const std::int64_t>{}}) {
      const auto cosines = bench.evaluate(
          [&](const auto& run) { return bench.component.forward(run, view(x, in), given, saved); });
      CHECK(relative_difference(cosines, one.stored<double>("out.eval")) < tolerance<T>);
    }
  }
}

TEMPLATE_TEST_CASE("parity: ArcMargin with CELoss, fused and through logits", "", double, float) {
  using T = TestType;
  const Fixture fixture("arc_margin_ce_loss");
  REQUIRE(fixture.cases().size() == 4);
  std::vector<std::string> cut;
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const double limit = !std::is_same_v<T, double>     ? 1e-4  // scale 64 times rounding
                         : one.attribute("epsilon") > 0 ? smoothed_tolerance<T>
                                                        : tolerance<T>;
    const double loss = check_through_logits<T>(one, limit);
    check_fused<T>(one, loss, limit);
    if (loss > 1.001 * one.number("out.CELoss")) cut.push_back(name);
  }
  CHECK(cut == std::vector<std::string>{"many_classes"});  // elsewhere both are the same
}
