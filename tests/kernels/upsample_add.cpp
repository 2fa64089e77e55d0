#include <kindred/kernels/cpu/upsample_add.hpp>
#include <kindred/kernels/upsample_add.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("upsample and add: every fine pixel gets its coarse one, whatever the sizes") {
  for (const Shape& fine : {Shape{2, 8, 6, 19}, Shape{2, 7, 5, 3}, Shape{1, 4, 3, 1}}) {
    const Shape coarse{fine[0], (fine[1] + 1) / 2, (fine[2] + 1) / 2, fine[3]};
    const auto x = random_values<float>(coarse.size(), 1),
               before = random_values<float>(fine.size(), 2);
    auto y = before;
    cpu::Context ctx(2);
    kernels::upsample_add(ctx, view(x, coarse), view(y, fine));
    for (std::int64_t i = 0; i < fine.size(); ++i) {
      const std::int64_t c = i % fine[3], w = i / fine[3] % fine[2];
      const std::int64_t h = i / fine[3] / fine[2] % fine[1], b = i / fine[3] / fine[2] / fine[1];
      const std::int64_t at = ((b * coarse[1] + h / 2) * coarse[2] + w / 2) * fine[3] + c;
      // Of an odd size, floor(h H'/H) with H' = (H + 1)/2 is floor(h/2), too.
      CHECK(y[static_cast<std::size_t>(i)] ==
            before[static_cast<std::size_t>(i)] + x[static_cast<std::size_t>(at)]);
    }
  }
}

TEST_CASE("upsample and add: backward is the derivative of forward") {
  for (const auto& [coarse, fine] : {std::pair{Shape{2, 3, 2, 5}, Shape{2, 5, 4, 5}},
                                     std::pair{Shape{1, 2, 3, 9}, Shape{1, 7, 3, 9}}}) {
    auto x = random_values<double>(coarse.size(), 1);
    const auto upstream = random_values<double>(fine.size(), 2);
    auto dx = poisoned<double>(coarse.size());
    cpu::Context ctx(2);
    const Shape to = fine, from = coarse;
    auto loss = [&] {
      std::vector<double> y(static_cast<std::size_t>(to.size()));
      kernels::upsample_add(ctx, view(x, from), view(y, to));
      return dot(y, upstream);
    };
    kernels::upsample_add_backward(ctx, view(upstream, fine), view(dx, coarse));
    CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
  }
}

TEST_CASE("upsample and add: a wrong shape is named") {
  cpu::Context ctx(1);
  std::vector<float> x(12), y(12);
  CHECK_THROWS_WITH(kernels::upsample_add(ctx, view(x, {1, 2, 2, 3}), view(y, {1, 3, 2, 2})),
                    ContainsSubstring("upsample_add: x: expected [1, 2, 2, 2], got [1, 2, 2, 3]"));
  CHECK_THROWS_WITH(kernels::upsample_add(ctx, view(x, {1, 4, 1, 3}), view(y, {1, 2, 2, 3})),
                    ContainsSubstring("is not coarser than"));
  CHECK_THROWS_WITH(
      kernels::upsample_add_backward(ctx, view(y, {1, 2, 2, 3}), view(x, {1, 4, 1, 3})),
      ContainsSubstring("upsample_add_backward: dx [1, 4, 1, 3] is not coarser"));
}
