// Every policy of the margin heads, CPU against CUDA: loss, gradients and statistics, fused and
// through the logits.

#include <kindred/head/ada_margin.hpp>
#include <kindred/head/arc_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/combined_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/curricular_margin.hpp>
#include <kindred/head/dynamic_margin.hpp>
#include <kindred/head/elastic_margin.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/norm_face.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>

#include "cuda/margin_side.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// f(name, sub-centres, policy) for every policy; those with statistics record them.
template <class T, class F>
void for_each_policy(Side& side, std::int64_t classes, F&& f) {
  f("arc", 1, ArcMarginPolicy<T>(0.5, 16));
  f("arc, easy", 1, ArcMarginPolicy<T>(0.5, 64, true));
  f("arc, straight through", 1, ArcMarginPolicy<T>(0.5, 16, false, GradientMode::straight_through));
  f("cosine", 1, CosMarginPolicy<T>(0.35, 16));
  f("circle", 1, CircleMarginPolicy<T>(0.35, 64));
  f("norm face", 1, NormFacePolicy<T>(16));
  f("combined", 1, CombinedMarginPolicy<T>(1.7, 0.4, 0.15, 8, GradientMode::exact));
  f("sphere", 1, CombinedMarginPolicy<T>(1.7, 0, 0, 8, GradientMode::exact));  // SphereFace
  f("magnitude", 1, MagMarginPolicy<T>(2, 11, 0.45, 0.8, 16));
  f("elastic", 1, ElasticMarginPolicy<T>(0.5, 0.05, 16, MarginForm::angle, {5, 6, 7}));
  f("elastic, in order", 1,
    ElasticMarginPolicy<T>(0.5, 0.05, 16, MarginForm::angle, {5, 6, 7}, true));
  f("sub-centres", 3, SubCenterArcMarginPolicy<T>(0.5, 16, false, 3));
  std::vector<T> margins(static_cast<std::size_t>(classes));
  for (std::size_t c = 0; c < margins.size(); ++c) margins[c] = T(0.2) + T(c % 7) / 20;
  const auto of_classes = side.input(margins, {classes});
  f("dynamic", 2, DynamicMarginPolicy<T>(of_classes.data, 16, 2));
  const auto running = side.input(std::vector<T>{T(0.1)}, {1});
  f("curricular", 1, CurricularMarginPolicy<T>(0.5, 16, 0.3, running.data));
  side.record("curricular: t", running);
  const auto mean = side.input(std::vector<T>{T(7)}, {1}),
             deviation = side.input(std::vector<T>{T(3)}, {1});
  f("adaptive", 1, AdaMarginPolicy<T>(0.4, 0.333, 16, 0.6, mean.data, deviation.data));
  side.record("adaptive: mean", mean);
  side.record("adaptive: deviation", deviation);
}

KINDRED_PARITY(every_policy) {
  for_each_policy<T>(side, 150, [&](const char* name, std::int64_t sub_centers, auto policy) {
    const Problem<T> p{.batch = 33, .dim = 20, .classes = 150, .sub_centers = sub_centers};
    check_fused(side, name, p, policy);
    check_logits(side, name, p, policy);
  });
}

}  // namespace
