// The derivatives of the losses that own centres or proxies, and their degenerate batches.

#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/proxy_anchor_loss.hpp>
#include <kindred/loss/proxy_nca_loss.hpp>
#include <kindred/loss/soft_triple_loss.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// For every loss with own proxies of 10 classes and 5 dimensions.
template <class F>
void for_each_loss(F&& f) {
  f(loss::CenterLoss::Config{.weight = 0.7, .num_classes = 10, .feat_dim = 5},
    static_cast<loss::CenterLoss*>(nullptr));
  f(
      loss::ProxyNCALoss::Config{
          .weight = 0.7, .num_classes = 10, .embedding_size = 5, .softmax_scale = 3},
      static_cast<loss::ProxyNCALoss*>(nullptr));
  f(
      loss::ProxyAnchorLoss::Config{
          .weight = 0.7, .num_classes = 10, .embedding_size = 5, .margin = 0.2, .alpha = 4},
      static_cast<loss::ProxyAnchorLoss*>(nullptr));
  f(loss::SoftTripleLoss::Config{.weight = 0.7,
                                 .num_classes = 10,
                                 .embedding_size = 5,
                                 .centers_per_class = 3,
                                 .la = 5,
                                 .gamma = 0.4,
                                 .margin = 0.3},
    static_cast<loss::SoftTripleLoss*>(nullptr));
}

}  // namespace

TEST_CASE("proxy losses: the gradient is the derivative, of the proxies too") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    CHECK(gradient_error<Loss>(config, mixed_batch(1)) < 1e-6);
    CHECK(gradient_error<Loss>(config, grouped_batch(2, 2, 0.3)) < 1e-6);
    const LossCase<double> single{5, random_values<double>(5, 3), {9}};
    CHECK(gradient_error<Loss>(config, single) < 1e-6);
  });
}

TEST_CASE("proxy losses: labels without a proxy and features of another width are refused") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossBench<Loss, double> bench(config);
    LossCase<double> c = mixed_batch(1);
    c.labels[3] = 10;
    CHECK_THROWS_AS(bench(c), DataError);
    c.labels[3] = -1;
    CHECK_THROWS_AS(bench(c), DataError);
    const LossCase<double> wide{6, random_values<double>(12, 3), {0, 1}};
    CHECK_THROWS_AS(bench(wide), ShapeError);
    typename Loss::Config none = config;
    none.num_classes = 0;
    CHECK_THROWS_AS((LossBench<Loss, double>(none)), ConfigError);
  });
}

TEST_CASE("proxy losses: duplicates and zero vectors give finite numbers, a NaN shows") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossCase<double> c = mixed_batch(4);
    std::copy_n(c.features.begin(), 5, c.features.begin() + 10);
    std::fill_n(c.features.begin() + 20, 5, 0.0);
    LossBench<Loss, double> bench(config);
    CHECK(std::isfinite(bench(c)));
    for (const double d : bench.dfeatures) CHECK(std::isfinite(d));
    for (const double d : bench.dparameters) CHECK(std::isfinite(d));
    c.features[7] = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(bench(c)));
  });
}

TEST_CASE("proxy losses: the bits do not depend on the number of threads") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossCase<double> c{.dim = 5, .features = random_values<double>(90 * 5, 6), .labels = {}};
    for (std::int64_t i = 0; i < 90; ++i) c.labels.push_back(i * 7 % 10);
    LossBench<Loss, double> one(config, 1), three(config, 3);
    CHECK(one(c) == three(c));
    CHECK(one.dfeatures == three.dfeatures);
    CHECK(one.dparameters == three.dparameters);
  });
}

TEST_CASE("CenterLoss: a feature on its centre is clipped and has no gradient") {
  LossBench<loss::CenterLoss, double> bench({.num_classes = 2, .feat_dim = 2});
  bench.parameters[0] = 3;
  bench.parameters[1] = 4;
  CHECK(bench({2, {3, 4}, {0}}) == 1e-12);
  CHECK(bench.active() == 0);
  CHECK(bench.dfeatures == std::vector<double>{0, 0});
  CHECK(bench({2, {3, 6}, {0}}) == Approx(4));
  CHECK(bench.active() == 1);
}
