// CurricularMargin, ElasticMargin and DynamicMargin, whose margin depends on the training, the row
// or the class, against the written-out definition of their logits; degenerate input; settings.

#include <algorithm>
#include <numeric>

#include <kindred/head/curricular_margin.hpp>
#include <kindred/head/dynamic_margin.hpp>
#include <kindred/head/elastic_margin.hpp>

#include "support/margin_heads.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {
double additive_angle(double c, double m) {
  if (!(c > -std::cos(m))) return c - m * std::sin(m);
  return std::cos(std::acos(c) + m);
}
}  // namespace

TEST_CASE("CurricularMargin follows its definition, and t moves") {
  using Head = head::CurricularMargin;
  DefinitionCheck<Head> check{
      .batch = 9,
      .dim = 4,
      .classes = 7,
      .config = {.embedding_size = 4, .class_num = 7, .margin = 0.4, .scale = 12, .t_alpha = 0.3},
      .scale = 12,
      .logit = {}};
  const auto cosines = check.cosines();
  double mean = 0;
  int hard = 0;
  for (std::size_t i = 0; i < 9; ++i) {
    const double own = cosines[i * 7 + static_cast<std::size_t>(check.labels[i])];
    mean += own / 9;
    for (std::size_t j = 0; j < 7; ++j)
      hard += static_cast<std::int64_t>(j) != check.labels[i] &&
              cosines[i * 7 + j] > std::cos(std::acos(own) + 0.4);
  }
  REQUIRE(hard > 9);
  REQUIRE(hard < 9 * 6 - 9);
  const double t = 0.3 * mean;  // from 0
  check.logit = [t](const CosineOf& z) {
    if (z.label) return additive_angle(z.c, 0.4);
    const double limit = z.own * std::cos(0.4) - std::sqrt(1 - z.own * z.own) * std::sin(0.4);
    return z.c > limit ? z.c * (t + z.c) : z.c;
  };
  check(0);
  check(0.1);
  Bench<Head, double> bench("", check.config);
  std::copy(check.w.begin(), check.w.end(), bench.parameters.begin());
  bench.statistics[0] = 0.5;
  CHECK(fused_step(bench, check.x, {9, 4}, check.labels).statistics[0] ==
        Approx(0.3 * mean + 0.7 * 0.5).epsilon(1e-12));
  CHECK(bench.table.find("t")->kind == ParameterKind::buffer);
  check_degenerate<Head>({});
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .margin = 4}) ==
        "head.CurricularMargin: margin must be in [0, pi), got 4");
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .t_alpha = -1}) ==
        "head.CurricularMargin: t_alpha must be in [0, 1], got -1");
}

namespace {

/// The margins that the policy draws for rows 0 to n - 1 in one step.
std::vector<double> drawn(const head::ElasticMargin& head,
                          Bench<head::ElasticMargin, double>& bench, std::uint64_t step,
                          std::int64_t n) {
  auto run = bench.run(true);
  run.random = {3, 0, step};
  const auto policy = head.policy(run);
  std::vector<double> margins;
  for (std::int64_t i = 0; i < n; ++i) {
    double row[2] = {};
    policy.begin_row({i, 0, 1, 0}, row);
    margins.push_back(row[0]);
  }
  return margins;
}

}  // namespace

TEST_CASE("ElasticMargin draws its margins from Normal(margin, sigma), anew in every step") {
  Bench<head::ElasticMargin, double> bench(
      "", head::ElasticMargin::Config{
              .embedding_size = 4, .class_num = 3, .margin = 0.5, .sigma = 0.1});
  constexpr std::int64_t n = 20000;
  const auto margins = drawn(bench.component, bench, 1, n);
  double mean = 0, square = 0, fourth = 0;
  for (const double m : margins) mean += m / n;
  for (const double m : margins) {
    const double z = (m - 0.5) / 0.1;
    square += z * z / n;
    fourth += z * z * z * z / n;
  }
  CHECK(mean == Approx(0.5).margin(4 * 0.1 / std::sqrt(double(n))));
  CHECK(square == Approx(1).margin(4 * std::sqrt(2.0 / n)));
  CHECK(fourth == Approx(3).margin(4 * std::sqrt(96.0 / n)));
  CHECK(drawn(bench.component, bench, 1, 8) ==
        std::vector<double>(margins.begin(), margins.begin() + 8));
  CHECK(drawn(bench.component, bench, 2, 8) !=
        std::vector<double>(margins.begin(), margins.begin() + 8));
}

TEST_CASE("ElasticMargin follows its definition in both forms, and in order") {
  using Head = head::ElasticMargin;
  for (const auto& [form, plus] :
       {std::pair(MarginForm::angle, false), std::pair(MarginForm::cosine, false),
        std::pair(MarginForm::angle, true), std::pair(MarginForm::cosine, true)}) {
    DefinitionCheck<Head> check{.batch = 9,
                                .dim = 4,
                                .classes = 7,
                                .config = {.embedding_size = 4,
                                           .class_num = 7,
                                           .margin = 0.4,
                                           .sigma = 0.2,
                                           .scale = 12,
                                           .form = form,
                                           .plus = plus},
                                .scale = 12,
                                .logit = {}};
    Bench<Head, double> bench("", check.config);
    std::vector<double> margins;
    const auto policy = bench.component.policy(bench.run(true));
    for (std::int64_t i = 0; i < 9; ++i) {
      double row[2] = {};
      policy.begin_row({i, 0, 1, 0}, row);
      margins.push_back(row[0]);
    }
    REQUIRE(margins[0] != margins[1]);
    if (plus) {
      const auto cosines = check.cosines();
      const auto own = [&](std::size_t i) {
        return cosines[i * 7 + static_cast<std::size_t>(check.labels[i])];
      };
      std::vector<std::size_t> rows(9);  // the row nearest to its class first
      std::iota(rows.begin(), rows.end(), std::size_t{0});
      std::sort(rows.begin(), rows.end(), [&](auto a, auto b) { return own(a) > own(b); });
      const auto drawn_for = margins;
      auto sorted = margins;
      std::sort(sorted.begin(), sorted.end());
      for (std::size_t r = 0; r < 9; ++r) margins[rows[r]] = sorted[r];
      REQUIRE(margins != drawn_for);
    }
    check.logit = [&, form = form](const CosineOf& z) {
      if (!z.label) return z.c;
      return form == MarginForm::angle ? additive_angle(z.c, margins[z.i]) : z.c - margins[z.i];
    };
    check(0);
    check(0.1);
  }
  check_degenerate<Head>({});
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .sigma = -1}) ==
        "head.ElasticMargin: sigma must be >= 0, got -1");
}

TEST_CASE("DynamicMargin follows its definition, with one centre and with three") {
  using Head = head::DynamicMargin;
  const std::vector<std::int64_t> counts{1, 16, 81, 256, 2, 3, 100000};
  for (const std::int64_t centres : {std::int64_t{1}, std::int64_t{3}}) {
    DefinitionCheck<Head> check{.batch = 9,
                                .dim = 4,
                                .classes = 7,
                                .sub_centers = centres,
                                .config = {},
                                .scale = 12,
                                .logit = {}};
    check.config.embedding_size = 4;
    check.config.class_num = 7;
    check.config.class_counts = counts;
    check.config.a = 0.6;
    check.config.b = 0.1;
    check.config.sub_centers = centres;
    check.config.scale = 12;
    check.logit = [&](const CosineOf& z) {
      const double n = static_cast<double>(counts[static_cast<std::size_t>(check.labels[z.i])]);
      return z.label ? additive_angle(z.c, 0.6 / std::sqrt(std::sqrt(n)) + 0.1) : z.c;
    };
    check(0);
    check(0.1);
  }
  check_degenerate<Head>(
      {}, [](Head::Config& c) { c.class_counts.assign(static_cast<std::size_t>(c.class_num), 7); });
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .class_counts = {1, 2}}) ==
        "head.DynamicMargin: class_counts must have one count for each class, got 2");
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 2, .class_counts = {1, 0}}) ==
        "head.DynamicMargin: every count of class_counts must be >= 1, got 0");
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 1, .class_counts = {1}, .a = 4}) ==
        "head.DynamicMargin: a + b must be in [0, pi), got 4.05");
}

TEST_CASE("margin heads whose margin adapts: float stays near double") {
  check_float<head::CurricularMargin>({.class_num = 3000, .t_alpha = 1});
  check_float<head::ElasticMargin>({.class_num = 3000});
  check_float<head::ElasticMargin>({.class_num = 3000, .plus = true});
  head::DynamicMargin::Config config;
  config.class_num = 3000;
  config.class_counts.assign(3000, 9);
  check_float<head::DynamicMargin>(config);
}
