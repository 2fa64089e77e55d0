// NormFace, CombinedMargin and SphereFace against the written-out definition of their logits;
// degenerate input; settings.

#include <kindred/head/combined_margin.hpp>
#include <kindred/head/norm_face.hpp>
#include <kindred/head/sphere_face.hpp>

#include "support/margin_heads.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// cos(a) up to pi, and lowered by 2 with every further half turn.
double falling_cosine(double a) {
  double shift = 0;
  for (; a >= 3.14159265358979323846; a -= 3.14159265358979323846) shift += 2;
  return std::cos(a) - shift;
}

/// Three rows lie so that m1 theta + m2 passes pi, 2 pi and 3 pi.
template <class Head>
void put_far_rows(DefinitionCheck<Head>& check) {
  const auto dim = static_cast<std::size_t>(check.dim);
  const double turn[] = {0.3, 1.2, 2.0};
  for (std::size_t i = 0; i < 3; ++i) {
    const double* centre = &check.w[static_cast<std::size_t>(check.labels[i]) * dim];
    double* row = &check.x[i * dim];
    for (std::size_t d = 0; d < dim; ++d) row[d] = turn[i] * row[d] - 2 * centre[d];
  }
}

}  // namespace

TEST_CASE("NormFace follows its definition") {
  using Head = head::NormFace;
  DefinitionCheck<Head> check{.batch = 5,
                              .dim = 4,
                              .classes = 9,
                              .config = {.embedding_size = 4, .class_num = 9, .scale = 12},
                              .scale = 12,
                              .logit = [](const CosineOf& z) { return z.c; }};
  check(0);
  check(0.1);
  check_degenerate<Head>({});
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .scale = 0}) ==
        "head.NormFace: scale must be > 0, got 0");
}

TEST_CASE("CombinedMargin follows its definition beyond pi, too") {
  using Head = head::CombinedMargin;
  for (const GradientMode mode : {GradientMode::exact, GradientMode::straight_through}) {
    DefinitionCheck<Head> check{.batch = 7,
                                .dim = 4,
                                .classes = 9,
                                .config = {.embedding_size = 4,
                                           .class_num = 9,
                                           .m1 = 3.2,
                                           .m2 = 0.4,
                                           .m3 = 0.15,
                                           .scale = 8,
                                           .gradient = mode},
                                .scale = 8,
                                .logit = [mode](const CosineOf& z) {
                                  if (!z.label) return z.c;
                                  const bool exact = mode == GradientMode::exact;
                                  const double c = exact ? z.c : z.fixed;
                                  return (exact ? 0 : z.c - z.fixed) +
                                         falling_cosine(3.2 * std::acos(c) + 0.4) - 0.15;
                                }};
    put_far_rows(check);
    double farthest = 0;
    for (std::size_t i = 0; i < check.labels.size(); ++i)
      farthest = std::max(
          farthest, std::acos(check.cosines()[i * 9 + static_cast<std::size_t>(check.labels[i])]));
    REQUIRE(3.2 * farthest + 0.4 > 9.5);  // beyond 3 pi
    check(0);
    check(0.1);
  }
  check_degenerate<Head>({});
}

TEST_CASE("SphereFace follows its definition, whole and broken margins") {
  using Head = head::SphereFace;
  for (const double margin : {1.5, 4.0}) {
    DefinitionCheck<Head> check{
        .batch = 7,
        .dim = 4,
        .classes = 9,
        .config = {.embedding_size = 4, .class_num = 9, .margin = margin, .scale = 8},
        .scale = 8,
        .logit = [margin](const CosineOf& z) {
          return z.label ? falling_cosine(margin * std::acos(z.c)) : z.c;
        }};
    put_far_rows(check);
    check(0);
    check(0.1);
  }
  check_degenerate<Head>({});
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .margin = 0.5}) ==
        "head.SphereFace: margin must be >= 1, got 0.5");
}

TEST_CASE("SphereFace's straight-through mode is OpenSphere's detachment") {
  DefinitionCheck<head::SphereFace>{
      .batch = 6,
      .dim = 4,
      .classes = 9,
      .config = {.embedding_size = 4,
                 .class_num = 9,
                 .margin = 2.5,
                 .scale = 8,
                 .gradient = GradientMode::straight_through},
      .scale = 8,
      .logit = [](const CosineOf& z) {
        return z.label ? z.c - z.fixed + falling_cosine(2.5 * std::acos(z.fixed)) : z.c;
      }}(0.1);
}

TEST_CASE("a row on its centre or on the opposite has finite gradients with every angular margin") {
  auto check = [](auto bench) {
    bench->parameters =
        random_values<float>(static_cast<std::int64_t>(bench->parameters.size()), 2);
    std::vector<float> x(8);
    for (std::size_t d = 0; d < 4; ++d) {
      x[d] = 3 * bench->parameters[d];
      x[4 + d] = -2 * bench->parameters[d];
    }
    const auto step = fused_step(*bench, x, {2, 4}, std::vector<std::int64_t>{0, 0});
    CHECK(std::isfinite(step.loss));
    for (const float v : step.dx) CHECK(std::isfinite(v));
    for (const float v : step.dw) REQUIRE(std::isfinite(v));
  };
  check(std::make_unique<Bench<head::CombinedMargin, float>>(
      "", head::CombinedMargin::Config{.embedding_size = 4, .class_num = 3, .m1 = 2}));
  check(std::make_unique<Bench<head::SphereFace, float>>(
      "", head::SphereFace::Config{.embedding_size = 4, .class_num = 3, .margin = 4}));
}

TEST_CASE("CombinedMargin names the setting that is wrong") {
  using Head = head::CombinedMargin;
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .m1 = 0.5}) ==
        "head.CombinedMargin: m1 must be >= 1, got 0.5");
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .m2 = -1}) ==
        "head.CombinedMargin: m2 must be in [0, pi), got -1");
  CHECK(head_error<Head>({.embedding_size = 4, .class_num = 3, .m3 = -1}) ==
        "head.CombinedMargin: m3 must be >= 0, got -1");
}

TEST_CASE("margin heads: float stays near double") {
  check_float<head::NormFace>({.class_num = 3000});
  check_float<head::CombinedMargin>({.class_num = 3000, .m1 = 1.3});
  check_float<head::SphereFace>({.class_num = 3000});
}
