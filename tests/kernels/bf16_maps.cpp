// Kernels on maps stored as BF16 do the arithmetic of the float kernels on the rounded numbers: the
// same bits, rounded where the result is stored as BF16. Pointwise convolutions round all factors
// and add up in another order; here they get integers, of which all sums are exact.

#include <kindred/kernels/batch_norm.hpp>
#include <kindred/kernels/channel_scale.hpp>
#include <kindred/kernels/conv2d.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/global_average_pool.hpp>
#include <kindred/kernels/separable_conv2d.hpp>

#include "support/numeric.hpp"
#include "support/rounded.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

Rounded unwritten(std::int64_t n) {
  return Rounded(static_cast<std::size_t>(n), BFloat16{0xFFFF});  // NaN
}

struct Case {
  Shape x;
  std::int64_t out, kernel, stride, groups;
};
// Depthwise of several widths, some of them in more than one group of rows; pointwise with short
// and long sums and more columns than a block; stems; what goes through whole maps.
const Case cases[] = {
    {{2, 7, 9, 5}, 5, 3, 1, 5},      {{2, 14, 14, 24}, 24, 3, 2, 24},
    {{1, 45, 30, 64}, 64, 5, 1, 64}, {{3, 56, 40, 33}, 33, 3, 1, 33},
    {{2, 40, 56, 48}, 48, 5, 2, 48}, {{1, 1, 1, 8}, 8, 3, 1, 8},
    {{2, 9, 7, 12}, 40, 1, 1, 1},    {{1, 20, 21, 64}, 128, 1, 1, 1},
    {{2, 5, 7, 300}, 70, 1, 1, 1},   {{1, 9, 9, 520}, 600, 1, 1, 1},
    {{2, 33, 40, 3}, 16, 3, 2, 1},   {{2, 11, 9, 8}, 12, 3, 1, 1},
    {{1, 11, 9, 8}, 12, 3, 2, 4},
};
std::string name(const Case& c) {
  return text("x ", c.x, ", ", c.out, " channels, kernel ", c.kernel, ", stride ", c.stride, ", ",
              c.groups, " groups");
}

struct Convolution {
  Conv2dGeometry geometry;
  Shape x, w, y;
  Rounded rounded_x;
  Full full_x, weights, dy, start;

  explicit Convolution(const Case& c)
      : geometry{.kernel_h = c.kernel,
                 .kernel_w = c.kernel,
                 .stride = c.stride,
                 .padding = (c.kernel - 1) / 2,
                 .groups = c.groups},
        x(c.x),
        w(geometry.weight_shape(c.x[3], c.out)),
        y(geometry.output_shape(c.x, c.out)),
        rounded_x(rounded(values(x.size(), 1))),
        full_x(unrounded(rounded_x)),
        weights(values(w.size(), 2)),
        dy(values(y.size(), 3)),
        start(values(w.size(), 4)) {}

  Full values(std::int64_t n, std::uint64_t stream) const {
    Full v = random_values<float>(n, stream, geometry.pointwise() ? 3 : 1);
    if (geometry.pointwise())
      for (float& element : v) element = std::round(element);
    return v;
  }

  /// y stored as Y of an x stored as X.
  template <class Y, class X>
  std::vector<Y> forward(const std::vector<X>& from, int threads = 1) {
    std::vector<Y> out(static_cast<std::size_t>(y.size()));
    cpu::Context ctx(threads);
    run_planned(ctx, [&] {
      kernels::conv2d_forward(ctx, geometry, view(from, x), view(std::as_const(weights), w),
                              view(out, y));
    });
    return out;
  }
  template <class X, class Y>
  Full backward_weight(const std::vector<X>& from, const std::vector<Y>& upstream,
                       int threads = 1) {
    Full out = start;  // accumulated into
    cpu::Context ctx(threads);
    run_planned(ctx, [&] {
      kernels::conv2d_backward_weight(ctx, geometry, view(from, x), view(upstream, y),
                                      view(out, w));
    });
    return out;
  }
  template <class Y>
  Full backward_input(const std::vector<Y>& upstream, int threads = 1) {
    Full out = poisoned<float>(x.size());
    cpu::Context ctx(threads);
    run_planned(ctx, [&] {
      kernels::conv2d_backward_input(ctx, geometry, view(upstream, y),
                                     view(std::as_const(weights), w), view(out, x));
    });
    return out;
  }
};

}  // namespace

TEST_CASE("BF16 maps: convolution forward") {
  for (const Case& c : cases) {
    INFO(name(c));
    Convolution conv(c);
    const Rounded expected = rounded(conv.forward<float>(conv.full_x));
    CHECK(conv.forward<BFloat16>(conv.rounded_x) == expected);
    CHECK(conv.forward<BFloat16>(conv.rounded_x, 3) == expected);
    CHECK(conv.forward<BFloat16>(conv.full_x) == expected);  // as the images come
  }
}

TEST_CASE("BF16 maps: convolution with its epilogue, as inference has it") {
  for (const Case& c : cases)
    for (const Activation act : {Activation::hardswish, Activation::swish}) {
      INFO(name(c));
      Convolution conv(c);
      const Full scale = random_values<float>(c.out, 5), shift = random_values<float>(c.out, 6);
      const Shape channels{c.out};
      const auto forward = [&](const auto& from, auto out) {
        cpu::Context ctx(2);
        run_planned(ctx, [&] {
          kernels::conv2d_forward(ctx, conv.geometry, view(from, conv.x),
                                  view(std::as_const(conv.weights), conv.w), view(scale, channels),
                                  view(shift, channels), act, view(out, conv.y));
        });
        return out;
      };
      const Full nothing = poisoned<float>(conv.y.size());
      const Full expected = forward(conv.full_x, nothing), full = forward(conv.rounded_x, nothing);
      CHECK(difference(full, expected) < 1e-6);
      CHECK(forward(conv.rounded_x, unwritten(conv.y.size())) == rounded(full));
      CHECK(forward(conv.full_x, unwritten(conv.y.size())) == rounded(full));
    }
}

TEST_CASE("BF16 maps: depthwise and pointwise convolution in one pass") {
  const Case separable[] = {{{1, 7, 9, 6}, 6, 3, 1, 0},     {{2, 14, 14, 16}, 32, 3, 2, 0},
                            {{1, 28, 28, 33}, 70, 5, 1, 0}, {{3, 5, 6, 400}, 130, 5, 2, 0},
                            {{1, 1, 1, 8}, 3, 3, 1, 0},     {{2, 31, 33, 17}, 257, 3, 1, 0},
                            {{5, 56, 56, 64}, 64, 3, 1, 0}};
  for (const Case& c : separable)
    for (const Activation act : {Activation::hardswish, Activation::swish}) {
      INFO(name(c));
      const std::int64_t channels = c.x[3];
      const Convolution first({c.x, channels, c.kernel, c.stride, channels});
      const Convolution second({first.y, c.out, 1, 1, 1});
      const Full s1 = random_values<float>(channels, 5), b1 = random_values<float>(channels, 6),
                 s2 = random_values<float>(c.out, 7), b2 = random_values<float>(c.out, 8);
      const auto v = [](const Full& values) {
        return view(values, {static_cast<std::int64_t>(values.size())});
      };
      Rounded packed(
          static_cast<std::size_t>(cpu::conv2d_rounded_size(cpu::Context(1), second.w) + 32));
      const auto misplaced = reinterpret_cast<std::uintptr_t>(packed.data()) % 64 / 2;
      BFloat16* aligned = packed.data() + (32 - misplaced) % 32;
      cpu::conv2d_pack_rounded(cpu::Context(1), second.w, second.weights.data(), aligned);
      kernels::PreparedWeight<float> prepared;
      prepared.rounded = aligned;
      const auto fused = [&](auto out, int threads) {
        cpu::Context ctx(threads);
        run_planned(ctx, [&] {
          kernels::separable_conv2d_forward(ctx, first.geometry, view(first.rounded_x, c.x),
                                            view(first.weights, first.w), {v(s1), v(b1), act},
                                            prepared, {v(s2), v(b2), act}, view(out, second.y));
        });
        return out;
      };
      Rounded between = unwritten(first.y.size()), expected = unwritten(second.y.size());
      cpu::Context ctx(1);
      run_planned(ctx, [&] {
        kernels::conv2d_forward(ctx, first.geometry, view(first.rounded_x, c.x),
                                view(first.weights, first.w), v(s1), v(b1), act,
                                view(between, first.y));
        kernels::conv2d_forward(ctx, second.geometry, view(between, first.y),
                                view(second.weights, second.w), v(s2), v(b2), act,
                                view(expected, second.y));
      });
      CHECK(fused(unwritten(second.y.size()), 1) == expected);
      CHECK(fused(unwritten(second.y.size()), 3) == expected);
      CHECK(rounded(fused(poisoned<float>(second.y.size()), 2)) == expected);
    }
}

TEST_CASE("BF16 maps: gradients of convolutions") {
  for (const Case& c : cases) {
    INFO(name(c));
    Convolution conv(c);
    const Full expected = conv.backward_weight(conv.full_x, conv.dy);
    CHECK(conv.backward_weight(conv.rounded_x, conv.dy) == expected);
    CHECK(conv.backward_weight(conv.rounded_x, conv.dy, 3) == expected);
    const Rounded dy = rounded(conv.dy);
    conv.dy = unrounded(dy);
    const Full expected_dx = conv.backward_input(conv.dy),
               expected_dw = conv.backward_weight(conv.full_x, conv.dy);
    CHECK(conv.backward_input(dy) == expected_dx);
    CHECK(conv.backward_input(dy, 3) == expected_dx);
    CHECK(conv.backward_weight(conv.rounded_x, dy) == expected_dw);
    CHECK(conv.backward_weight(conv.full_x, dy, 3) == expected_dw);
  }
}

TEST_CASE("BF16 maps: kernels for full precision refuse them, and the reverse") {
  Convolution conv(cases[0]);
  const MapView<float> map = view(std::as_const(conv.rounded_x), conv.x);
  CHECK_THROWS_WITH(View<const float>(map),
                    ContainsSubstring("a kernel for full precision met a BF16 map [2, 7, 9, 5]"));
  cpu::Context ctx(1);
  Rounded y(16);
  Full s(4);
  CHECK_THROWS_WITH(
      kernels::channel_scale_forward(ctx, view(std::as_const(conv.dy), conv.y),
                                     View<const float>{s.data(), {2, 5}},
                                     View<BFloat16>{y.data(), conv.y}),
      ContainsSubstring("a kernel for BF16 met a map in full precision [2, 7, 9, 5]"));
}

TEST_CASE("BF16 maps: batch norm with its activation, both ways") {
  for (const Shape& shape : {Shape{2, 7, 9, 5}, Shape{3, 20, 20, 64}, Shape{2, 31, 33, 130}})
    for (const Activation act : {Activation::hardswish, Activation::swish, Activation::identity}) {
      const Shape channels{shape[3]};
      Full data = random_values<float>(shape.size(), 1, 2);
      for (float& v : data) v += 3;  // a mean to be taken off
      const Rounded x = rounded(data);
      const Full full = unrounded(x), gamma = random_values<float>(shape[3], 2),
                 beta = random_values<float>(shape[3], 3),
                 dy = random_values<float>(shape.size(), 4);
      struct Result {
        Full mean, inv_std, running_mean, running_var, dx, dgamma, dbeta;
        Rounded rounded_dx;
        bool operator==(const Result&) const = default;
      };
      const auto run = [&](const auto& from, auto& y, int threads) {
        const auto zeros = Full(static_cast<std::size_t>(shape[3]));
        Result r{zeros, zeros, zeros, zeros, Full(data.size()), zeros, zeros, {}};
        r.rounded_dx = unwritten(shape.size());
        const View<float> skip;
        cpu::Context ctx(threads);
        run_planned(ctx, [&] {
          kernels::batch_norm_forward(
              ctx, view(from, shape), view(gamma, channels), view(beta, channels), 1e-5f, 0.9f, act,
              view(r.mean, channels), view(r.inv_std, channels), view(r.running_mean, channels),
              view(r.running_var, channels), view(y, shape));
          kernels::batch_norm_backward(
              ctx, view(dy, shape), view(from, shape), view(gamma, channels), view(beta, channels),
              view(std::as_const(r.mean), channels), view(std::as_const(r.inv_std), channels), act,
              view(r.dx, shape), view(r.dgamma, channels), view(r.dbeta, channels));
          kernels::batch_norm_backward(
              ctx, view(dy, shape), view(from, shape), view(gamma, channels), view(beta, channels),
              view(std::as_const(r.mean), channels), view(std::as_const(r.inv_std), channels), act,
              view(r.rounded_dx, shape), skip, skip);
        });
        CHECK(r.rounded_dx == rounded(r.dx));
        return r;
      };
      Full y(data.size()), y_of_rounded(data.size());
      Rounded rounded_y = unwritten(shape.size());
      const Result expected = run(full, y, 1);
      CHECK(run(x, rounded_y, 1) == expected);
      CHECK(run(x, y_of_rounded, 2) == expected);
      CHECK(rounded_y == rounded(y));
      CHECK(y_of_rounded == y);
    }
}

TEST_CASE("BF16 maps: squeeze-excite's factor and average") {
  for (const Shape& shape : {Shape{2, 7, 9, 5}, Shape{3, 8, 8, 48}}) {
    const Shape channels{shape[0], shape[3]};
    const Rounded x = rounded(random_values<float>(shape.size(), 1));
    const Full full = unrounded(x), s = random_values<float>(channels.size(), 2),
               dy = random_values<float>(shape.size(), 3);
    const auto run = [&](const auto& from, auto& y) {
      std::vector<Full> r{Full(full.size()), Full(s.size()), Full(s.size())};
      cpu::Context ctx(2);
      run_planned(ctx, [&] {
        kernels::channel_scale_forward(ctx, view(from, shape), view(s, channels), view(y, shape));
        kernels::channel_scale_backward(ctx, view(dy, shape), view(from, shape), view(s, channels),
                                        view(r[0], shape), view(r[1], channels));
        kernels::global_average_pool_forward(ctx, view(from, shape), view(r[2], channels));
      });
      return r;
    };
    Full y(full.size());
    Rounded rounded_y = unwritten(shape.size());
    const auto expected = run(full, y);
    CHECK(run(x, rounded_y) == expected);
    CHECK(rounded_y == rounded(y));
  }
}
