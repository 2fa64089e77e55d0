#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/triplet.hpp>
#include <kindred/kernels/pairwise.hpp>
#include <kindred/kernels/triplet.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class T>
struct Triplet {
  std::vector<std::int64_t> labels;
  T margin = T(0.5), weight = T(1);
  std::vector<T> loss = poisoned<T>(1), active = poisoned<T>(1), coefficients = {};

  T operator()(const std::vector<T>& d2) {
    cpu::Context ctx(2);
    const auto batch = static_cast<std::int64_t>(labels.size());
    coefficients = poisoned<T>(batch * batch);
    run_planned(ctx, [&] {
      kernels::batch_hard_triplet(ctx, view(d2, {batch, batch}), labels.data(), margin, weight,
                                  view(loss, {1}), view(active, {1}),
                                  view(coefficients, {batch, batch}));
    });
    return loss[0];
  }
};

std::vector<double> distances(const std::vector<double>& x, std::int64_t batch, std::int64_t dim) {
  cpu::Context ctx(1);
  auto d2 = poisoned<double>(batch * batch);
  run_planned(ctx, [&] {
    kernels::squared_distances(ctx, view(x, {batch, dim}), view(d2, {batch, batch}));
  });
  return d2;
}

}  // namespace

TEST_CASE("triplet: known values") {
  // Points 0, 1 (class 5) and 3, 4.5 (class 9) on a line; margin 0.5:
  // rows: ap 1, 1, 1.5, 1.5; an 3, 2, 2, 3.5 -> hinges of 0, 0, 0, 0; with margin 1.2: 0, .2, .7,
  // 0.
  Triplet<double> triplet{.labels = {5, 5, 9, 9}, .margin = 1.2};
  const auto d2 = distances({0, 1, 3, 4.5}, 4, 1);
  CHECK(triplet(d2) == Approx((0.2 + 0.7) / 4));
  CHECK(triplet.active[0] == 2);
  CHECK(triplet.coefficients[1 * 4 + 0] == Approx(1 / (2.0 * 1) / 4));
  CHECK(triplet.coefficients[1 * 4 + 2] == Approx(-1 / (2.0 * 2) / 4));
  triplet.margin = 0.4;
  CHECK(triplet(d2) == 0);
  CHECK(triplet.active[0] == 0);
  for (const double c : triplet.coefficients) CHECK(c == 0);
}

TEST_CASE("triplet: with pairwise_backward it is the derivative, for any layout of labels") {
  const std::int64_t dim = 4;
  for (const std::vector<std::int64_t>& labels :
       {std::vector<std::int64_t>{1, 1, 2, 2, 3, 3}, {4, 7, 4, 4, 2}, {1, 2, 3}}) {
    const auto batch = static_cast<std::int64_t>(labels.size());
    const Shape shape{batch, dim};
    auto x = random_values<double>(shape.size(), 1);
    Triplet<double> triplet{.labels = labels, .margin = 2.5, .weight = 0.7};
    auto loss = [&] { return triplet(distances(x, batch, dim)); };
    loss();
    CHECK(triplet.active[0] > 0);
    cpu::Context ctx(2);
    std::vector<double> dx(x.size(), 0.0);
    run_planned(ctx, [&] {
      kernels::pairwise_backward(ctx, view(triplet.coefficients, {batch, batch}), view(x, shape),
                                 view(dx, shape));
    });
    for (double& v : dx) v /= 0.7;
    CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
  }
}

TEST_CASE("triplet: degenerate batches are defined") {
  const double floor = 1e-12;
  Triplet<double> one_class{.labels = {3, 3, 3}};
  CHECK(one_class({floor, 4, 9, 4, floor, 1, 9, 1, floor}) == 0);
  CHECK(one_class.active[0] == 0);

  Triplet<double> single{.labels = {3}};
  CHECK(single({floor}) == 0);

  // All features equal: every distance is clipped; the hinge is the margin, the gradient 0.
  Triplet<double> collapsed{.labels = {1, 1, 2, 2}};
  CHECK(collapsed(std::vector<double>(16, floor)) == Approx(0.5));
  CHECK(collapsed.active[0] == 4);
  for (const double c : collapsed.coefficients) CHECK(c == 0);

  // Ties: the first index counts.
  Triplet<double> ties{.labels = {1, 1, 1, 2, 2}, .margin = 5.0};
  std::vector<double> d2(25, 1.0);
  ties(d2);
  CHECK(ties.coefficients[1 * 5 + 0] > 0);
  CHECK(ties.coefficients[1 * 5 + 1] == 0);
  CHECK(ties.coefficients[1 * 5 + 3] < 0);
  CHECK(ties.coefficients[1 * 5 + 4] == 0);

  Triplet<double> nan{.labels = {1, 2}};
  const double q = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(nan({q, q, q, q})));
}
