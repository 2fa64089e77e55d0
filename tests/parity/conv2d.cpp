// Convolutions against Paddle.

#include <kindred/kernels/conv2d.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// A convolution weight as the parameter it would be.
ParameterInfo convolution_weight(const Fixture& one) {
  const auto& e = one.extents("param.weight");  // [O, I/groups, kh, kw]
  ParameterInfo p;
  p.name = "weight";
  p.shape = {e[2], e[3], e[1], e[0]};
  p.layout = FileLayout::convolution;
  return p;
}

/// Copies between an image and the places (first + i stride, first + j stride) of a larger one.
template <class T>
struct Placement {
  Shape small, large;
  std::int64_t first_h, first_w, stride_h, stride_w;

  template <class F>
  void for_each(F&& f) const {
    for (std::int64_t b = 0; b < small[0]; ++b)
      for (std::int64_t i = 0; i < small[1]; ++i)
        for (std::int64_t j = 0; j < small[2]; ++j)
          for (std::int64_t c = 0; c < small[3]; ++c)
            f(static_cast<std::size_t>(((b * small[1] + i) * small[2] + j) * small[3] + c),
              static_cast<std::size_t>(
                  ((b * large[1] + first_h + i * stride_h) * large[2] + first_w + j * stride_w) *
                      large[3] +
                  c));
  }
  std::vector<T> enlarged(const std::vector<T>& x) const {
    auto out = zeros<T>(large);
    for_each([&](std::size_t s, std::size_t l) { out[l] = x[s]; });
    return out;
  }
  std::vector<T> taken(const std::vector<T>& x) const {
    auto out = zeros<T>(small);
    for_each([&](std::size_t s, std::size_t l) { out[s] = x[l]; });
    return out;
  }
};

template <class T>
struct Convolved {
  std::vector<T> y, dx, dw;
};

template <class T>
Convolved<T> convolve(const Conv2dGeometry& geometry, const Shape& x_shape, const std::vector<T>& x,
                      const Shape& w_shape, const std::vector<T>& w, const std::vector<T>& bias,
                      const std::vector<T>& dy) {
  const Shape y_shape = geometry.output_shape(x_shape, w_shape[3]);
  Convolved<T> out{poisoned<T>(y_shape.size()), poisoned<T>(x_shape.size()), zeros<T>(w_shape)};
  cpu::Context ctx(2);
  run_planned(ctx, [&] {
    if (bias.empty())
      kernels::conv2d_forward(ctx, geometry, view(x, x_shape), view(w, w_shape),
                              view(out.y, y_shape));
    else
      kernels::conv2d_forward(ctx, geometry, view(x, x_shape), view(w, w_shape), {},
                              view(bias, {w_shape[3]}), Activation::identity, view(out.y, y_shape));
    kernels::conv2d_backward_input(ctx, geometry, view(dy, y_shape), view(w, w_shape),
                                   view(out.dx, x_shape));
    kernels::conv2d_backward_weight(ctx, geometry, view(x, x_shape), view(dy, y_shape),
                                    view(out.dw, w_shape));
  });
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("parity: conv2d", "", double, float) {
  using T = TestType;
  const Fixture fixture("conv2d");
  std::vector<std::string> unequal;
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const ParameterInfo weight = convolution_weight(one);
    const Shape w_shape = weight.shape, x_shape = one.shape("in.x"), y_shape = one.shape("out.y");
    std::vector<T> w = zeros<T>(w_shape), bias;
    one.read("param", weight, w.data());
    if (one.has("param.bias")) bias = one.stored<T>("param.bias");
    const auto stride = one.labels("attr.stride"), padding = one.labels("attr.padding");
    Conv2dGeometry geometry{.kernel_h = w_shape[0],
                            .kernel_w = w_shape[1],
                            .stride = stride[0],
                            .padding = padding[0],
                            .groups = static_cast<std::int64_t>(one.attribute("groups"))};
    const auto x = one.values<T>("in.x"), dy = one.values<T>("upstream.y");
    Convolved<T> got;
    if (stride[0] == stride[1] && padding[0] == padding[1]) {
      REQUIRE(geometry.output_shape(x_shape, w_shape[3]) == y_shape);
      got = convolve(geometry, x_shape, x, w_shape, w, bias, dy);
    } else {
      // kindred has one stride and one padding: the same numbers come from stride 1 on an image
      // padded beforehand, of which some places are taken.
      unequal.push_back(name);
      geometry.stride = 1;
      geometry.padding = 0;
      const Placement<T> pad{
          x_shape,
          {x_shape[0], x_shape[1] + 2 * padding[0], x_shape[2] + 2 * padding[1], x_shape[3]},
          padding[0],
          padding[1],
          1,
          1};
      const Placement<T> taken{
          y_shape, geometry.output_shape(pad.large, w_shape[3]), 0, 0, stride[0], stride[1]};
      got = convolve(geometry, pad.large, pad.enlarged(x), w_shape, w, bias, taken.enlarged(dy));
      got.y = taken.taken(got.y);
      got.dx = pad.taken(got.dx);
    }
    CHECK(relative_difference(got.y, one.values<double>("out.y")) < tolerance<T>);
    CHECK(relative_difference(got.dx, one.values<double>("grad.x")) < tolerance<T>);
    CHECK(difference_from(one, "grad_param", weight, got.dw.data()) < tolerance<T>);
  }
  CHECK(unequal == std::vector<std::string>{"rectangular_3x5"});
}
