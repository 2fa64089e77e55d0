#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/l2_normalize.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {
constexpr NormRule rules[] = {NormRule::max_eps, NormRule::add_eps, NormRule::none};
}

TEST_CASE("l2 normalize: backward is the derivative of forward") {
  cpu::Context ctx(2);
  // An eps above some of the norms exercises the floor; the rows have norms of about 0.3 to 3.
  for (const double eps : {1e-12, 1.0})
    for (const NormRule rule : rules)
      for (const std::int64_t dim : {1, 6, 33}) {
        INFO("rule " << static_cast<int>(rule) << " eps " << eps << " D " << dim);
        const Shape shape{4, dim};
        auto x = random_values<double>(shape.size(), 1);
        for (std::int64_t i = 0; i < dim; ++i) x[static_cast<std::size_t>(i)] *= 0.1;
        const auto upstream = random_values<double>(shape.size(), 2);
        auto y = poisoned<double>(shape.size()), dx = y, norm = poisoned<double>(4);
        auto loss = [&] {
          kernels::l2_normalize_forward(ctx, rule, eps, view(x, shape), view(norm, {4}),
                                        view(y, shape));
          return dot(y, upstream);
        };
        loss();
        kernels::l2_normalize_backward(ctx, rule, eps, view(upstream, shape), view(y, shape),
                                       view(norm, {4}), view(dx, shape));
        CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
      }
}

TEST_CASE("l2 normalize: rows of zeros, tiny and huge values are finite") {
  cpu::Context ctx(1);
  const Shape shape{3, 4};
  for (const NormRule rule : rules) {
    std::vector<float> x{0, 0, 0, 0, 3e-30f, 4e-30f, 0, 0, 3e30f, 4e30f, 0, 0};
    std::vector<float> y(12), norm(3), dy(12, 1.f), dx(12);
    kernels::l2_normalize_forward(ctx, rule, 1e-12f, view(x, shape), view(norm, {3}),
                                  view(y, shape));
    kernels::l2_normalize_backward(ctx, rule, 1e-12f, view(dy, shape), view(y, shape),
                                   view(norm, {3}), view(dx, shape));
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(y[i] == 0);
      CHECK(dx[i] == Approx(rule == NormRule::none ? 0.f : 1e12f));
    }
    CHECK(norm[1] == Approx(5e-30f));
    CHECK(y[8] == Approx(0.6f));
    CHECK(y[9] == Approx(0.8f));
    if (rule == NormRule::none) CHECK(y[4] == Approx(0.6f));
    for (const float v : dx) CHECK(std::isfinite(v));
  }
}

TEST_CASE("l2 normalize: in place gives the same") {
  cpu::Context ctx(2);
  const Shape shape{9, 512};
  const auto x = random_values<float>(shape.size(), 1), dy = random_values<float>(shape.size(), 2);
  auto y = x, dx = dy, in_place = x;
  std::vector<float> norm(9);
  kernels::l2_normalize_forward(ctx, NormRule::max_eps, 1e-12f, view(x, shape), view(norm, {9}),
                                view(y, shape));
  kernels::l2_normalize_forward(ctx, NormRule::max_eps, 1e-12f, view(in_place, shape),
                                view(norm, {9}), view(in_place, shape));
  CHECK(in_place == y);
  auto apart = poisoned<float>(shape.size());
  kernels::l2_normalize_backward(ctx, NormRule::max_eps, 1e-12f, view(dy, shape), view(y, shape),
                                 view(norm, {9}), view(apart, shape));
  kernels::l2_normalize_backward(ctx, NormRule::max_eps, 1e-12f, view(dx, shape), view(y, shape),
                                 view(norm, {9}), view(dx, shape));
  CHECK(dx == apart);
}
