// The losses with proxies, of codes and of whole batches, CPU against CUDA: values and gradients.

#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/dch_loss.hpp>
#include <kindred/loss/dpsh_loss.hpp>
#include <kindred/loss/dshsd_loss.hpp>
#include <kindred/loss/fast_ap_loss.hpp>
#include <kindred/loss/intra_pair_variance_loss.hpp>
#include <kindred/loss/lcdsh_loss.hpp>
#include <kindred/loss/proxy_anchor_loss.hpp>
#include <kindred/loss/proxy_nca_loss.hpp>
#include <kindred/loss/ranked_list_loss.hpp>
#include <kindred/loss/snr_contrastive_loss.hpp>
#include <kindred/loss/soft_triple_loss.hpp>
#include <kindred/loss/vicreg_loss.hpp>

#include "cuda/loss_side.hpp"

using namespace kindred;
using test::compare_loss;
using test::loss_classes;
using test::loss_dim;
using test::random_values;

namespace {

KINDRED_PARITY(losses_on_the_batch) {
  compare_loss<loss::CELoss, T>(side, {.weight = 0.7, .epsilon = 0.1});
  compare_loss<loss::FastAPLoss, T>(side, {.weight = 0.7, .num_bins = 6});
  compare_loss<loss::RankedListLoss, T>(
      side, {.weight = 0.7, .margin = 0.7, .Tn = 3, .imbalance = 0.3, .Tp = 1.5});
  compare_loss<loss::IntraPairVarianceLoss, T>(side,
                                               {.weight = 0.7, .pos_eps = 0.1, .neg_eps = 0.2});
  compare_loss<loss::SignalToNoiseRatioContrastiveLoss, T>(
      side, {.weight = 0.7, .pos_margin = 0.3, .neg_margin = 2.1});
  compare_loss<loss::VICRegLoss, T>(side,
                                    {.weight = 0.7, .invariance_lambda = 3, .covariance_v = 4});
}

KINDRED_PARITY(losses_of_codes) {
  compare_loss<loss::DSHSDLoss, T>(side, {.weight = 0.7, .alpha = 0.3});
  compare_loss<loss::LCDSHLoss, T>(side, {.weight = 0.7});
  compare_loss<loss::DCHLoss, T>(side, {.weight = 0.7, .gamma = 2, .lambda = 0.4});
  compare_loss<loss::DPSHLoss, T>(side, {.weight = 0.7, .eta = 0.6});
}

constexpr loss::CenterLoss::Config center{
    .weight = 0.7, .num_classes = loss_classes, .feat_dim = loss_dim};
constexpr loss::ProxyNCALoss::Config proxy_nca{
    .weight = 0.7, .num_classes = loss_classes, .embedding_size = loss_dim, .softmax_scale = 3};
constexpr loss::ProxyAnchorLoss::Config proxy_anchor{.weight = 0.7,
                                                     .num_classes = loss_classes,
                                                     .embedding_size = loss_dim,
                                                     .margin = 0.2,
                                                     .alpha = 4};
constexpr loss::SoftTripleLoss::Config soft_triple{.weight = 0.7,
                                                   .num_classes = loss_classes,
                                                   .embedding_size = loss_dim,
                                                   .centers_per_class = 3,
                                                   .la = 5,
                                                   .gamma = 0.4,
                                                   .margin = 0.3};

KINDRED_PARITY(losses_with_proxies) {
  compare_loss<loss::CenterLoss, T>(side, center);
  compare_loss<loss::ProxyNCALoss, T>(side, proxy_nca);
  compare_loss<loss::ProxyAnchorLoss, T>(side, proxy_anchor);
  compare_loss<loss::SoftTripleLoss, T>(side, soft_triple);
}

/// A label beyond the classes is reported, and nothing is read or written out of bounds before.
template <class Loss, class T>
void check_bad_label(test::Side& side, const typename Loss::Config& config) {
  for (const std::int64_t bad : {std::int64_t{-1}, loss_classes, std::int64_t{1} << 60})
    side.template check_throws<DataError>(
        [&] {
          test::run_loss<T, Loss>(side, "bad label", config, random_values<T>(3 * loss_dim, 9),
                                  {0, bad, 1}, 0);
        },
        "class_num");
}

KINDRED_PARITY(bad_labels) {
  check_bad_label<loss::CenterLoss, T>(side, center);
  check_bad_label<loss::ProxyNCALoss, T>(side, proxy_nca);
  check_bad_label<loss::ProxyAnchorLoss, T>(side, proxy_anchor);
  check_bad_label<loss::SoftTripleLoss, T>(side, soft_triple);
}

}  // namespace
