#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/separable_conv2d.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

struct Case {
  Shape x;
  std::int64_t kernel, stride, out;
};

template <class T>
struct Layers {
  Conv2dGeometry depthwise;
  Shape x, filtered, y;
  std::vector<T> images, w, scale, shift, w2, scale2, shift2;
  std::shared_ptr<T> packed;
  Activation first, second;

  explicit Layers(const Case& c)
      : depthwise{.kernel_h = c.kernel,
                  .kernel_w = c.kernel,
                  .stride = c.stride,
                  .padding = (c.kernel - 1) / 2,
                  .groups = c.x[3]},
        x(c.x),
        filtered(depthwise.output_shape(c.x, c.x[3])),
        y{filtered[0], filtered[1], filtered[2], c.out},
        images(random_values<T>(x.size(), 1)),
        w(random_values<T>(c.kernel * c.kernel * x[3], 2)),
        scale(random_values<T>(x[3], 3)),
        shift(random_values<T>(x[3], 4)),
        w2(random_values<T>(x[3] * c.out, 5)),
        scale2(random_values<T>(c.out, 6)),
        shift2(random_values<T>(c.out, 7)),
        first(Activation::hardswish),
        second(Activation::relu) {
    cpu::Context ctx(1);
    const Conv2dGeometry pointwise;
    const Shape shape{1, 1, x[3], c.out};
    const auto size = cpu::conv2d_packed_size<T>(ctx, pointwise, shape);
    packed = std::static_pointer_cast<T>(cpu::allocate(static_cast<std::size_t>(size) * sizeof(T)));
    cpu::conv2d_pack(ctx, pointwise, shape, w2.data(), packed.get());
  }

  std::vector<T> fused(int threads) {
    auto out = poisoned<T>(y.size());
    cpu::Context ctx(threads);
    run_planned(ctx, [&] {
      kernels::separable_conv2d_forward<cpu::Context, T>(
          ctx, depthwise, view(images, x),
          view(w, {depthwise.kernel_h, depthwise.kernel_w, 1, x[3]}),
          {view(scale, {x[3]}), view(shift, {x[3]}), first}, packed.get(),
          {view(scale2, {y[3]}), view(shift2, {y[3]}), second}, view(out, y));
    });
    return out;
  }
  std::vector<T> one_by_one() {
    auto between = poisoned<T>(filtered.size()), out = poisoned<T>(y.size());
    cpu::Context ctx(1);
    run_planned(ctx, [&] {
      kernels::conv2d_forward<cpu::Context, T>(
          ctx, depthwise, view(images, x),
          view(w, {depthwise.kernel_h, depthwise.kernel_w, 1, x[3]}), view(scale, {x[3]}),
          view(shift, {x[3]}), first, view(between, filtered));
      kernels::conv2d_forward<cpu::Context, T>(ctx, Conv2dGeometry{}, view(between, filtered),
                                               view(w2, {1, 1, x[3], y[3]}), view(scale2, {y[3]}),
                                               view(shift2, {y[3]}), second, view(out, y));
    });
    return out;
  }
};

const Case cases[] = {{{1, 7, 9, 5}, 3, 1, 6},     {{2, 14, 14, 16}, 3, 2, 32},
                      {{1, 28, 28, 33}, 5, 1, 70}, {{3, 5, 6, 400}, 5, 2, 130},
                      {{1, 1, 1, 8}, 3, 1, 3},     {{2, 31, 33, 17}, 3, 1, 257}};

}  // namespace

TEMPLATE_TEST_CASE("separable_conv2d: the numbers of the two convolutions", "", float, double) {
  for (const Case& c : cases) {
    INFO("x " << text(c.x) << ", kernel " << c.kernel << ", stride " << c.stride);
    Layers<TestType> layers(c);
    const auto expected = layers.one_by_one();
    CHECK(difference(layers.fused(1), expected) < (sizeof(TestType) == 4 ? 1e-5 : 1e-13));
  }
}

TEST_CASE("separable_conv2d: the same bits for any number of threads") {
  for (const Case& c : cases) {
    Layers<float> layers(c);
    const auto one = layers.fused(1);
    CHECK(layers.fused(3) == one);
  }
}

TEST_CASE("separable_conv2d: wrong shapes are named") {
  Layers<float> layers({{1, 7, 7, 8}, 3, 1, 4});
  layers.y = {1, 7, 6, 4};
  CHECK_THROWS_WITH(layers.fused(1), ContainsSubstring("separable_conv2d_forward: y"));
  layers.y = {1, 7, 7, 4};
  layers.depthwise.groups = 1;
  CHECK_THROWS_AS(layers.fused(1), ShapeError);
}
