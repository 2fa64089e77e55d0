// Margin softmax, CPU against CUDA: tiles, sizes, degenerate rows, labels that are no class.

#include <kindred/head/arc_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/dynamic_margin.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>

#include "cuda/margin_side.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

KINDRED_PARITY(tiles) {
  for (const Cut cut : {Cut::small_tiles, Cut::small_tiles_stored})
    for (const std::int64_t classes : {65, 128, 250}) {
      const auto name = text(classes, cut == Cut::small_tiles ? " classes" : " classes, stored");
      Problem<T> p{.batch = 33, .dim = 9, .classes = classes, .cut = cut};
      check_fused(side, name, p, ArcMarginPolicy<T>(0.5, 16));
      p.sub_centers = 3;
      check_fused(side, name + ", sub-centres", p, SubCenterArcMarginPolicy<T>(0.5, 16, false, 3));
      if (cut == Cut::small_tiles_stored) continue;
      check_logits(side, name + ", sub-centres", p, SubCenterArcMarginPolicy<T>(0.5, 16, false, 3));
    }
}

KINDRED_PARITY(sizes) {
  for (const std::int64_t batch : {1, 31, 257})
    for (const std::int64_t dim : {3, 33})
      for (const std::int64_t classes : {1, 2, 65}) {
        Problem<T> p{.batch = batch, .dim = dim, .classes = classes, .epsilon = T(0)};
        check_fused(side, text(batch, " x ", dim, " of ", classes), p,
                    MagMarginPolicy<T>(2, 11, 0.45, 0.8, 16));
      }
  Problem<T> p{.batch = 5, .dim = 7, .classes = 40, .features = false};
  check_fused(side, "centres alone", p, ArcMarginPolicy<T>(0.5, 16));
  p.features = true;
  p.centers = false;
  check_fused(side, "features alone", p, ArcMarginPolicy<T>(0.5, 16));
  p.features = false;
  check_fused(side, "loss alone", p, ArcMarginPolicy<T>(0.5, 16));
}

KINDRED_PARITY(update) {
  for (const Cut cut : {Cut::by_size, Cut::small_tiles, Cut::small_tiles_stored}) {
    const auto name = text("cut ", static_cast<int>(cut));
    Problem<T> p{.batch = 17, .dim = 9, .classes = 130, .cut = cut};
    check_update(side, name, p, ArcMarginPolicy<T>(0.5, 16));
    check_update(side, name + ", NaN", p, ArcMarginPolicy<T>(0.5, 16), true);
    p.sub_centers = 3;
    check_update(side, name + ", sub-centres", p, SubCenterArcMarginPolicy<T>(0.5, 16, false, 3));
  }
}

KINDRED_PARITY(large_scale) {
  // exp(300 * 2) is no float.
  const Problem<T> p{.batch = 17, .dim = 6, .classes = 90, .epsilon = T(0)};
  const auto tolerance = margin_limit<T>;
  const Inputs<T> in(side, p);
  const auto loss = side.template output<T>({1});
  const auto dx = side.input(std::vector<T>(17 * 6), p.x_shape()),
             dw = side.input(std::vector<T>(90 * 6), p.w_shape());
  side.run([&] { margin_softmax(side, p, CosMarginPolicy<T>(0.35, 300), in, loss, dx, dw); });
  side.record("loss", loss, tolerance);
  side.record("dx", dx, tolerance);
  side.record("dw", dw, tolerance);
}

KINDRED_PARITY(row_on_its_centre) {
  // The derivative of the angle is unbounded there: rounding counts, but all stays finite.
  const Problem<T> p{.batch = 3, .dim = 6, .classes = 4};
  Inputs<T> in(side, p);
  auto centres = random_values<T>(24, 8), features = centres;
  features.resize(18);
  for (std::size_t d = 6; d < 12; ++d) features[d] *= T(-2);  // the opposite
  in.x = side.input(features, p.x_shape());
  in.w = side.input(centres, p.w_shape());
  in.labels = side.input(std::vector<std::int64_t>{0, 1, 2}, {3});
  const auto loss = side.template output<T>({1});
  const auto dx = side.input(std::vector<T>(18), p.x_shape()),
             dw = side.input(std::vector<T>(24), p.w_shape());
  side.run(
      [&] { margin_softmax(side, p, MagMarginPolicy<T>(2, 11, 0.45, 0.8, 16), in, loss, dx, dw); });
  const double coarse = std::is_same_v<T, double> ? 1e-6 : 1e-2;
  side.record("loss", loss, coarse);
  side.record("dx", dx, coarse);
  side.record("dw", dw, coarse);
}

KINDRED_PARITY(bad_labels) {
  const Problem<T> p{.batch = 3, .dim = 4, .classes = 5};
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{5}, std::int64_t{1} << 60}) {
    Inputs<T> in(side, p);
    in.labels = side.input(std::vector<std::int64_t>{0, bad, 1}, {3});
    const auto loss = side.template output<T>({1}), dx = side.template output<T>(p.x_shape()),
               dw = side.template output<T>(p.w_shape()), z = side.template output<T>({3, 5});
    const std::vector<T> margins{T(0.1), T(0.2), T(0.3), T(0.4), T(0.5)};
    const DynamicMarginPolicy<T> policy(side.input(margins, {5}).data, 16, 1);
    const auto check = [&](auto&& pass) {
      side.template check_throws<DataError>([&] { side.run(pass); }, "class_num");
    };
    check([&] { margin_softmax(side, p, policy, in, loss, dx, dw); });
    check([&] { kernels::margin_logits_forward(side.ctx, policy, in.x, in.w, in.labels.data, z); });
    check([&] {
      kernels::margin_logits_backward(side.ctx, policy, z, in.x, in.w, in.labels.data, dx, dw);
    });
  }
}

}  // namespace
