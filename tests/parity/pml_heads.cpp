// Margin heads against pytorch-metric-learning: loss and gradients, fused and through the logits.

#include <kindred/head/combined_margin.hpp>
#include <kindred/head/dynamic_margin.hpp>
#include <kindred/head/elastic_margin.hpp>
#include <kindred/head/norm_face.hpp>
#include <kindred/head/sphere_face.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>

#include "support/margin_heads.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class Head>
void check_case(const std::string& name, typename Head::Config config, double limit = 1e-9) {
  using T = double;
  INFO(Head::name() << " against " << name);
  const Fixture one = Fixture("pml_heads", "pytorch-metric-learning").at(name);
  config.embedding_size = 6;
  config.class_num = 7;
  config.scale = one.attribute("scale");
  Bench<Head, T> bench("", config);
  const ParameterInfo& weight = bench.info("weight");
  one.read("param", weight, bench.data(weight));
  const auto x = one.stored<T>("in.x");
  const Shape shape = one.shape("in.x");
  for (const auto& step :
       {fused_step(bench, x, shape, one.labels()), logit_step(bench, x, shape, one.labels())}) {
    CHECK(relative_difference(static_cast<double>(step.loss), one.number("out.loss")) < limit);
    CHECK(relative_difference(step.dx, one.stored<double>("grad.x")) < limit);
    CHECK(difference_from(one, "grad_param", weight, step.dw.data()) < limit);
  }
}

double margin_of(const std::string& name) {
  return Fixture("pml_heads", "pytorch-metric-learning").at(name).attribute("margin");
}

}  // namespace

TEST_CASE("parity: NormFace is NormalizedSoftmaxLoss") {
  check_case<head::NormFace>("normalized_softmax", {});
}

TEST_CASE("parity: CombinedMargin is CosFaceLoss and, below pi, ArcFaceLoss") {
  check_case<head::CombinedMargin>("cos_face", {.m2 = 0, .m3 = margin_of("cos_face")});
  check_case<head::CombinedMargin>("arc_face_near", {.m2 = margin_of("arc_face_near"), .m3 = 0});
}

TEST_CASE("parity: SphereFace is SphereFaceLoss of normalised features") {
  check_case<head::SphereFace>("sphere_face_2", {.margin = 2});
  check_case<head::SphereFace>("sphere_face_4", {.margin = 4});
}

TEST_CASE("parity: ElasticMargin without spread is CosFaceLoss and ArcFaceLoss") {
  check_case<head::ElasticMargin>(
      "cos_face", {.margin = margin_of("cos_face"), .sigma = 0, .form = MarginForm::cosine});
  check_case<head::ElasticMargin>("arc_face", {.margin = margin_of("arc_face"), .sigma = 0});
}

TEST_CASE("parity: DynamicMargin of equal classes is ArcFaceLoss") {
  head::DynamicMargin::Config config;
  config.class_counts.assign(7, 16);
  config.a = 0.5;
  config.b = margin_of("arc_face") - 0.25;
  check_case<head::DynamicMargin>("arc_face", config);
}

TEST_CASE("parity: SubCenterArcMargin is SubCenterArcFaceLoss but for PaddleClas' 1e-6") {
  check_case<head::SubCenterArcMargin>("sub_center",
                                       {.sub_centers = 3, .margin = margin_of("sub_center")}, 1e-5);
}
