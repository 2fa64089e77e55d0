// Generalised-mean pooling, the kernel and the neck.

#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/generalized_mean_pool.hpp>
#include <kindred/neck/gem.hpp>

#include "support/necks.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class T>
std::vector<T> pooled(const std::vector<T>& x, const Shape& shape, T p, T eps = T(1e-6)) {
  cpu::Context ctx(2);
  auto y = poisoned<T>(shape[0] * shape[3]);
  const std::vector<T> power{p};
  kernels::generalized_mean_pool_forward(ctx, view(x, shape), view(power, {1}), eps,
                                         view(y, {shape[0], shape[3]}));
  return y;
}

}  // namespace

TEST_CASE("generalised-mean pooling follows its definition") {
  const Shape shape{3, 4, 5, 19};  // whole vectors and a rest
  const auto x = random_values<double>(shape.size(), 1);
  for (const double p : {0.5, 1.0, 3.0, 6.5}) {
    auto expected = poisoned<double>(3 * 19);
    for (std::int64_t b = 0; b < 3; ++b)
      for (std::int64_t c = 0; c < 19; ++c) {
        double sum = 0;
        for (std::int64_t i = 0; i < 20; ++i)
          sum += std::pow(std::max(x[static_cast<std::size_t>((b * 20 + i) * 19 + c)], 0.05), p);
        expected[static_cast<std::size_t>(b * 19 + c)] = std::pow(sum / 20, 1 / p);
      }
    CHECK(difference(pooled(x, shape, p, 0.05), expected) < 1e-13);
  }
}

TEST_CASE("generalised-mean pooling: p = 1 is the mean, a huge p the maximum, none overflows") {
  const std::vector<float> x{1, 1e-3f, 2, 5e3f, 3, 1e4f};  // [1,3,1,2]
  const auto mean = pooled(x, {1, 3, 1, 2}, 1.f), most = pooled(x, {1, 3, 1, 2}, 200.f);
  CHECK(mean[0] == Approx(2));
  CHECK(mean[1] == Approx(5000));
  CHECK(most[0] == Approx(3).epsilon(0.01));
  CHECK(most[1] == Approx(1e4).epsilon(0.01));
}

TEST_CASE("GeM: the backward is the derivative of the forward, by p as well") {
  for (const double p : {1.5, 3.0, 7.5}) {
    // A large eps: some elements lie below it.
    check_neck<neck::GeM>({.num_features = 19, .eps = 0.2}, {2, 3, 2, 19}, {2, 19}, p);
  }
}

TEST_CASE("GeM: a map without a positive element gives eps and gradient 0; NaN comes through") {
  Bench<neck::GeM, float> bench("", neck::GeM::Config{.num_features = 3});
  bench.parameters[0] = 3;
  std::vector<float> x{-1, 2, 0, -2, 1, 0};
  const std::vector<float> upstream{1, 1, 1};
  auto got = train_neck(bench, x, {1, 2, 1, 3}, upstream);
  CHECK(got.y[0] == Approx(1e-6));
  CHECK(got.y[1] == Approx(std::cbrt(4.5)));
  CHECK(got.dx[0] == 0);
  CHECK(got.dx[3] == 0);
  CHECK(std::isfinite(bench.gradients[0]));
  x[1] = std::numeric_limits<float>::quiet_NaN();
  got = train_neck(bench, x, {1, 2, 1, 3}, upstream);
  CHECK(std::isnan(got.y[1]));
  CHECK(got.y[0] == Approx(1e-6));
}

TEST_CASE("GeM: float stays near double, and bits do not depend on the threads") {
  const Shape shape{5, 7, 7, 37};
  const auto exact = random_values<double>(shape.size(), 3);
  const std::vector<float> x(exact.begin(), exact.end());
  const std::vector<double> rounded(x.begin(), x.end());
  const auto y = pooled(x, shape, 3.f);
  const auto reference = pooled(rounded, shape, 3.0);
  CHECK(difference(std::vector<double>(y.begin(), y.end()), reference) < 1e-6);
  std::vector<float> first;
  for (const int threads : {1, 3}) {
    cpu::Context ctx(threads);
    const std::vector<float> p{3};
    auto dx = poisoned<float>(shape.size());
    std::vector<float> dp{0.5f};
    run_planned(ctx, [&] {
      kernels::generalized_mean_pool_backward(ctx, view(y, {5, 37}), view(x, shape),
                                              view(y, {5, 37}), view(p, {1}), 1e-6f,
                                              view(dx, shape), view(dp, {1}));
    });
    dx.push_back(dp[0]);
    if (first.empty()) first = dx;
    const bool same = first == dx;
    CHECK(same);
  }
}

TEST_CASE("GeM names what is wrong") {
  CHECK(neck_error<neck::GeM>({}) == "neck.GeM: num_features must be >= 1, got 0");
  CHECK(neck_error<neck::GeM>({.num_features = 2, .p = 0}) == "neck.GeM: p must be > 0, got 0");
  CHECK(neck_error<neck::GeM>({.num_features = 2, .eps = 0}) == "neck.GeM: eps must be > 0, got 0");
  ParameterTable table;
  neck::GeM({.num_features = 2, .freeze_p = true}, Scope(table, "neck"));
  CHECK(table.find("neck.p")->lr_multiplier == 0);
  cpu::Context ctx(1);
  std::vector<float> x(12), y(5), p{3};
  CHECK_THROWS_WITH(kernels::generalized_mean_pool_forward(ctx, view(x, {1, 2, 2, 3}), view(p, {1}),
                                                           1e-6f, view(y, {1, 5})),
                    ContainsSubstring("expected [1, 3], got [1, 5]"));
}
