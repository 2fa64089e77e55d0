#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/optimizer.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("optimizer: momentum follows Paddle's rule") {
  const std::int64_t n = 37;
  const Shape shape{n};
  const double lr = 0.1, mu = 0.9, l2 = 0.01;
  cpu::Context ctx(2);
  for (const bool nesterov : {false, true}) {
    auto p = random_values<double>(n, 1), v = random_values<double>(n, 2);
    const auto g = random_values<double>(n, 3), p0 = p, v0 = v;
    kernels::apply_rule(ctx, MomentumRule<double>{lr, mu, l2, nesterov}, view(p, shape),
                        view(g, shape), {view(v, shape)});
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double decayed = g[i] + l2 * p0[i], velocity = mu * v0[i] + decayed;
      CHECK(v[i] == Approx(velocity));
      CHECK(p[i] == Approx(p0[i] - lr * (nesterov ? decayed + mu * velocity : velocity)));
    }
  }
}

TEST_CASE("optimizer: AdamW follows Paddle's rule over three steps") {
  const std::int64_t n = 21;
  const Shape shape{n};
  const double lr = 0.01, b1 = 0.9, b2 = 0.999, eps = 1e-8, decay = 0.05;
  cpu::Context ctx(2);
  auto p = random_values<double>(n, 1);
  std::vector<double> m(21), v(21), q = p, mm(21), vv(21);
  for (int step = 1; step <= 3; ++step) {
    const auto g = random_values<double>(n, static_cast<std::uint64_t>(10 + step));
    kernels::apply_rule(ctx, AdamWRule<double>(lr, b1, b2, eps, decay, step), view(p, shape),
                        view(g, shape), {view(m, shape), view(v, shape)});
    const double c1 = 1 - std::pow(b1, step), c2 = std::sqrt(1 - std::pow(b2, step));
    for (std::size_t i = 0; i < q.size(); ++i) {
      q[i] *= 1 - lr * decay;
      mm[i] = b1 * mm[i] + (1 - b1) * g[i];
      vv[i] = b2 * vv[i] + (1 - b2) * g[i] * g[i];
      q[i] -= lr * c2 / c1 * mm[i] / (std::sqrt(vv[i]) + eps * c2);
      CHECK(p[i] == Approx(q[i]));
    }
  }
  CHECK_THROWS_WITH(AdamWRule<double>(lr, b1, b2, eps, decay, 0),
                    ContainsSubstring("steps count from 1, got 0"));
}

TEST_CASE("optimizer: arrays of other shapes are named") {
  cpu::Context ctx(1);
  std::vector<double> p(5), g(4), v(3);
  const MomentumRule<double> rule{0.1, 0.9, 0, false};
  CHECK_THROWS_WITH(kernels::apply_rule(ctx, rule, view(p, {5}), view(g, {4}), {view(v, {3})}),
                    ContainsSubstring("Momentum: gradient: expected [5], got [4]"));
  CHECK_THROWS_WITH(kernels::apply_rule(ctx, rule, view(p, {5}), view(p, {5}), {view(v, {3})}),
                    ContainsSubstring("Momentum: moment 0: expected [5], got [3]"));
}

namespace {

/// Three steps of a rule on n elements, whole or cut at odd places.
template <class Rule>
std::vector<float> three_steps(const Rule& rule, const std::vector<std::int64_t>& cuts) {
  const std::int64_t n = cuts.back();
  auto p = random_values<float>(n, 1), all = p;
  const auto g = random_values<float>(n, 2);
  std::array<std::vector<float>, 3> state;
  for (auto& s : state) s.assign(static_cast<std::size_t>(n), 0.f);
  cpu::Context ctx(2);
  for (int step = 0; step < 3; ++step)
    for (std::size_t i = 1; i < cuts.size(); ++i) {
      const Shape part{cuts[i] - cuts[i - 1]};
      std::array<View<float>, Rule::moments> moments;
      for (std::size_t k = 0; k < Rule::moments; ++k)
        moments[k] = {state[k].data() + cuts[i - 1], part};
      kernels::apply_rule(ctx, rule, View<float>{p.data() + cuts[i - 1], part},
                          View<const float>{g.data() + cuts[i - 1], part}, moments);
    }
  CHECK(p != all);
  for (const auto& s : state) p.insert(p.end(), s.begin(), s.end());
  return p;
}

}  // namespace

TEST_CASE("optimizer: an element has the same bits wherever a range begins and ends") {
  const auto check = [](const auto& rule) {
    INFO(rule.name);
    CHECK(three_steps(rule, {0, 5, 37, 38, 70001, 70003}) == three_steps(rule, {0, 70003}));
  };
  check(SgdRule<float>{0.1f, 0.01f});
  check(MomentumRule<float>{0.1f, 0.9f, 0.01f, false});
  check(MomentumRule<float>{0.1f, 0.9f, 0.01f, true});
  check(AdamRule<float>(0.1f, 0.9f, 0.999f, 1e-8f, 0.01f, 3));
  check(AdamWRule<float>(0.1f, 0.9f, 0.999f, 1e-8f, 0.01f, 3));
  check(RmspropRule<float>{0.1f, 0.95f, 0.9f, 1e-6f, 0.01f});
  check(CenteredRmspropRule<float>{0.1f, 0.95f, 0.9f, 1e-2f, 0.01f});
}

TEST_CASE("optimizer: finiteness and sum of squares") {
  auto finite = [](std::vector<float>& x) {
    cpu::Context ctx(2);
    float result = -1;
    run_planned(ctx, [&] {
      kernels::all_finite(ctx, view(x, {static_cast<std::int64_t>(x.size())}),
                          View<float>{&result, {1}});
    });
    return result;
  };
  auto x = random_values<float>(100003, 1);
  CHECK(finite(x) == 1);
  for (const std::size_t at : {std::size_t{0}, std::size_t{50000}, x.size() - 1})
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      auto y = x;
      y[at] = bad;
      CHECK(finite(y) == 0);
    }
  std::vector<float> large(100, std::numeric_limits<float>::max()), empty;
  CHECK(finite(large) == 1);
  CHECK(finite(empty) == 1);

  float sums[2];
  double expected = 0;
  for (const float v : x) expected += static_cast<double>(v) * v;
  for (int t = 0; t < 2; ++t) {
    cpu::Context ctx(t + 1);
    run_planned(ctx, [&] {
      kernels::sum_of_squares(ctx, view(x, {100003}), View<float>{&sums[t], {1}});
    });
  }
  CHECK(sums[0] == Approx(expected).epsilon(1e-6));
  CHECK(sums[0] == sums[1]);
}
