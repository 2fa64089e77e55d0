// Margin heads against PaddleClas: logits, loss, gradients and the cosines of the evaluation.

#include <kindred/head/ada_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/cos_margin.hpp>

#include "support/margin_heads.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class Head, class T>
void check_case(const Fixture& one, const typename Head::Config& config, double limit) {
  Bench<Head, T> bench("", config);
  bench.load(one);
  const auto x = one.stored<T>("in.x");
  const auto labels = one.labels();
  const Shape in = one.shape("in.x");
  const ParameterInfo& weight = bench.table.entries().front();
  for (const bool fused : {true, false}) {
    INFO((fused ? "fused" : "through logits"));
    const auto step = fused ? fused_step(bench, x, in, labels) : logit_step(bench, x, in, labels);
    CHECK(relative_difference(static_cast<double>(step.loss), one.number("out.loss")) < limit);
    CHECK(relative_difference(step.dx, one.stored<double>("grad.x")) < limit);
    CHECK(difference_from(one, "grad_param", weight, step.dw.data()) < limit);
    for (const ParameterInfo& p : bench.table.entries())
      if (p.kind == ParameterKind::buffer && p.name != "t")  // which stays 0
        CHECK(difference_from(one, "after", p, step.statistics.data() + p.offset) < limit);
    if (!fused) CHECK(relative_difference(step.logits, one.stored<double>("out.train")) < limit);
  }
  if (!one.has("out.eval")) return;
  typename Head::template Saved<T> saved;
  for (const auto& given : {view(labels, {in[0]}), View<const std::int64_t>{}}) {
    const auto cosines = bench.evaluate(
        [&](const auto& run) { return bench.component.forward(run, view(x, in), given, saved); });
    CHECK(relative_difference(cosines, one.stored<double>("out.eval")) < tolerance<T>);
  }
}

template <class Head, class T>
void check_file(const char* file) {
  const Fixture fixture(file);
  REQUIRE(fixture.cases().size() == 3);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const auto& weight = one.extents("param.weight");
    check_case<Head, T>(one,
                        {.embedding_size = weight[0],
                         .class_num = weight[1],
                         .margin = one.attribute("margin"),
                         .scale = one.attribute("scale")},
                        std::is_same_v<T, double> ? 1e-9 : 1e-3);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("parity: CosMargin", "", double, float) {
  check_file<head::CosMargin, TestType>("cos_margin");
}

TEMPLATE_TEST_CASE("parity: CircleMargin", "", double, float) {
  check_file<head::CircleMargin, TestType>("circle_margin");
}

TEMPLATE_TEST_CASE("parity: AdaMargin", "", double, float) {
  using T = TestType;
  const Fixture fixture("ada_margin");
  REQUIRE(fixture.cases().size() == 3);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    check_case<head::AdaMargin, T>(one,
                                   {.embedding_size = 6,
                                    .class_num = 7,
                                    .m = one.attribute("m"),
                                    .h = one.attribute("h"),
                                    .s = one.attribute("s"),
                                    .t_alpha = one.attribute("t_alpha")},
                                   std::is_same_v<T, double> ? 1e-9 : 1e-3);
  }
}
