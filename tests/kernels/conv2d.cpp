#include <kindred/kernels/conv2d.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// A convolution with its arrays: x, w and dy are given, the rest is computed.
struct Case {
  Conv2dGeometry geometry;
  Shape x;
  std::int64_t out_channels;
  Shape y() const { return geometry.output_shape(x, out_channels); }
  Shape w() const { return geometry.weight_shape(x[3], out_channels); }
};

/// Calls f(x index, w index, y index) for every product of the convolution.
template <class F>
void for_each_product(const Case& c, F&& f) {
  const Conv2dGeometry& g = c.geometry;
  const Shape x = c.x, y = c.y(), w = c.w();
  const std::int64_t group_out = y[3] / g.groups;
  for (std::int64_t b = 0; b < y[0]; ++b)
    for (std::int64_t i = 0; i < y[1]; ++i)
      for (std::int64_t j = 0; j < y[2]; ++j)
        for (std::int64_t p = 0; p < g.kernel_h; ++p)
          for (std::int64_t q = 0; q < g.kernel_w; ++q) {
            const std::int64_t h = i * g.stride + p - g.padding, v = j * g.stride + q - g.padding;
            if (h < 0 || h >= x[1] || v < 0 || v >= x[2]) continue;
            for (std::int64_t k = 0; k < w[2]; ++k)
              for (std::int64_t o = 0; o < y[3]; ++o)
                f(static_cast<std::size_t>(((b * x[1] + h) * x[2] + v) * x[3] +
                                           o / group_out * w[2] + k),
                  static_cast<std::size_t>(((p * g.kernel_w + q) * w[2] + k) * w[3] + o),
                  static_cast<std::size_t>(((b * y[1] + i) * y[2] + j) * y[3] + o));
          }
}

template <class T>
struct Results {
  std::vector<T> y, dx, dw;
  bool operator==(const Results&) const = default;
};

template <class T>
Results<T> compute(int threads, const Case& c, const std::vector<T>& x, const std::vector<T>& w,
                   const std::vector<T>& dy, const std::vector<T>& dw0) {
  Results<T> r{poisoned<T>(c.y().size()), poisoned<T>(c.x.size()), dw0};
  cpu::Context ctx(threads);
  run_planned(ctx, [&] {
    kernels::conv2d_forward(ctx, c.geometry, view(x, c.x), view(w, c.w()), view(r.y, c.y()));
    kernels::conv2d_backward_input(ctx, c.geometry, view(dy, c.y()), view(w, c.w()),
                                   view(r.dx, c.x));
    kernels::conv2d_backward_weight(ctx, c.geometry, view(x, c.x), view(dy, c.y()),
                                    view(r.dw, c.w()));
  });
  return r;
}

template <class T>
Results<T> reference(const Case& c, const std::vector<T>& x, const std::vector<T>& w,
                     const std::vector<T>& dy, const std::vector<T>& dw0) {
  std::vector<double> y(static_cast<std::size_t>(c.y().size())), dx(x.size());
  std::vector<double> dw(dw0.begin(), dw0.end());
  for_each_product(c, [&](std::size_t ix, std::size_t iw, std::size_t iy) {
    y[iy] += double(x[ix]) * double(w[iw]);
    dx[ix] += double(dy[iy]) * double(w[iw]);
    dw[iw] += double(dy[iy]) * double(x[ix]);
  });
  return {std::vector<T>(y.begin(), y.end()), std::vector<T>(dx.begin(), dx.end()),
          std::vector<T>(dw.begin(), dw.end())};
}

std::ostream& operator<<(std::ostream& out, const Case& c) {
  const Conv2dGeometry& g = c.geometry;
  return out << c.x << " kernel " << g.kernel_h << "x" << g.kernel_w << " stride " << g.stride
             << " padding " << g.padding << " groups " << g.groups << " -> " << c.out_channels;
}

template <class T>
void check_against_reference(const Case& c, double tolerance) {
  CAPTURE(c);
  const auto x = random_values<T>(c.x.size(), 1), w = random_values<T>(c.w().size(), 2);
  const auto dy = random_values<T>(c.y().size(), 3), dw0 = random_values<T>(c.w().size(), 4);
  const auto got = compute(2, c, x, w, dy, dw0), expected = reference(c, x, w, dy, dw0);
  CHECK(difference(got.y, expected.y) < tolerance);
  CHECK(difference(got.dx, expected.dx) < tolerance);
  CHECK(difference(got.dw, expected.dw) < tolerance);
  const bool same_bits = got == compute(1, c, x, w, dy, dw0);
  CHECK(same_bits);
}

void check_both(const Case& c) {
  check_against_reference<float>(c, 1e-5);
  check_against_reference<double>(c, 1e-13);
}

Conv2dGeometry square(std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                      std::int64_t groups = 1) {
  return {kernel, kernel, stride, padding, groups};
}

}  // namespace

TEST_CASE("conv2d: all directions against plain loops") {
  for (std::int64_t kernel : {1, 3, 5, 7})
    for (std::int64_t stride : {1, 2})
      for (std::int64_t padding : {0, 1, 2}) {
        check_both({square(kernel, stride, padding), {2, 9, 7, 6}, 5});
        check_both({square(kernel, stride, padding, 2), {1, 7, 8, 6}, 4});
      }
}

TEST_CASE("conv2d: odd sizes, strides and kernels") {
  check_both({square(3, 2, 1), {2, 33, 31, 3}, 17});  // a stem
  check_both({square(3, 1, 1), {1, 9, 10, 33}, 31});
  check_both({square(3, 3, 1), {2, 11, 10, 18}, 7});  // stride 3
  check_both({square(1, 3, 0), {2, 11, 10, 18}, 7});  // pixels that nobody sees
  check_both({{1, 7, 1, 3, 1}, {2, 4, 9, 5}, 6});     // padding larger than the kernel
  check_both({{5, 2, 2, 1, 3}, {2, 9, 6, 9}, 12});
  check_both({square(3, 1, 1), {1, 1, 1, 20}, 20});  // one pixel
  check_both({square(1, 1, 0), {2, 9, 7, 40}, 33});  // a matrix product
  check_against_reference<float>({square(3, 1, 1), {2, 12, 12, 64}, 128}, 1e-5);  // several blocks
  check_against_reference<float>({square(3, 1, 1), {1, 4, 4, 160}, 192}, 1e-5);   // large dw
  check_against_reference<float>({square(3, 1, 1), {6, 34, 34, 3}, 16}, 1e-5);    // partial sums
}

TEST_CASE("conv2d: stems against plain loops") {
  for (std::int64_t kernel : {3, 7})
    for (std::int64_t stride : {1, 2})
      for (std::int64_t out_channels : {5, 16, 24, 33, 40})
        check_both({square(kernel, stride, kernel / 2), {2, 17, 31, 3}, out_channels});
  check_both({square(3, 1, 3), {1, 5, 20, 3}, 16});
  check_both({square(3, 2, 0), {3, 64, 64, 3}, 16});
  check_both({square(9, 3, 4), {1, 20, 50, 1}, 16});
}

TEST_CASE("conv2d: depthwise against plain loops") {
  for (std::int64_t kernel : {1, 2, 3, 5, 7})
    for (std::int64_t stride : {1, 2, 3})
      for (std::int64_t padding : {0, 1, 2, 3})
        for (std::int64_t channels : {3, 8, 40}) {
          const Conv2dGeometry g = square(kernel, stride, padding, channels);
          check_against_reference<float>({g, {2, 8, 11, channels}, channels}, 1e-5);
        }
  for (std::int64_t channels : {1, 5, 16, 17, 33}) {
    check_both({square(3, 2, 1, channels), {2, 7, 20, channels}, channels});
    check_both({square(5, 1, 2, channels), {2, 7, 16, channels}, channels});
    check_both({square(5, 2, 2, channels), {1, 14, 3, channels}, channels});
    check_both({{3, 5, 1, 1, channels}, {1, 3, 7, channels}, channels});
  }
  check_against_reference<float>({square(5, 1, 2, 64), {2, 56, 56, 64}, 64}, 1e-5);
}

TEST_CASE("conv2d: backward is the derivative of forward") {
  const Case cases[] = {{square(3, 2, 1), {1, 5, 6, 3}, 4},
                        {square(5, 2, 2, 10), {1, 6, 5, 10}, 10},
                        {square(3, 1, 1, 2), {2, 4, 3, 4}, 6}};
  for (const Case& c : cases) {
    CAPTURE(c);
    auto x = random_values<double>(c.x.size(), 1), w = random_values<double>(c.w().size(), 2);
    const auto upstream = random_values<double>(c.y().size(), 3);
    const std::vector<double> zeros(w.size(), 0.0);
    auto y = poisoned<double>(c.y().size());
    cpu::Context ctx(2);
    auto loss = [&] {
      run_planned(ctx, [&] {
        kernels::conv2d_forward(ctx, c.geometry, view(x, c.x), view(w, c.w()), view(y, c.y()));
      });
      return dot(y, upstream);
    };
    const auto got = compute(2, c, x, w, upstream, zeros);
    CHECK(difference(got.dx, central_differences(x, loss)) < 1e-6);
    CHECK(difference(got.dw, central_differences(w, loss)) < 1e-6);
  }
}

TEST_CASE("conv2d: the fused epilogue is scale, shift and activation") {
  const Case cases[] = {
      {square(1, 1, 0), {2, 9, 7, 20}, 37},    {square(3, 2, 1), {2, 9, 7, 3}, 16},
      {square(3, 2, 1), {2, 33, 31, 3}, 16},   {square(3, 1, 1, 2), {1, 5, 7, 8}, 6},
      {square(3, 2, 1), {1, 33, 31, 3}, 40},  // a stem whose slivers overlap
      {square(1, 1, 0), {1, 8, 7, 20}, 32},   // whole tiles
      {square(3, 1, 1, 19), {1, 9, 9, 19}, 19}};
  using A = Activation;
  for (const Case& c : cases)
    for (Activation activation :
         {A::identity, A::relu, A::relu6, A::hardswish, A::hardsigmoid, A::hardsigmoid_0_2,
          A::leaky_relu_0_1, A::sigmoid, A::swish, A::tanh})
      for (bool scaled : {false, true}) {
        const auto x = random_values<float>(c.x.size(), 1),
                   w = random_values<float>(c.w().size(), 2);
        const auto scale = random_values<float>(c.out_channels, 3);
        const auto shift = random_values<float>(c.out_channels, 4);
        auto expected = poisoned<float>(c.y().size()), got = expected;
        cpu::Context ctx(2);
        run_planned(ctx, [&] {
          kernels::conv2d_forward(ctx, c.geometry, view(x, c.x), view(w, c.w()),
                                  view(expected, c.y()));
          kernels::conv2d_forward(ctx, c.geometry, view(x, c.x), view(w, c.w()),
                                  scaled ? view(scale, {c.out_channels}) : View<const float>{},
                                  view(shift, {c.out_channels}), activation, view(got, c.y()));
        });
        for (std::size_t i = 0; i < expected.size(); ++i) {
          const std::size_t o = i % static_cast<std::size_t>(c.out_channels);
          expected[i] = activate(activation, (scaled ? scale[o] : 1) * expected[i] + shift[o]);
        }
        CHECK(difference(got, expected) < 1e-5);
      }
}

TEST_CASE("conv2d: NaN passes the fused epilogue") {
  const Case cases[] = {{square(1, 1, 0), {1, 8, 7, 20}, 37},
                        {square(3, 2, 1), {1, 33, 31, 3}, 16},
                        {square(3, 1, 1, 32), {1, 9, 9, 32}, 32}};
  for (const Case& c : cases)
    for (Activation activation : {Activation::relu, Activation::relu6, Activation::hardsigmoid,
                                  Activation::hardswish, Activation::leaky_relu_0_1}) {
      auto x = random_values<float>(c.x.size(), 1);
      x[0] = std::numeric_limits<float>::quiet_NaN();
      const auto w = random_values<float>(c.w().size(), 2);
      const auto shift = random_values<float>(c.out_channels, 4);
      std::vector<float> y(static_cast<std::size_t>(c.y().size()));
      cpu::Context ctx(1);
      run_planned(ctx, [&] {
        kernels::conv2d_forward(ctx, c.geometry, view(x, c.x), view(w, c.w()), View<const float>{},
                                view(shift, {c.out_channels}), activation, view(y, c.y()));
      });
      CHECK(std::isnan(y[0]));
    }
}

TEST_CASE("conv2d: planning computes nothing") {
  for (std::int64_t groups : {1, 16}) {
    const Case c{square(3, 1, 1, groups), {1, 8, 8, 16}, 16};
    const auto x = random_values<float>(c.x.size(), 1), w = random_values<float>(c.w().size(), 2);
    std::vector<float> y(x.size(), 7), dx(x.size(), 7), dw(w.size(), 7);
    cpu::Context ctx(2);
    ctx.arena().begin_recording();
    kernels::conv2d_forward(ctx, c.geometry, view(x, c.x), view(w, c.w()), view(y, c.x));
    kernels::conv2d_backward_input(ctx, c.geometry, view(x, c.x), view(w, c.w()), view(dx, c.x));
    kernels::conv2d_backward_weight(ctx, c.geometry, view(x, c.x), view(x, c.x), view(dw, c.w()));
    ctx.arena().end_recording();
    CHECK(y == std::vector<float>(x.size(), 7));
    CHECK(dx == y);
    CHECK(dw == std::vector<float>(w.size(), 7));
  }
}

TEST_CASE("conv2d: impossible shapes are named") {
  CHECK(square(3, 2, 1).output_shape({4, 224, 224, 3}, 16) == Shape{4, 112, 112, 16});
  CHECK_THROWS_WITH(square(5, 1, 0).output_shape({1, 4, 9, 3}, 8),
                    ContainsSubstring("smaller than the kernel 5x5"));
  CHECK_THROWS_WITH(square(3, 1, 1, 4).output_shape({1, 9, 9, 6}, 8),
                    ContainsSubstring("6 input and 8 output channels do not divide into 4 groups"));
  CHECK_THROWS_WITH(square(3, 1, 1).output_shape({9, 9, 3}, 8),
                    ContainsSubstring("x must be [B,H,W,C], got [9, 9, 3]"));
  CHECK_THROWS_AS(square(3, 0, 1).output_shape({1, 9, 9, 3}, 8), ConfigError);

  cpu::Context ctx(1);
  std::vector<float> x(2 * 5 * 5 * 3), w(3 * 3 * 3 * 4), y(2 * 5 * 5 * 4), s(4), wrong(5);
  const Conv2dGeometry g = square(3, 1, 1);
  CHECK_THROWS_WITH(
      kernels::conv2d_forward(ctx, g, view(x, {2, 5, 5, 3}), view(w, {3, 3, 3, 4}),
                              view(y, {2, 5, 4, 5})),
      ContainsSubstring("conv2d_forward: y: expected [2, 5, 5, 4], got [2, 5, 4, 5]"));
  CHECK_THROWS_WITH(
      kernels::conv2d_backward_weight(ctx, g, view(x, {2, 5, 5, 3}), view(y, {2, 5, 5, 4}),
                                      view(w, {3, 3, 4, 3})),
      ContainsSubstring("conv2d_backward_weight: w: expected [3, 3, 3, 3], got [3, 3, 4, 3]"));
  CHECK_THROWS_WITH(
      kernels::conv2d_forward(ctx, g, view(x, {2, 5, 5, 3}), view(w, {3, 3, 3, 4}), view(s, {4}),
                              view(wrong, {5}), Activation::relu, view(y, {2, 5, 5, 4})),
      ContainsSubstring("conv2d_forward: shift: expected [4], got [5]"));
}
