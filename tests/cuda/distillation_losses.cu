// The losses between a model and its teacher, CPU against CUDA: values and gradients.

#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/distance_loss.hpp>
#include <kindred/loss/dkd_loss.hpp>
#include <kindred/loss/dml_loss.hpp>
#include <kindred/loss/kl_div_loss.hpp>
#include <kindred/loss/rkd_loss.hpp>

#include "cuda/loss_side.hpp"

using namespace kindred;
using loss::DistillationKey;
using test::compare_loss;

namespace {

KINDRED_PARITY(distillation_of_logits) {
  compare_loss<loss::KLDivLoss, T>(side, {.weight = 0.7, .temperature = 3});
  compare_loss<loss::DMLLoss, T>(side, {.weight = 0.7});
  compare_loss<loss::DMLLoss, T>(side, {.weight = 0.7,
                                        .act = loss::DMLActivation::sigmoid,
                                        .sum_across_class_dim = true,
                                        .eps = 1e-3});
  compare_loss<loss::DKDLoss, T>(side,
                                 {.weight = 0.7, .temperature = 3, .alpha = 0.6, .beta = 1.7});
  compare_loss<loss::DKDLoss, T>(side, {.weight = 0.7, .beta = 2, .use_target_as_gt = true});
  compare_loss<loss::CELoss, T>(side, {.weight = 0.7, .target = loss::CETarget::teacher});
  compare_loss<loss::CELoss, T>(
      side, {.weight = 0.7, .epsilon = 0.1, .target = loss::CETarget::distribution});
}

KINDRED_PARITY(distillation_of_features) {
  using loss::DistanceMode;
  for (const auto mode : {DistanceMode::l2, DistanceMode::l1, DistanceMode::smooth_l1})
    compare_loss<loss::DistanceLoss, T>(side, {.weight = 0.7, .mode = mode});
  compare_loss<loss::KLDivLoss, T>(side, {.weight = 0.7, .key = DistillationKey::features});
}

/// Apart from the others, for it takes B^3 time: random rows, two of them equal where there are
/// two.
KINDRED_PARITY(distillation_of_relations) {
  for (const std::int64_t batch : {1, 9, 33}) {
    auto x = test::random_values<T>(batch * test::loss_dim, 6);
    if (batch > 1) std::copy_n(x.begin(), test::loss_dim, x.end() - test::loss_dim);
    test::run_loss<T, loss::RKDLoss>(
        side, text("RKDLoss, ", batch, " rows:"), {.weight = 0.7, .distance = 1.3, .angle = 0.8}, x,
        test::random_labels(batch, 3, 7), test::Side::tolerance<T>(1e-4));
  }
}

/// A label that is no class is reported before it is an address.
KINDRED_PARITY(bad_label_of_dkd) {
  for (const std::int64_t bad : {std::int64_t{-1}, test::loss_classes, std::int64_t{1} << 60})
    side.template check_throws<DataError>(
        [&] {
          test::run_loss<T, loss::DKDLoss>(
              side, "bad label", {}, test::random_values<T>(3 * test::loss_dim, 9), {0, bad, 1}, 0);
        },
        "class_num");
}

}  // namespace
