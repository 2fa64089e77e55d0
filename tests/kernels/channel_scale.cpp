#include <kindred/kernels/channel_scale.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("channel scale: backward is the derivative of forward") {
  cpu::Context ctx(2);
  for (const std::int64_t channels : {1, 7, 16, 21}) {
    const Shape image{3, 2, 4, channels}, factors{3, channels};
    auto x = random_values<double>(image.size(), 1), s = random_values<double>(factors.size(), 2);
    const auto upstream = random_values<double>(image.size(), 3);
    auto y = poisoned<double>(image.size()), dx = poisoned<double>(image.size());
    auto ds = poisoned<double>(factors.size());
    auto loss = [&] {
      kernels::channel_scale_forward(ctx, view(x, image), view(s, factors), view(y, image));
      return dot(y, upstream);
    };
    kernels::channel_scale_backward(ctx, view(upstream, image), view(x, image), view(s, factors),
                                    view(dx, image), view(ds, factors));
    CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
    CHECK(difference(ds, central_differences(s, loss)) < 1e-6);

    auto in_place = upstream, ds_again = ds;
    kernels::channel_scale_backward(ctx, view(in_place, image), view(x, image), view(s, factors),
                                    view(in_place, image), view(ds_again, factors));
    CHECK(in_place == dx);
    CHECK(ds_again == ds);
  }
}

TEST_CASE("channel scale: the same bits for 1 and 2 threads") {
  const Shape image{4, 9, 5, 40}, factors{4, 40};
  const auto x = random_values<float>(image.size(), 1), dy = random_values<float>(image.size(), 2);
  const auto s = random_values<float>(factors.size(), 3);
  std::vector<float> ds[2];
  for (std::size_t t = 0; t < 2; ++t) {
    cpu::Context ctx(static_cast<int>(t) + 1);
    auto dx = poisoned<float>(image.size());
    ds[t] = poisoned<float>(factors.size());
    kernels::channel_scale_backward(ctx, view(dy, image), view(x, image), view(s, factors),
                                    view(dx, image), view(ds[t], factors));
  }
  CHECK(ds[0] == ds[1]);
}

TEST_CASE("channel scale: a wrong shape is named") {
  cpu::Context ctx(1);
  std::vector<float> x(2 * 4 * 3), y(2 * 4 * 3), s(4);
  CHECK_THROWS_WITH(kernels::channel_scale_forward(ctx, view(x, {2, 2, 2, 3}), view(s, {2, 2}),
                                                   view(y, {2, 2, 2, 3})),
                    ContainsSubstring("channel_scale_forward: s: expected [2, 3], got [2, 2]"));
}
