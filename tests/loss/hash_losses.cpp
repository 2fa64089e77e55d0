// The derivatives of the deep hashing losses, and their degenerate batches.

#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/dch_loss.hpp>
#include <kindred/loss/dpsh_loss.hpp>
#include <kindred/loss/dshsd_loss.hpp>
#include <kindred/loss/lcdsh_loss.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

LossCase<double> with_logits(LossCase<double> c) {
  c.logits = random_values<double>(c.batch() * 10, 8);
  return c;
}

template <class F>
void for_each_loss(F&& f) {
  f(loss::DSHSDLoss::Config{.weight = 0.7, .alpha = 0.3}, static_cast<loss::DSHSDLoss*>(nullptr));
  f(loss::LCDSHLoss::Config{.weight = 0.7}, static_cast<loss::LCDSHLoss*>(nullptr));
  f(loss::DCHLoss::Config{.weight = 0.7, .gamma = 2, .lambda = 0.4},
    static_cast<loss::DCHLoss*>(nullptr));
  f(loss::DPSHLoss::Config{.weight = 0.7, .eta = 0.6}, static_cast<loss::DPSHLoss*>(nullptr));
}

}  // namespace

TEST_CASE("hash losses: the gradient is the derivative") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    for (const double scale : {1.0, 0.4, 3.0}) {
      CHECK(gradient_error<Loss>(config, with_logits(mixed_batch(1, scale))) < 1e-6);
      CHECK(gradient_error<Loss>(config, with_logits(grouped_batch(2, 2, scale))) < 1e-6);
    }
    LossCase<double> one_class = with_logits(mixed_batch(5));
    one_class.labels.assign(9, 3);
    CHECK(gradient_error<Loss>(config, one_class) < 1e-6);
  });
}

TEST_CASE("hash losses: one row, duplicates and zero vectors give finite numbers, a NaN shows") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossBench<Loss, double> bench(config);
    const auto finite = [&](const LossCase<double>& c) {
      CHECK(std::isfinite(bench(c)));
      for (const double d : bench.dfeatures) CHECK(std::isfinite(d));
    };
    finite(with_logits({5, random_values<double>(5, 3), {9}}));
    LossCase<double> c = with_logits(mixed_batch(4));
    std::copy_n(c.features.begin(), 5, c.features.begin() + 10);
    std::fill_n(c.features.begin() + 20, 5, 0.0);
    finite(c);
    for (double& v : c.features) v *= 1e3;  // beyond every clip
    finite(c);
    c.features[7] = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(bench(c)));
  });
}

TEST_CASE("hash losses: the bits do not depend on the number of threads") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossCase<double> c{.dim = 5, .features = random_values<double>(90 * 5, 6), .labels = {}};
    for (std::int64_t i = 0; i < 90; ++i) c.labels.push_back(i * 7 % 10);
    c = with_logits(c);
    LossBench<Loss, double> one(config, 1), three(config, 3);
    CHECK(one(c) == three(c));
    CHECK(one.dfeatures == three.dfeatures);
    CHECK(one.dlogits == three.dlogits);
  });
}
