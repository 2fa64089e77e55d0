#include <kindred/loss/mag_regularizer.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("MagRegularizer: the gradient is the derivative, clipped rows have none") {
  const loss::MagRegularizer::Config config{.weight = 3, .l_a = 1.5, .u_a = 2.5};
  CHECK(gradient_error<loss::MagRegularizer>(config, mixed_batch(1)) < 1e-6);
  LossBench<loss::MagRegularizer, double> bench(config);
  const LossCase<double> c{2, {3, 4, 0, 0, 0, 2}, {0, 1, 0}};  // norms 5, 0 and 2
  const auto g = [](double a) { return a / 6.25 + 1 / a; };
  CHECK(bench(c) == Approx((g(2.5) + g(1.5) + g(2)) / 3));
  CHECK(bench.active() == 1);
  for (std::size_t i = 0; i < 5; ++i) CHECK(bench.dfeatures[i] == 0);
  CHECK(bench.dfeatures[5] == Approx(3. / 3 * (1 / 6.25 - 1 / 4.)));
}

TEST_CASE("MagRegularizer: NaN comes through, settings and batches are checked") {
  LossBench<loss::MagRegularizer, float> bench({});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(bench({2, {nan, 1}, {0}})));
  CHECK_THROWS_AS(bench({2, {}, {}}), ShapeError);
  ParameterTable table;
  CHECK_THROWS_WITH(loss::MagRegularizer({.l_a = 4, .u_a = 3}, Scope(table)),
                    ContainsSubstring("MagRegularizer: u_a must be above l_a > 0, got 3 and 4"));
}
