// Kernels on maps in BF16, CPU against CUDA.

#include <kindred/kernels/batch_norm.hpp>
#include <kindred/kernels/channel_scale.hpp>
#include <kindred/kernels/conv2d.hpp>
#include <kindred/kernels/global_average_pool.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#else
#include <kindred/kernels/cuda/batch_norm.cuh>
#include <kindred/kernels/cuda/channel_scale.cuh>
#include <kindred/kernels/cuda/conv2d.cuh>
#include <kindred/kernels/cuda/global_average_pool.cuh>
#endif

#include "cuda/support.hpp"
#include "support/rounded.hpp"

using namespace kindred;
using test::Full;
using test::random_values;
using test::Rounded;
using test::rounded;
using test::Side;
using test::unrounded;

namespace {

/// Whole numbers from -8 to 8: sums of their products are exact in float, in whatever order and
/// whether factors are rounded to BF16 or not.
Full whole(std::int64_t n, std::uint64_t stream) {
  RandomSequence random({1, stream, 0});
  Full values(static_cast<std::size_t>(n));
  for (float& v : values) v = static_cast<float>(static_cast<int>(random.below(17)) - 8);
  return values;
}

/// The mode of the next products; the CPU has none.
void set_mode([[maybe_unused]] Side& side, [[maybe_unused]] int mode) {
#ifndef KINDRED_CPU_SIDE
  side.ctx.set_math(static_cast<cuda::MathMode>(mode));
#endif
}

struct Case {
  Shape x;
  std::int64_t out;
  Conv2dGeometry geometry;
};
const Case cases[] = {
    {{2, 9, 7, 3}, 8, {3, 3, 2, 1, 1}},        // stem
    {{2, 5, 4, 31}, 33, {1, 1, 1, 0, 1}},      // pointwise
    {{1, 13, 11, 257}, 32, {1, 1, 1, 0, 1}},   //
    {{1, 20, 21, 64}, 136, {1, 1, 1, 0, 1}},   // large tiles
    {{2, 8, 8, 6}, 10, {1, 1, 2, 0, 1}},       // pointwise with a stride
    {{2, 7, 9, 5}, 7, {3, 3, 1, 1, 1}},        // full
    {{2, 7, 6, 6}, 9, {3, 3, 1, 1, 3}},        // grouped
    {{2, 9, 11, 34}, 34, {3, 3, 1, 1, 34}},    // depthwise, two channels a thread
    {{1, 10, 9, 70}, 70, {3, 3, 2, 1, 70}},    //
    {{2, 7, 7, 40}, 40, {5, 5, 1, 2, 40}},     //
    {{2, 14, 13, 8}, 8, {5, 5, 2, 2, 8}},      //
    {{2, 9, 11, 33}, 33, {3, 3, 1, 1, 33}},    // an odd number of channels
    {{2, 14, 13, 7}, 7, {5, 5, 2, 2, 7}},      //
    {{1, 1, 1, 258}, 258, {3, 3, 1, 1, 258}},  //
    {{1, 8, 9, 6}, 6, {7, 3, 3, 2, 6}},        // depthwise with an uncommon kernel
};

void compare_convolution(Side& side, const Case& c, std::int64_t offset) {
  const Shape wshape = c.geometry.weight_shape(c.x[3], c.out);
  const Shape yshape = c.geometry.output_shape(c.x, c.out);
  const Full numbers = whole(c.x.size() + offset, 1);
  const auto moved = [&](const auto& all, const Shape& shape) {
    return std::decay_t<decltype(all)>{all.data + offset, shape};
  };
  const Shape more_x{c.x.size() + offset}, more_y{yshape.size() + offset};
  const auto x = moved(side.input(rounded(numbers), more_x), c.x);
  const auto full_x = moved(side.input(numbers, more_x), c.x);
  const auto w = side.input(whole(wshape.size(), 2), wshape),
             dy = side.input(whole(yshape.size(), 3), yshape),
             dw = side.input(whole(wshape.size(), 4), wshape),
             dw_of_rounded = side.input(whole(wshape.size(), 4), wshape),
             dw_of_full = side.input(whole(wshape.size(), 4), wshape);
  const auto rounded_dy =
      moved(side.input(rounded(whole(yshape.size() + offset, 3)), more_y), yshape);
  const auto y = moved(side.output<BFloat16>(more_y), yshape),
             of_full = moved(side.output<BFloat16>(more_y), yshape);
  const auto dx = side.output<float>(c.x);
  side.run([&] {
    kernels::conv2d_forward(side.ctx, c.geometry, x, w, y);
    kernels::conv2d_forward(side.ctx, c.geometry, full_x, w, of_full);
    kernels::conv2d_backward_weight(side.ctx, c.geometry, x, dy, dw);
    kernels::conv2d_backward_weight(side.ctx, c.geometry, x, rounded_dy, dw_of_rounded);
    kernels::conv2d_backward_weight(side.ctx, c.geometry, full_x, rounded_dy, dw_of_full);
    kernels::conv2d_backward_input(side.ctx, c.geometry, rounded_dy, w, dx);
  });
  const auto name = text(c.x, " -> ", yshape, " by ", c.geometry.kernel_h, " stride ",
                         c.geometry.stride, " from ", offset, ' ');
  side.record(name + "y", y, 0);
  side.record(name + "y of a full map", of_full, 0);
  side.record(name + "dw", dw, 0);
  side.record(name + "dw by a rounded dy", dw_of_rounded, 0);
  side.record(name + "dw of a full map by a rounded dy", dw_of_full, 0);
  side.record(name + "dx of a rounded dy", dx, 0);
}

/// What inference computes: with batch norm folded in and an activation, into BF16 or float.
void compare_epilogue(Side& side, const Case& c, std::int64_t offset) {
  const Shape wshape = c.geometry.weight_shape(c.x[3], c.out);
  const Shape yshape = c.geometry.output_shape(c.x, c.out);
  const auto moved = [&](auto all, const Shape& shape) {
    return decltype(all){all.data + offset, shape};
  };
  const Full numbers = whole(c.x.size() + offset, 1);
  const auto x = moved(side.input(rounded(numbers), {c.x.size() + offset}), c.x);
  const auto full_x = moved(side.input(numbers, {c.x.size() + offset}), c.x);
  const auto w = side.input(whole(wshape.size(), 2), wshape);
  Full powers;  // by which products of whole numbers stay exact
  for (std::int64_t i = 0; i < c.out; ++i)
    powers.push_back((i % 2 == 0 ? 1.f : -1.f) * static_cast<float>(1 << i % 5) / 4);
  const auto scale = side.input(powers, {c.out}), shift = side.input(whole(c.out, 4), {c.out});
  const View<float> none;
  const Shape more_y{yshape.size() + offset};
  const auto to_rounded = [&] { return moved(side.output<BFloat16>(more_y), yshape); };
  const auto to_full = [&] { return moved(side.output<float>(more_y), yshape); };
  const auto scaled = to_rounded(), of_full = to_rounded(), biased = to_rounded(),
             swished = to_rounded();
  const auto full_y = to_full(), full_swished = to_full();
  side.run([&] {
    const auto forward = [&](const auto& from, const View<float>& s, Activation act,
                             const auto& to) {
      kernels::conv2d_forward(side.ctx, c.geometry, from, w, scale, s, act, to);
    };
    forward(x, none, Activation::relu, scaled);
    forward(full_x, none, Activation::relu, of_full);
    forward(x, shift, Activation::relu, biased);
    forward(x, shift, Activation::hardswish, swished);
    forward(x, shift, Activation::relu, full_y);
    forward(x, shift, Activation::hardswish, full_swished);
  });
  const auto name = text(c.x, " -> ", yshape, " by ", c.geometry.kernel_h, " stride ",
                         c.geometry.stride, " from ", offset, ' ');
  side.record(name + "scaled", scaled, 0);
  side.record(name + "scaled, of a full map", of_full, 0);
  side.record(name + "in float", full_y, 0);
  side.record(name + "swished, in float", full_swished, 1e-6);
  // Rounded once more where the epilogue is a pass of its own.
  for (const auto& [what, y] : {std::pair("biased", biased), std::pair("swished", swished)})
    side.record(name + what, side.input(unrounded(side.host(y)), yshape), 1.0 / 128);
}

// Exact, in every mode: products of BF16 numbers are, and so are these sums.
KINDRED_PARITY(convolutions) {
  if constexpr (std::is_same_v<T, float>)
    for (const int mode : {0, 1, 2}) {
      set_mode(side, mode);
      for (const Case& c : cases) compare_convolution(side, c, 0);
      for (const int i : {1, 7}) compare_convolution(side, cases[i], 1);  // not aligned
    }
}

KINDRED_PARITY(epilogues) {
  if constexpr (std::is_same_v<T, float>)
    for (const int mode : {0, 2}) {
      set_mode(side, mode);
      for (const Case& c : cases) compare_epilogue(side, c, 0);
      for (const int i : {1, 7}) compare_epilogue(side, cases[i], 1);
    }
}

/// Whether the elements are the same but for what the contraction of two instances to multiply-adds
/// may change.
bool alike(const Full& a, const Full& b) {
  double scale = 1, worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    scale = std::max(scale, static_cast<double>(std::abs(b[i])));
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(d <= worst)) worst = d;
  }
  return worst <= 1e-6 * scale;
}
bool alike(const Rounded& a, const Full& b) {
  std::size_t different = 0;
  for (std::size_t i = 0; i < a.size(); ++i) different += !(a[i] == to_bfloat16(b[i]));
  return different <= a.size() / 1000;
}

/// What batch norm computes of a map x, both ways.
struct Normalised {
  View<float> mean, inv_std, running_mean, running_var, dx, dgamma, dbeta;
  View<BFloat16> rounded_dx;
  template <class X, class Y>
  Normalised(Side& side, const X& x, const Y& y, Activation act)
      : mean(side.output<float>(channels_of(x))),
        inv_std(side.output<float>(channels_of(x))),
        running_mean(zeros(side, channels_of(x))),
        running_var(zeros(side, channels_of(x))),
        dx(side.output<float>(x.shape)),
        dgamma(zeros(side, channels_of(x))),
        dbeta(zeros(side, channels_of(x))),
        rounded_dx(side.output<BFloat16>(x.shape)) {
    const std::int64_t n = x.shape.back();
    const Shape channels{n};
    const auto gamma = side.input(random_values<float>(n, 2), channels),
               beta = side.input(random_values<float>(n, 3), channels),
               dy = side.input(random_values<float>(x.shape.size(), 4), x.shape);
    side.run([&] {
      kernels::batch_norm_forward(side.ctx, x, gamma, beta, 1e-5f, 0.9f, act, mean, inv_std,
                                  running_mean, running_var, y);
      kernels::batch_norm_backward(side.ctx, dy, x, gamma, beta, mean, inv_std, act, dx, dgamma,
                                   dbeta);
      const View<float> none;
      kernels::batch_norm_backward(side.ctx, dy, x, gamma, beta, mean, inv_std, act, rounded_dx,
                                   none, none);
    });
  }
  std::vector<View<float>> all() const {
    return {mean, inv_std, running_mean, running_var, dx, dgamma, dbeta};
  }
  template <class X>
  static Shape channels_of(const X& x) {
    return Shape{x.shape.back()};
  }
  static View<float> zeros(Side& side, const Shape& shape) {
    return side.input(Full(static_cast<std::size_t>(shape.size())), shape);
  }
};

// On both sides the kernels of float, which another test compares, on the rounded numbers.
KINDRED_PARITY(batch_norm) {
  if constexpr (std::is_same_v<T, float>)
    for (const Shape& shape :
         {Shape{2, 7, 9, 5}, Shape{3, 20, 14, 64}, Shape{2, 15, 17, 130}, Shape{1, 20, 30, 31}})
      for (const Activation act : {Activation::hardswish, Activation::swish, Activation::identity})
        for (const std::int64_t offset : {0, 1}) {
          const Shape more{shape.size() + offset};
          Full data = random_values<float>(more.size(), 1, 2);
          for (float& v : data) v += 3;  // a mean to be taken off
          const Rounded numbers = rounded(data);
          const View<BFloat16> x{side.input(numbers, more).data + offset, shape};
          const View<float> full{side.input(unrounded(numbers), more).data + offset, shape};
          const View<BFloat16> y{side.output<BFloat16>(more).data + offset, shape};
          const auto full_y = side.template output<float>(shape),
                     y_of_rounded = side.template output<float>(shape);
          const Normalised expected(side, full, full_y, act), got(side, x, y, act),
              mixed(side, x, y_of_rounded, act);
          const auto name = text(shape, ' ', static_cast<int>(act), " from ", offset);
          for (std::size_t i = 0; i < expected.all().size(); ++i) {
            const Full numbers_of_float = side.host(expected.all()[i]);
            side.check(alike(side.host(got.all()[i]), numbers_of_float) &&
                           alike(side.host(mixed.all()[i]), numbers_of_float),
                       text(name, ": array ", i, " is not that of float"));
            side.record(text(name, ": array ", i), got.all()[i], 2e-4);
          }
          side.check(alike(side.host(y), side.host(full_y)), name + ": y");
          side.check(alike(side.host(got.rounded_dx), side.host(got.dx)), name + ": dx in BF16");
          side.check(alike(side.host(expected.rounded_dx), side.host(expected.dx)),
                     name + ": dx in BF16 of a full map");
          side.check(alike(side.host(y_of_rounded), side.host(full_y)), name + ": y in float");
          side.record(name + " y", y, 0.01);
        }
}

KINDRED_PARITY(factors_and_averages) {
  if constexpr (std::is_same_v<T, float>)
    for (const Shape& shape : {Shape{2, 7, 9, 5}, Shape{3, 8, 8, 48}}) {
      const Shape channels{shape[0], shape[3]};
      const auto x = side.input(rounded(random_values<float>(shape.size(), 1)), shape);
      const auto s = side.input(random_values<float>(channels.size(), 2), channels),
                 dy = side.input(random_values<float>(shape.size(), 3), shape);
      const auto y = side.template output<BFloat16>(shape);
      const auto dx = side.template output<float>(shape),
                 ds = side.template output<float>(channels),
                 mean = side.template output<float>(channels);
      side.run([&] {
        kernels::channel_scale_forward(side.ctx, x, s, y);
        kernels::channel_scale_backward(side.ctx, dy, x, s, dx, ds);
        kernels::global_average_pool_forward(side.ctx, x, mean);
      });
      side.record(text("y ", shape), y, 0);  // one product, which is rounded once
      side.record(text("dx ", shape), dx, 0);
      side.record(text("ds ", shape), ds);
      side.record(text("mean ", shape), mean);
    }
}

// The rounding itself: ties, subnormals, the largest numbers, and what is not finite.
KINDRED_PARITY(rounding) {
  if constexpr (std::is_same_v<T, float>) {
    const float smallest = std::numeric_limits<float>::min();
    Full numbers = random_values<float>(1000, 1);
    for (int i = 0; i < 512; ++i) numbers.push_back(1 + static_cast<float>(i) / 512);
    for (const float v :
         {0.f, smallest, smallest / 2, smallest - smallest / 1024, 3.4e38f,
          std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()})
      for (const float sign : {1.f, -1.f}) numbers.push_back(sign * v);
    numbers.push_back(std::numeric_limits<float>::quiet_NaN());
    const auto n = static_cast<std::int64_t>(numbers.size());
    Rounded result = rounded(numbers);
    Full back = unrounded(result);
#ifndef KINDRED_CPU_SIDE
    const auto x = side.input(numbers, {n});
    const auto y = side.template output<BFloat16>({n});
    const auto z = side.template output<float>({n});
    side.run([&] {
      cuda::transform(side.ctx, "round", n, cuda::Convert{}, y.data, View<const float>(x).data);
      cuda::transform(side.ctx, "widen", n, cuda::Convert{}, z.data, View<const BFloat16>(y).data);
    });
    result = side.host(y);
    back = side.host(z);
#endif
    side.check(back.back() != back.back(), "a NaN stays one");
    side.check(back[back.size() - 2] < -3.4e38f && back[back.size() - 2] * 0 != 0, "-infinity");
    std::vector<std::int64_t> bits;
    for (std::size_t i = 0; i + 1 < result.size(); ++i) bits.push_back(result[i].bits);
    side.record("bits", side.input(bits, {n - 1}));
  }
}

}  // namespace
