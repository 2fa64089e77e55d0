#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/elementwise.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("elementwise: the activations' backward is the derivative of forward") {
  const Shape shape{7, 5};
  auto x = random_values<double>(shape.size(), 1, 2.5);
  const auto upstream = random_values<double>(shape.size(), 2);
  cpu::Context ctx(2);
  for (const Activation act : {Activation::identity, Activation::relu, Activation::hardswish,
                               Activation::hardsigmoid, Activation::tanh}) {
    INFO("activation " << static_cast<int>(act));
    auto y = poisoned<double>(shape.size()), dx = poisoned<double>(shape.size());
    auto loss = [&] {
      kernels::activation_forward(ctx, act, view(x, shape), view(y, shape));
      return dot(y, upstream);
    };
    kernels::activation_backward(ctx, act, view(upstream, shape), view(x, shape), view(dx, shape));
    CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
    auto in_place = upstream;
    kernels::activation_backward(ctx, act, view(in_place, shape), view(x, shape),
                                 view(in_place, shape));
    CHECK(in_place == dx);
  }
}

TEST_CASE("elementwise: fill, copy, add, multiply, scale_add on sizes around a vector") {
  cpu::Context ctx(2);
  for (const std::int64_t n : {0, 1, 15, 16, 17, 100003}) {
    const Shape shape{n};
    const auto a = random_values<float>(n, 1), b = random_values<float>(n, 2);
    auto sum = poisoned<float>(n), product = sum, filled = sum, copied = sum, axpy = b;
    kernels::add(ctx, view(a, shape), view(b, shape), view(sum, shape));
    kernels::multiply(ctx, view(a, shape), view(b, shape), view(product, shape));
    kernels::fill(ctx, 2.5f, view(filled, shape));
    kernels::copy(ctx, view(a, shape), view(copied, shape));
    kernels::scale_add(ctx, 2.f, view(a, shape), view(axpy, shape));
    bool same = true;
    for (std::size_t i = 0; i < a.size(); ++i)
      same = same && sum[i] == a[i] + b[i] && product[i] == a[i] * b[i] && filled[i] == 2.5f &&
             copied[i] == a[i] && std::abs(axpy[i] - (b[i] + 2 * a[i])) < 1e-6f;
    CHECK(same);
  }
}

TEST_CASE("elementwise: a wrong shape is named") {
  cpu::Context ctx(1);
  std::vector<float> a(6), b(6);
  CHECK_THROWS_WITH(kernels::add(ctx, view(a, {6}), view(a, {2, 3}), view(b, {6})),
                    ContainsSubstring("add: b: expected [6], got [2, 3]"));
}
