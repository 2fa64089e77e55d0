#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/global_average_pool.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("global average pool: backward is the derivative of forward") {
  const Shape image{3, 5, 4, 7}, pooled{3, 7};
  auto x = random_values<double>(image.size(), 1);
  const auto upstream = random_values<double>(pooled.size(), 2);
  auto y = poisoned<double>(pooled.size()), dx = poisoned<double>(image.size());
  cpu::Context ctx(2);
  auto loss = [&] {
    kernels::global_average_pool_forward(ctx, view(x, image), view(y, pooled));
    return dot(y, upstream);
  };
  kernels::global_average_pool_backward(ctx, view(upstream, pooled), view(dx, image));
  CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
}

TEST_CASE("global average pool: a wrong shape is named") {
  cpu::Context ctx(1);
  std::vector<float> x(2 * 4 * 3), y(5);
  CHECK_THROWS_WITH(kernels::global_average_pool_forward(ctx, view(x, {2, 2, 2, 3}), view(y, {5})),
                    ContainsSubstring("expected [2, 3], got [5]"));
}
