#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/pairwise.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("pairwise: squared distances and their gradient") {
  const std::int64_t batch = 7, dim = 5;
  const Shape shape{batch, dim}, square{batch, batch};
  auto x = random_values<double>(shape.size(), 1);
  const auto coefficients = random_values<double>(square.size(), 2);  // not symmetric
  auto d2 = poisoned<double>(square.size());
  cpu::Context ctx(2);
  auto loss = [&] {
    run_planned(ctx,
                [&] { kernels::squared_distances(ctx, view(x, shape), view(d2, square), 0.0); });
    return dot(d2, coefficients);
  };
  loss();
  for (std::int64_t i = 0; i < batch; ++i)
    for (std::int64_t j = 0; j < batch; ++j) {
      double d = 0;
      for (std::int64_t k = 0; k < dim; ++k) {
        const double e =
            x[static_cast<std::size_t>(i * dim + k)] - x[static_cast<std::size_t>(j * dim + k)];
        d += e * e;
      }
      CHECK(d2[static_cast<std::size_t>(i * batch + j)] == Approx(d).margin(1e-12));
    }
  auto dx = random_values<double>(shape.size(), 3);
  const auto before = dx;
  run_planned(ctx, [&] {
    kernels::pairwise_backward(ctx, view(coefficients, square), view(x, shape), view(dx, shape));
  });
  for (std::size_t i = 0; i < dx.size(); ++i) dx[i] -= before[i];
  CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
}

TEST_CASE("pairwise: gram matrix and its gradient") {
  const Shape shape{6, 4}, square{6, 6};
  auto x = random_values<double>(shape.size(), 1);
  const auto coefficients = random_values<double>(square.size(), 2);
  auto g = poisoned<double>(square.size());
  cpu::Context ctx(2);
  auto loss = [&] {
    run_planned(ctx, [&] { kernels::gram_matrix(ctx, view(x, shape), view(g, square)); });
    return dot(g, coefficients);
  };
  std::vector<double> dx(x.size(), 0.0);
  run_planned(ctx, [&] {
    kernels::gram_matrix_backward(ctx, view(coefficients, square), view(x, shape), view(dx, shape));
  });
  CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
}

TEST_CASE("pairwise: equal rows are clipped at the floor, NaN stays visible") {
  cpu::Context ctx(1);
  const Shape shape{3, 2}, square{3, 3};
  std::vector<float> x{1e3f, 1, 1e3f, 1, std::numeric_limits<float>::quiet_NaN(), 0}, d2(9);
  run_planned(ctx, [&] { kernels::squared_distances(ctx, view(x, shape), view(d2, square)); });
  CHECK(d2[0] == 1e-12f);
  CHECK(d2[1] == 1e-12f);
  CHECK(std::isnan(d2[2]));
}

TEST_CASE("pairwise: a wrong shape is named") {
  cpu::Context ctx(1);
  std::vector<float> x(6), d2(6);
  CHECK_THROWS_WITH(kernels::squared_distances(ctx, view(x, {3, 2}), view(d2, {3, 2})),
                    ContainsSubstring("d2: expected [3, 3], got [3, 2]"));
}
