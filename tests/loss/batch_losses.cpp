// The derivatives of the losses that look at all pairs, or at all columns, together.

#include <kindred/loss/fast_ap_loss.hpp>
#include <kindred/loss/intra_pair_variance_loss.hpp>
#include <kindred/loss/ranked_list_loss.hpp>
#include <kindred/loss/snr_contrastive_loss.hpp>
#include <kindred/loss/vicreg_loss.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class F>
void for_each_loss(F&& f) {
  f(loss::FastAPLoss::Config{.weight = 0.7, .num_bins = 6},
    static_cast<loss::FastAPLoss*>(nullptr));
  f(
      loss::RankedListLoss::Config{
          .weight = 0.7, .margin = 0.7, .Tn = 3, .imbalance = 0.3, .Tp = 1.5},
      static_cast<loss::RankedListLoss*>(nullptr));
  f(loss::IntraPairVarianceLoss::Config{.weight = 0.7, .pos_eps = 0.1, .neg_eps = 0.2},
    static_cast<loss::IntraPairVarianceLoss*>(nullptr));
  f(
      loss::SignalToNoiseRatioContrastiveLoss::Config{
          .weight = 0.7, .pos_margin = 0.3, .neg_margin = 2.1},
      static_cast<loss::SignalToNoiseRatioContrastiveLoss*>(nullptr));
  f(loss::VICRegLoss::Config{.weight = 0.7, .invariance_lambda = 3, .covariance_v = 4},
    static_cast<loss::VICRegLoss*>(nullptr));
}

}  // namespace

TEST_CASE("batch losses: the gradient is the derivative") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    for (const double scale : {1.0, 0.4}) {
      CHECK(gradient_error<Loss>(config, mixed_batch(1, scale)) < 1e-6);
      CHECK(gradient_error<Loss>(config, grouped_batch(2, 2, scale)) < 1e-6);
    }
  });
}

TEST_CASE("batch losses: degenerate batches are defined, a NaN shows") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossBench<Loss, double> bench(config);
    const auto finite = [&](const LossCase<double>& c) {
      CHECK(std::isfinite(bench(c)));
      for (const double d : bench.dfeatures) CHECK(std::isfinite(d));
    };
    const auto x = random_values<double>(20, 3);
    finite({5, {x.begin(), x.begin() + 5}, {3}});
    CHECK(bench.active() == 0);
    CHECK(bench.report[0] == 0);
    finite({5, x, {3, 3, 3, 3}});
    finite({5, x, {0, 1, 2, 3}});
    LossCase<double> c = mixed_batch(4);
    std::copy_n(c.features.begin(), 5, c.features.begin() + 10);
    std::copy_n(c.features.begin() + 5, 5, c.features.begin() + 15);
    std::fill_n(c.features.begin() + 20, 5, 0.0);
    finite(c);
    std::fill(c.features.begin(), c.features.end(), 1.0);
    finite(c);
    c.features = random_values<double>(45, 7);
    c.features[7] = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(bench(c)));
  });
}

TEST_CASE("batch losses: known values") {
  // FastAP: all positives nearer than all negatives, in bins of their own.
  const LossCase<double> perfect{2, {1, 0, 1, 0, -1, 0, -1, 0}, {0, 0, 1, 1}};
  LossBench<loss::FastAPLoss, double> fast_ap({});
  CHECK(fast_ap(perfect) == Approx(0).margin(1e-9));
  const LossCase<double> reversed{2, {1, 0, -1, 0, 1, 0, -1, 0}, {0, 0, 1, 1}};
  CHECK(fast_ap(reversed) == Approx(1 - 1.0 / 3));  // the one positive comes third
  // One pair of views: only their distance counts.
  LossBench<loss::VICRegLoss, double> vicreg({});
  CHECK(vicreg({2, {1, 2, 4, 6}, {0, 0}}) == Approx(25 * (9 + 16) / 2.0));
  CHECK(vicreg.active() == 1);
}

TEST_CASE("batch losses: the bits do not depend on the number of threads") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossCase<double> c{.dim = 5, .features = random_values<double>(90 * 5, 6), .labels = {}};
    for (std::int64_t i = 0; i < 90; ++i) c.labels.push_back(i * 7 % 10);
    LossBench<Loss, double> one(config, 1), three(config, 3);
    CHECK(one(c) == three(c));
    CHECK(one.dfeatures == three.dfeatures);
  });
}
