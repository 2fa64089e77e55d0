#pragma once
// A margin head against one case of the fixture paper_heads: logits, loss, gradients and running
// statistics, fused and through the logits.

#include <algorithm>
#include <string>

#include "support/margin_heads.hpp"

namespace kindred::test {

inline Fixture paper(const std::string& name) {
  return Fixture("paper_heads", "the papers' own code").at(name);
}

/// Float differs by what its cosines lack, times the scale.
template <class T>
constexpr double limit_of = std::is_same_v<T, double> ? 1e-9 : 1e-4;

/// `config` needs no sizes.
template <class Head, class T>
void check_case(const std::string& name, typename Head::Config config, double limit = 0) {
  INFO(Head::name() << " against " << name);
  const Fixture one = paper(name);
  config.embedding_size = 6;
  config.class_num = 7;
  limit = std::max(limit, limit_of<T>);
  Bench<Head, T> bench("", config);
  bench.load(one);
  const auto x = one.stored<T>("in.x");
  const Shape shape = one.shape("in.x");
  const ParameterInfo& weight = bench.table.entries().front();
  std::size_t statistics = 0;
  for (const bool fused : {true, false}) {
    INFO((fused ? "fused" : "through logits"));
    const auto step = fused ? fused_step(bench, x, shape, one.labels())
                            : logit_step(bench, x, shape, one.labels());
    CHECK(relative_difference(static_cast<double>(step.loss), one.number("out.loss")) < limit);
    CHECK(relative_difference(step.dx, one.stored<double>("grad.x")) < limit);
    CHECK(difference_from(one, "grad_param", weight, step.dw.data()) < limit);
    if (!fused) CHECK(relative_difference(step.logits, one.stored<double>("out.train")) < limit);
    for (const ParameterInfo& p : bench.table.entries()) {
      if (!one.has("after." + p.name)) continue;
      CHECK(difference_from(one, "after", p, step.statistics.data() + p.offset) < limit);
      ++statistics;
    }
  }
  CHECK(statistics == 2 * one.names("after").size());
}

}  // namespace kindred::test
