// Margin heads against the written-out definition of their logits; degenerate input; settings.

#include <kindred/head/ada_margin.hpp>
#include <kindred/head/arc_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>

#include "support/margin_heads.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("CosMargin follows its definition") {
  DefinitionCheck<head::CosMargin> check{
      .batch = 5,
      .dim = 4,
      .classes = 9,
      .config = {.embedding_size = 4, .class_num = 9, .margin = 0.35, .scale = 16},
      .scale = 16,
      .logit = [](const CosineOf& z) { return z.c - (z.label ? 0.35 : 0); }};
  check(0);
  check(0.1);
  check_degenerate<head::CosMargin>({});
}

TEST_CASE("CircleMargin follows its definition, its weights constant to the gradient") {
  DefinitionCheck<head::CircleMargin> check{
      .batch = 5,
      .dim = 4,
      .classes = 9,
      .config = {.embedding_size = 4, .class_num = 9, .margin = 0.25, .scale = 16},
      .scale = 16,
      .logit = [](const CosineOf& z) {
        return z.label ? std::max(1.25 - z.fixed, 0.0) * (z.c - 0.75)
                       : std::max(z.fixed + 0.25, 0.0) * (z.c - 0.25);
      }};
  check(0);
  check(0.1);
  check_degenerate<head::CircleMargin>({});
}

namespace {
double additive_angle(double c, double m, double epsilon) {
  if (!(c > -std::cos(m))) return c - m * std::sin(m);
  return c * std::cos(m) - std::sqrt(1 - c * c + epsilon) * std::sin(m);
}
}  // namespace

TEST_CASE("SubCenterArcMargin follows its definition, and its evaluation has the best cosine") {
  using Head = head::SubCenterArcMargin;
  DefinitionCheck<Head> check{
      .batch = 5,
      .dim = 4,
      .classes = 9,
      .sub_centers = 3,
      .config = {.embedding_size = 4, .class_num = 9, .margin = 0.4, .scale = 16},
      .scale = 16,
      .logit = [](const CosineOf& z) { return z.label ? additive_angle(z.c, 0.4, 1e-6) : z.c; }};
  check(0);
  check(0.1);
  Bench<Head, double> bench("", check.config);
  std::copy(check.w.begin(), check.w.end(), bench.parameters.begin());
  Head::Saved<double> saved;
  const auto cosines = bench.evaluate([&](const auto& run) {
    return bench.component.forward(run, view(check.x, {5, 4}), {}, saved);
  });
  CHECK(difference(cosines, check.cosines()) < 1e-12);
  check_degenerate<Head>({});
  ParameterTable table;
  CHECK_THROWS_WITH(
      Head({.embedding_size = 4, .class_num = 3, .sub_centers = 0}, Scope(table, "a")),
      ContainsSubstring("head.SubCenterArcMargin: sub-centres must be >= 1, got 0"));
}

TEST_CASE("MagMargin follows its definition, its gradient through the norm as well") {
  DefinitionCheck<head::MagMargin> check{.batch = 9,
                                         .dim = 4,
                                         .classes = 7,
                                         .config = {.embedding_size = 4,
                                                    .class_num = 7,
                                                    .l_a = 1.5,
                                                    .u_a = 2.5,
                                                    .l_margin = 0.2,
                                                    .u_margin = 0.9,
                                                    .scale = 16},
                                         .scale = 16,
                                         .logit = [](const CosineOf& z) {
                                           const double m =
                                               0.2 + 0.7 * (std::clamp(z.norm, 1.5, 2.5) - 1.5);
                                           return z.label ? additive_angle(z.c, m, 0) : z.c;
                                         }};
  check(0);
  check(0.1);
  check_degenerate<head::MagMargin>({});
  ParameterTable table;
  CHECK_THROWS_WITH(head::MagMargin({.embedding_size = 4, .class_num = 3, .u_a = 5}, Scope(table)),
                    ContainsSubstring("head.MagMargin: u_a must be above l_a > 0, got 5"));
}

TEST_CASE("AdaMargin survives degenerate batches and names a wrong setting") {
  check_degenerate<head::AdaMargin>({});
  ParameterTable table;
  CHECK_THROWS_WITH(
      head::AdaMargin({.embedding_size = 4, .class_num = 3, .t_alpha = 2}, Scope(table)),
      ContainsSubstring("head.AdaMargin: t_alpha must be in [0, 1], got 2"));
}

TEST_CASE("ArcMargin's straight-through mode moves the loss, not the gradient") {
  const head::ArcMargin::Config exact{.embedding_size = 4, .class_num = 9, .margin = 0.5};
  auto through = exact;
  through.gradient = GradientMode::straight_through;
  DefinitionCheck<head::ArcMargin> check{
      .batch = 5,
      .dim = 4,
      .classes = 9,
      .config = through,
      .scale = 80,
      .logit = [](const CosineOf& z) {
        return z.label ? z.c - z.fixed + additive_angle(z.fixed, 0.5, 1e-6) : z.c;
      }};
  check(0);
  check.config = exact;
  check.logit = [](const CosineOf& z) { return z.label ? additive_angle(z.c, 0.5, 1e-6) : z.c; };
  check(0);
}

TEST_CASE("margin heads name the setting that is wrong") {
  ParameterTable table;
  CHECK_THROWS_WITH(
      head::CosMargin({.embedding_size = 4, .class_num = 3, .margin = -1}, Scope(table, "a")),
      ContainsSubstring("head.CosMargin: margin must be >= 0, got -1"));
  CHECK_THROWS_WITH(
      head::CircleMargin({.embedding_size = 4, .class_num = 3, .scale = 0}, Scope(table, "b")),
      ContainsSubstring("head.CircleMargin: scale must be > 0, got 0"));
}
