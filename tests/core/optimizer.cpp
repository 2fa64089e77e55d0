// Optimizers as flat loops: which parameters are treated alike, which are left alone.

#include <kindred/optim/optimizer.hpp>

#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/lr/schedule.hpp>

#include "support/catch.hpp"

using namespace kindred;

namespace {

using K = ParameterKind;

struct Declared {
  ParameterTable table;
  Declared() {
    const Scope root(table);
    const auto zero = Initializer::constant(0);
    root.declare("a", {3}, K::weight, zero);                   // at 0
    root.declare("b", {20}, K::weight, zero);                  // at 16
    root.declare("norm", {5}, K::norm, zero);                  // at 48
    root.declare("mean", {5}, K::buffer, zero);                // not trained
    root.with_lr(0).declare("frozen", {4}, K::weight, zero);   // at 64
    root.declare("c", {4}, K::weight, zero);                   // at 80
    root.with_lr(0.1).declare("slow", {4}, K::weight, zero);   // at 96
    root.with_decay(0.5).declare("bias", {4}, K::bias, zero);  // at 112
  }
};

}  // namespace

TEST_CASE("optim::ranges: neighbours alike are one range, the frozen are in none") {
  const Declared d;
  const auto all = optim::ranges(d.table, 0.2, {K::norm});
  const std::vector<std::vector<double>> expected{
      {0, 36, 1, 0.2}, {48, 53, 1, 0}, {80, 84, 1, 0.2}, {96, 100, 0.1, 0.2}, {112, 116, 1, 0.1}};
  REQUIRE(all.size() == expected.size());
  for (std::size_t i = 0; i < all.size(); ++i)
    CHECK(std::vector<double>{double(all[i].begin), double(all[i].end), all[i].lr, all[i].decay} ==
          expected[i]);
  // Without weight decay the norm joins its neighbours, but nothing joins across the frozen.
  const auto plain = optim::ranges(d.table, 0, {});
  REQUIRE(plain.size() == 4);
  CHECK(plain[0].end == 53);
  CHECK(plain[1].begin == 80);
  // Nor across what another group has.
  const auto some =
      optim::ranges(d.table, 0, {}, [](const ParameterInfo& p) { return p.name != "b"; });
  REQUIRE(some.size() == 5);
  CHECK(some[0].end == 3);
  CHECK(some[1].begin == 48);
}

TEMPLATE_TEST_CASE("optimizers: frozen parameters, their moments and the padding stay", "",
                   optim::SGD, optim::Momentum, optim::Adam, optim::AdamW, optim::RMSProp) {
  const Declared d;
  const auto size = static_cast<std::size_t>(d.table.trainable_size());
  std::vector<double> parameters(size), gradients(size);
  for (const ParameterInfo& p : d.table.entries())
    if (p.kind != K::buffer)
      for (std::int64_t i = 0; i < p.shape.size(); ++i)
        parameters[static_cast<std::size_t>(p.offset + i)] =
            gradients[static_cast<std::size_t>(p.offset + i)] = 1;
  cpu::Context ctx(2);
  const TestType optimizer{.weight_decay = 0.2};
  std::vector<std::vector<double>> moments(optimizer.moments(), std::vector<double>(size));
  const auto all = optim::ranges(d.table, optimizer.weight_decay, optimizer.no_decay);
  for (std::int64_t step = 1; step <= 3; ++step)
    optimizer.update(ctx, std::span<const optim::Range>(all),
                     optim::Update<double>{parameters, gradients, moments, 0.1, step});
  const std::size_t frozen = 64, slow = 96, fast = 80, padding = 3;
  CHECK(parameters[frozen] == 1);
  for (const auto& moment : moments) CHECK(moment[frozen] == 0);
  CHECK(parameters[padding] == 0);
  CHECK(parameters[fast] < 1);
  CHECK(1 - parameters[slow] == Approx((1 - parameters[fast]) / 10).epsilon(0.1));
}

TEST_CASE("lr::Cosine: warmup, peak, end, and lengths that cannot be") {
  const lr::Cosine cosine{.base = 0.4, .eta_min = 0.1, .warmup_epochs = 2, .warmup_start = 0.2};
  const auto at = [&](std::int64_t step) { return cosine.at({step, 10, 12}); };
  CHECK(at(0) == Approx(0.2));
  CHECK(at(10) == Approx(0.3));
  CHECK(at(20) == Approx(0.4));
  CHECK(at(70) == Approx(0.25));
  CHECK(at(120) == Approx(0.1));
  CHECK_THROWS_WITH(cosine.at({0, 10, 2}), ContainsSubstring("must be in [0, epochs) with 2"));
  CHECK_THROWS_AS(lr::Cosine{.warmup_epochs = -1}.at({0, 10, 2}), ConfigError);
  CHECK(lr::Constant{0.3}.at({99, 1, 1}) == 0.3);
}
