// CircleLoss against its definition: the weights of the pairs are constants to the gradient.

#include <algorithm>
#include <cmath>
#include <vector>

#include <kindred/loss/circle_loss.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

constexpr double margin = 0.3, factor = 6;

/// Cosines of all pairs.
std::vector<double> cosines(const LossCase<double>& c) {
  const auto dot = [&](std::int64_t i, std::int64_t j) {
    double sum = 0;
    for (std::int64_t d = 0; d < c.dim; ++d)
      sum += c.features[static_cast<std::size_t>(i * c.dim + d)] *
             c.features[static_cast<std::size_t>(j * c.dim + d)];
    return sum;
  };
  std::vector<double> s;
  for (std::int64_t i = 0; i < c.batch(); ++i)
    for (std::int64_t j = 0; j < c.batch(); ++j)
      s.push_back(dot(i, j) / std::sqrt(dot(i, i) * dot(j, j)));
  return s;
}

/// The loss with weights from the cosines `fixed`.
double definition(const LossCase<double>& c, const std::vector<double>& fixed) {
  const std::vector<double> s = cosines(c);
  const auto batch = c.labels.size();
  double sum = 0, rows = 0;
  for (std::size_t i = 0; i < batch; ++i) {
    double pull = 0, push = 0;
    for (std::size_t j = 0; j < batch; ++j) {
      const double own = s[i * batch + j], constant = fixed[i * batch + j];
      if (c.labels[i] != c.labels[j])
        push += std::exp(factor * std::max(0.0, constant + margin) * (own - margin));
      else if (i != j)
        pull += std::exp(-factor * std::max(0.0, 1 + margin - constant) * (own - 1 + margin));
    }
    if (pull == 0 || push == 0) continue;
    sum += std::log(1 + push * pull);
    ++rows;
  }
  return sum / rows;
}

}  // namespace

TEST_CASE("CircleLoss follows its definition, its weights constant to the gradient") {
  LossBench<loss::CircleLoss, double> bench({.weight = 0.7, .m = margin, .gamma = factor});
  for (LossCase<double> c : {mixed_batch(1), grouped_batch(2, 2, 0.3)}) {
    const std::vector<double> fixed = cosines(c);
    CHECK(bench(c, 0.25) == Approx(definition(c, fixed)).epsilon(1e-12));
    auto wanted = central_differences(c.features, [&] { return definition(c, fixed); });
    for (double& d : wanted) d = 0.25 + 0.7 * d;
    CHECK(difference(bench.dfeatures, wanted) < 1e-6);
  }
}
