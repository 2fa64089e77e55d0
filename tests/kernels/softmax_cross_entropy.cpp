#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/kernels/softmax_cross_entropy.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class T>
T cross_entropy(cpu::Context& ctx, const std::vector<T>& logits, const Shape& shape,
                const std::vector<std::int64_t>& labels, T epsilon, T weight, View<T> dlogits) {
  auto loss = poisoned<T>(1);
  run_planned(ctx, [&] {
    kernels::softmax_cross_entropy(ctx, view(logits, shape), labels.data(), epsilon, weight,
                                   view(loss, {1}), dlogits);
  });
  return loss[0];
}

}  // namespace

TEST_CASE("softmax cross-entropy: the gradient is the derivative of the loss, times the weight") {
  cpu::Context ctx(2);
  for (const std::int64_t classes : {1, 2, 9, 35})
    for (const double epsilon : {0.0, 0.1}) {
      const Shape shape{4, classes};
      auto z = random_values<double>(shape.size(), 1, 3);
      const std::vector<std::int64_t> labels{0, classes - 1, classes / 2, 0};
      const double weight = 0.7;
      auto dz = random_values<double>(shape.size(), 2);
      const auto before = dz;
      auto loss = [&] { return cross_entropy(ctx, z, shape, labels, epsilon, weight, {}); };
      CHECK(cross_entropy(ctx, z, shape, labels, epsilon, weight, view(dz, shape)) == loss());
      for (std::size_t i = 0; i < dz.size(); ++i) dz[i] = (dz[i] - before[i]) / weight;
      CHECK(difference(dz, central_differences(z, loss)) < 1e-6);
    }
}

TEST_CASE("softmax cross-entropy: known values") {
  cpu::Context ctx(1);
  const double e = std::exp(1.0);
  CHECK(cross_entropy<double>(ctx, {1, 0, 0, 0}, {2, 2}, {0, 1}, 0, 1, {}) ==
        Approx((std::log((e + 1) / e) + std::log(2.0)) / 2));
  // Smoothed target of K = 4, epsilon = 0.2: 0.85 and 0.05.
  CHECK(cross_entropy<double>(ctx, {1, 0, 0, 0}, {1, 4}, {0}, 0.2, 1, {}) ==
        Approx(std::log(e + 3) - 0.85));
}

TEST_CASE("softmax cross-entropy: logits of +-1e4 give finite results, NaN stays visible") {
  cpu::Context ctx(1);
  const Shape shape{2, 20};
  std::vector<float> z(40, -1e4f), dz(40, 0.f);
  z[3] = 1e4f;
  z[25] = 1e4f;
  const float loss = cross_entropy<float>(ctx, z, shape, {3, 6}, 0, 1, view(dz, shape));
  CHECK(loss == Approx(1e4f));
  for (const float v : dz) CHECK(std::isfinite(v));
  CHECK(dz[25] == Approx(0.5f));
  CHECK(dz[26] == Approx(-0.5f));
  CHECK(dz[3] == 0);
  z[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(cross_entropy<float>(ctx, z, shape, {3, 6}, 0, 1, {})));
}

TEST_CASE("softmax cross-entropy: the same bits for 1 and 2 threads") {
  const Shape shape{33, 1001};
  const auto z = random_values<float>(shape.size(), 1, 5);
  std::vector<std::int64_t> labels;
  for (std::int64_t b = 0; b < 33; ++b) labels.push_back(b * 30);
  std::vector<float> dz[2];
  float loss[2];
  for (std::size_t t = 0; t < 2; ++t) {
    cpu::Context ctx(static_cast<int>(t) + 1);
    dz[t].assign(z.size(), 0.f);
    loss[t] = cross_entropy<float>(ctx, z, shape, labels, 0.1f, 1, view(dz[t], shape));
  }
  CHECK(loss[0] == loss[1]);
  CHECK(dz[0] == dz[1]);
}

TEST_CASE("softmax cross-entropy: labels out of range and an empty batch are refused") {
  cpu::Context ctx(1);
  const std::vector<float> z(6);
  CHECK_THROWS_WITH(cross_entropy<float>(ctx, z, {2, 3}, {0, 3}, 0, 1, {}),
                    ContainsSubstring("label 3 of row 1 is not in [0, 3)"));
  cpu::Context other(1);
  CHECK_THROWS_AS(cross_entropy<float>(other, z, {2, 3}, {-1, 0}, 0, 1, {}), DataError);
  cpu::Context third(1);
  CHECK_THROWS_AS(cross_entropy<float>(third, {}, {0, 3}, {}, 0, 1, {}), ShapeError);
}
