// AdaMargin against its definition: the margins are constants to the gradient.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <kindred/head/ada_margin.hpp>

#include "support/margin_heads.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("AdaMargin follows its definition, its margins constant to the gradient") {
  constexpr double e = 1e-3, m = 0.4, pi = 3.14159265358979323846;
  constexpr std::int64_t dim = 7;
  for (const double h : {0.333, 5.0}) {  // 5: q is clipped
    DefinitionCheck<head::AdaMargin> check{
        .batch = 9,
        .dim = dim,
        .classes = 6,
        .config = {.embedding_size = dim, .class_num = 6, .m = m, .h = h, .s = 8},
        .scale = 8,
        .logit = {}};
    for (std::size_t d = 0; d < dim; ++d) {  // row 0 lies on its centre, row 1 on the opposite
      check.x[d] = 3 * check.w[static_cast<std::size_t>(check.labels[0]) * dim + d];
      check.x[dim + d] = -2 * check.w[static_cast<std::size_t>(check.labels[1]) * dim + d];
    }
    std::vector<double> q;
    double mean = 0, squares = 0;
    for (std::int64_t i = 0; i < check.batch; ++i) {
      const double* x = &check.x[static_cast<std::size_t>(i * dim)];
      q.push_back(std::sqrt(std::inner_product(x, x + dim, x, 0.0)));
      mean += q.back() / static_cast<double>(check.batch);
    }
    for (const double norm : q) squares += (norm - mean) * (norm - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(check.batch - 1));
    for (double& norm : q) norm = std::clamp(h * (norm - mean) / (deviation + e), -1.0, 1.0);
    check.logit = [=](const CosineOf& z) {
      const double c = std::clamp(z.c, -1 + e, 1 - e);
      if (!z.label) return c;
      return std::cos(std::clamp(std::acos(c) - m * q[z.i], e, pi - e)) - m - m * q[z.i];
    };
    check();
  }
}
