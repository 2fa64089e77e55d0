#include <kindred/kernels/cpu/dropout.hpp>
#include <kindred/kernels/dropout.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {
const RandomKey key{42, stream_of("dropout"), 3};
}

TEST_CASE("dropout: backward is the derivative of forward") {
  const Shape shape{5, 9};
  auto x = random_values<double>(shape.size(), 1);
  const auto upstream = random_values<double>(shape.size(), 2);
  cpu::Context ctx(2);
  for (const DropoutMode mode : {DropoutMode::upscale_in_train, DropoutMode::downscale_in_infer})
    for (const double p : {0.0, 0.2, 0.7, 1.0}) {
      auto y = poisoned<double>(shape.size()), dx = poisoned<double>(shape.size());
      auto loss = [&] {
        kernels::dropout_forward(ctx, p, mode, true, key, view(x, shape), view(y, shape));
        return dot(y, upstream);
      };
      kernels::dropout_backward(ctx, p, mode, key, view(upstream, shape), view(dx, shape));
      CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
    }
}

TEST_CASE("dropout: rates, scales and expectations of both modes") {
  const std::int64_t n = 200001;
  const Shape shape{n};
  const std::vector<float> ones(static_cast<std::size_t>(n), 1.f);
  auto up = ones, down = ones, infer = ones;
  cpu::Context ctx(2);
  const float p = 0.2f;
  kernels::dropout_forward(ctx, p, DropoutMode::upscale_in_train, true, key, view(ones, shape),
                           view(up, shape));
  kernels::dropout_forward(ctx, p, DropoutMode::downscale_in_infer, true, key, view(ones, shape),
                           view(down, shape));
  double kept = 0, sum = 0;
  for (std::size_t i = 0; i < ones.size(); ++i) {
    kept += down[i] != 0;
    sum += up[i];
    CHECK_FALSE((down[i] != 0 && down[i] != 1));
    if ((up[i] != 0) != (down[i] != 0)) FAIL("the modes must draw the same mask");
  }
  const double deviation = std::sqrt(0.2 * 0.8 / static_cast<double>(n));
  CHECK(std::abs(kept / static_cast<double>(n) - 0.8) < 5 * deviation);
  CHECK(std::abs(sum / static_cast<double>(n) - 1.0) < 5 * deviation / 0.8);

  kernels::dropout_forward(ctx, p, DropoutMode::upscale_in_train, false, key, view(ones, shape),
                           view(infer, shape));
  CHECK(infer == ones);
  kernels::dropout_forward(ctx, p, DropoutMode::downscale_in_infer, false, key, view(ones, shape),
                           view(infer, shape));
  for (const float v : infer) CHECK_FALSE(v != 1.f - p);
}

TEST_CASE("dropout: the mask depends on the key alone") {
  const Shape shape{100001};
  const auto x = random_values<float>(shape.size(), 1);
  auto draw = [&](int threads, const RandomKey& k) {
    auto y = poisoned<float>(shape.size());
    cpu::Context ctx(threads);
    kernels::dropout_forward(ctx, 0.5f, DropoutMode::upscale_in_train, true, k, view(x, shape),
                             view(y, shape));
    return y;
  };
  CHECK(draw(1, key) == draw(2, key));
  RandomKey next = key;
  ++next.step;
  CHECK(draw(1, key) != draw(1, next));
}

TEST_CASE("dropout: p outside [0, 1] is refused") {
  cpu::Context ctx(1);
  std::vector<float> x(3), y(3);
  for (const float p : {-0.1f, 1.5f, std::numeric_limits<float>::quiet_NaN()})
    CHECK_THROWS_AS(kernels::dropout_forward(ctx, p, DropoutMode::upscale_in_train, true, key,
                                             view(x, {3}), view(y, {3})),
                    ConfigError);
}
