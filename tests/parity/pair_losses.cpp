// Losses on features against PaddleClas.

#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/dch_loss.hpp>
#include <kindred/loss/dshsd_loss.hpp>
#include <kindred/loss/eml_loss.hpp>
#include <kindred/loss/lcdsh_loss.hpp>
#include <kindred/loss/msm_loss.hpp>
#include <kindred/loss/npairs_loss.hpp>
#include <kindred/loss/pairwise_cosface.hpp>
#include <kindred/loss/sup_con_loss.hpp>
#include <kindred/loss/tri_hard_loss.hpp>
#include <kindred/loss/triplet_angular_margin_loss.hpp>
#include <kindred/loss/triplet_loss.hpp>

#include "support/loss_parity.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("parity: losses on features of PaddleClas") {
  const Fixture f("pair_losses");
  check_cases<loss::TripletLoss, double>(
      f, 2, [](Settings s) { return loss::TripletLoss::Config{.margin = s("margin")}; });
  check_cases<loss::TriHardLoss, double>(
      f, 2, [](Settings s) { return loss::TriHardLoss::Config{.margin = s("margin")}; });
  check_cases<loss::MSMLoss, double>(
      f, 1, [](Settings s) { return loss::MSMLoss::Config{.margin = s("margin")}; });
  check_cases<loss::EmlLoss, double>(
      f, 2, [](Settings) { return loss::EmlLoss::Config{}; }, true);
  check_cases<loss::NpairsLoss, double>(
      f, 2, [](Settings s) { return loss::NpairsLoss::Config{.reg_lambda = s("reg_lambda")}; });
  check_cases<loss::PairwiseCosface, double>(f, 2, [](Settings s) {
    return loss::PairwiseCosface::Config{.margin = s("margin"), .gamma = s("gamma")};
  });
  check_cases<loss::ContrastiveLoss, double>(f, 2, [](Settings s) {
    return loss::ContrastiveLoss::Config{.margin = s("margin"),
                                         .normalize_feature = s.flag("normalize_feature")};
  });
  check_cases<loss::SupConLoss, double>(f, 3, [](Settings s) {
    return loss::SupConLoss::Config{.temperature = s("temperature"),
                                    .base_temperature = s("base_temperature"),
                                    .normalize_feature = s.flag("normalize_feature")};
  });
  check_cases<loss::CenterLoss, double>(f, 1, [](Settings s) {
    return loss::CenterLoss::Config{.num_classes = s.whole("num_classes"),
                                    .feat_dim = s.whole("feat_dim")};
  });
  check_cases<loss::DSHSDLoss, double>(
      f, 1, [](Settings s) { return loss::DSHSDLoss::Config{.alpha = s("alpha")}; });
  check_cases<loss::LCDSHLoss, double>(
      f, 1, [](Settings s) { return loss::LCDSHLoss::Config{.lambda = s("lambda_")}; });
  check_cases<loss::DCHLoss, double>(
      f, 1,
      [](Settings s) { return loss::DCHLoss::Config{.gamma = s("gamma"), .lambda = s("lambda_")}; },
      true);
}

TEST_CASE("parity: TripletAngularMarginLoss but for its constant of idle negatives") {
  std::size_t constants = 0;
  check_cases<loss::TripletAngularMarginLoss, double>(
      Fixture("pair_losses"), 3,
      [](Settings s) {
        return loss::TripletAngularMarginLoss::Config{
            .normalize_feature = s.flag("normalize_feature"),
            .add_absolute = s.flag("add_absolute"),
            .absolute_loss_weight = s("absolute_loss_weight")};
      },
      [&](double got, double expected, const Fixture& one, double limit) {
        if (one.attribute("add_absolute") == 0) {
          CHECK(relative_difference(got, expected) < limit);
          return;
        }
        // PaddleClas adds absolute_loss_weight / B for every row with n_i <= an_value.
        const double batch = static_cast<double>(one.labels().size());
        const double rows = (expected - got) * batch / one.attribute("absolute_loss_weight");
        CHECK(rows > -1e-3);
        CHECK(std::abs(rows - std::round(rows)) < 12 * limit * std::max(1.0, expected));
        constants += rows > 0.5;
      },
      false);
  CHECK(constants > 0);
}
