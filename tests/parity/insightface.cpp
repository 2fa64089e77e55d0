// Margins of InsightFace's arcface_torch, of today and from before its straight-through gradient.

#include <kindred/head/arc_margin.hpp>
#include <kindred/head/combined_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/elastic_margin.hpp>

#include "support/paper_heads.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// ArcMargin has PaddleClas' 1e-6 under the root of its sine, which InsightFace has not.
constexpr double paddle_sine = 1e-5;

}  // namespace

TEMPLATE_TEST_CASE("parity: InsightFace's CosFace is CosMargin and CombinedMargin", "", double,
                   float) {
  const double m3 = paper("insightface_cos").attribute("m3");
  check_case<head::CosMargin, TestType>("insightface_cos", {.margin = m3, .scale = 16});
  check_case<head::CombinedMargin, TestType>("insightface_cos", {.m2 = 0, .m3 = m3, .scale = 16});
}

TEMPLATE_TEST_CASE("parity: InsightFace's ArcFace since 2022 is the straight-through gradient", "",
                   double, float) {
  const double m2 = paper("insightface_arc").attribute("m2");
  const auto mode = GradientMode::straight_through;
  check_case<head::CombinedMargin, TestType>("insightface_arc",
                                             {.m2 = m2, .m3 = 0, .scale = 16, .gradient = mode});
  check_case<head::ArcMargin, TestType>("insightface_arc",
                                        {.margin = m2, .scale = 16, .gradient = mode}, paddle_sine);
}

TEMPLATE_TEST_CASE("parity: InsightFace's ArcFace before is the exact gradient", "", double,
                   float) {
  const double m2 = paper("insightface_arc_exact").attribute("m2");
  // Beyond pi CombinedMargin goes on as SphereFace does.
  check_case<head::CombinedMargin, TestType>("insightface_arc_exact_near",
                                             {.m2 = m2, .m3 = 0, .scale = 16});
  for (const char* name : {"insightface_arc_exact", "insightface_arc_exact_near"}) {
    check_case<head::ElasticMargin, TestType>(name, {.margin = m2, .sigma = 0, .scale = 16});
    check_case<head::ArcMargin, TestType>(name, {.margin = m2, .scale = 16}, paddle_sine);
  }
}
