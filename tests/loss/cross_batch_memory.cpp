// Cross-batch memory: numbers of pytorch-metric-learning and PaddleClas over several batches,
// gradients, the state across a copy, and sizes that do not fit.

#include <cmath>

#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/cross_batch_memory.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/triplet_margin_loss.hpp>

#include "support/loss_parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class Loss>
using Memory = loss::CrossBatchMemory<Loss>;

/// Batch number `step` of a fixture with batches of 4 rows.
LossCase<double> batch_of(const Fixture& one, std::size_t step) {
  const auto all = one.stored<double>("in.features");
  const auto labels = one.labels();
  const std::size_t size = 4 * all.size() / labels.size();
  const auto x = all.begin() + static_cast<std::ptrdiff_t>(step * size);
  const auto y = labels.begin() + static_cast<std::ptrdiff_t>(step * 4);
  return {
      static_cast<std::int64_t>(size / 4), {x, x + static_cast<std::ptrdiff_t>(size)}, {y, y + 4}};
}
std::vector<double> gradient_of(const Fixture& one, std::size_t step, std::size_t size) {
  const auto all = one.stored<double>("grad.features");
  const auto at = all.begin() + static_cast<std::ptrdiff_t>(step * size);
  return {at, at + static_cast<std::ptrdiff_t>(size)};
}

template <class Loss>
void check_memory(const char* name, const typename Loss::Config& config) {
  INFO(name);
  const Fixture one = Fixture("pml_memory", "pytorch-metric-learning").at(name);
  const auto expected = one.stored<double>("out.loss");
  REQUIRE(expected.size() == 5);
  LossBench<Memory<Loss>, double> bench({.memory_size = 10, .embedding_size = 6, .loss = config});
  for (std::size_t step = 0; step < 5; ++step) {
    INFO("step " << step);
    const auto c = batch_of(one, step);
    CHECK(bench(c) == Approx(expected[step]).epsilon(1e-9).margin(1e-12));
    const auto gradient = gradient_of(one, step, c.features.size());
    for (std::size_t k = 0; k < gradient.size(); ++k)
      CHECK(bench.dfeatures[k] == Approx(gradient[k]).epsilon(1e-9).margin(1e-12));
  }
}

}  // namespace

TEST_CASE("cross-batch memory: numbers of pytorch-metric-learning over five batches") {
  check_memory<loss::MultiSimilarityLoss>("MultiSimilarityLoss",
                                          {.alpha = 2, .beta = 10, .base = 0.4});
  check_memory<loss::TripletMarginLoss>("TripletMarginLoss", {.margin = 0.3});
  check_memory<loss::CircleLoss>("CircleLoss", {.m = 0.25, .gamma = 8});
}

TEST_CASE("cross-batch memory: ContrastiveLoss_XBM of PaddleClas is a sum of two losses") {
  const Fixture one("contrastive_loss_xbm");
  const auto expected = one.stored<double>("out.loss");
  REQUIRE(expected.size() == 6);
  const loss::ContrastiveLoss::Config config{.margin = one.attribute("margin")};
  LossBench<loss::ContrastiveLoss, double> alone(config);
  LossBench<Memory<loss::ContrastiveLoss>, double> memory(
      {.memory_size = 16, .embedding_size = 5, .start_iter = 2, .loss = config});
  const double weight = one.attribute("xbm_weight");
  for (std::size_t step = 0; step < 6; ++step) {
    INFO("step " << step);
    const auto c = batch_of(one, step);
    CHECK(alone(c) + weight * memory(c) == Approx(expected[step]).epsilon(1e-9));
    CHECK((memory.report[0] > 0) == (step >= 2));
    std::vector<double> sum = alone.dfeatures;
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += weight * memory.dfeatures[k];
    CHECK(relative_difference(sum, gradient_of(one, step, sum.size())) < 1e-9);
  }
}

namespace {

template <class Loss>
double memory_gradient_error(const typename Loss::Config& config) {
  LossBench<Memory<Loss>, double> bench({.memory_size = 12, .embedding_size = 5, .loss = config});
  bench(mixed_batch(31));
  const auto before = bench.statistics;
  // Of a single row: the rest of the memory is a constant, and its own copy is not compared.
  LossCase<double> c{.dim = 5, .features = random_values<double>(5, 32), .labels = {7}};
  bench(c, 0.25);
  REQUIRE(bench.active() > 0);
  const auto got = bench.dfeatures;
  auto wanted = central_differences(c.features, [&] {
    bench.statistics = before;
    return bench(c);
  });
  for (double& d : wanted) d = 0.25 + config.weight * d;
  return difference(got, wanted);
}

}  // namespace

TEST_CASE("cross-batch memory: gradients against central differences") {
  CHECK(memory_gradient_error<loss::MultiSimilarityLoss>({.weight = 0.6, .beta = 5}) < 1e-6);
  CHECK(memory_gradient_error<loss::TripletMarginLoss>({.weight = 0.6, .margin = 0.9}) < 1e-6);
  CHECK(memory_gradient_error<loss::ContrastiveLoss>({.weight = 0.6, .margin = -0.5}) < 1e-6);
}

TEST_CASE("cross-batch memory: its buffers are its whole state, for any number of threads") {
  using M = Memory<loss::MultiSimilarityLoss>;
  const M::Config config{.memory_size = 15, .embedding_size = 5};
  LossBench<M, float> whole(config, 1), resumed(config, 2);
  const auto batch = [](std::uint64_t step) {
    return LossCase<float>{.dim = 5,
                           .features = random_values<float>(4 * 5, 40 + step),
                           .labels = {1, 2, static_cast<std::int64_t>(step % 3), 1}};
  };
  for (std::uint64_t step = 0; step < 3; ++step) whole(batch(step));
  resumed.statistics = whole.statistics;
  for (std::uint64_t step = 3; step < 8; ++step) {
    CHECK(whole(batch(step)) == resumed(batch(step)));
    CHECK(whole.dfeatures == resumed.dfeatures);
  }
  CHECK(whole.statistics == resumed.statistics);
}

TEST_CASE("cross-batch memory: sizes that do not fit are refused") {
  using M = Memory<loss::MultiSimilarityLoss>;
  const auto refused = [](const M::Config& config) {
    ParameterTable table;
    const M memory(config, Scope(table));
  };
  CHECK_THROWS_AS(refused({.memory_size = 0, .embedding_size = 5}), ConfigError);
  CHECK_THROWS_AS(refused({.memory_size = 4}), ConfigError);
  CHECK_THROWS_AS(refused({.embedding_size = 5, .start_iter = -1}), ConfigError);
  LossBench<M, float> small({.memory_size = 2, .embedding_size = 5});
  LossCase<float> c{.dim = 5, .features = random_values<float>(15, 1), .labels = {1, 1, 2}};
  CHECK_THROWS_WITH(small(c), ContainsSubstring("a batch of 3 rows, but memory_size is 2"));
  LossBench<M, float> narrow({.memory_size = 8, .embedding_size = 4});
  CHECK_THROWS_AS(narrow(c), ShapeError);
}
