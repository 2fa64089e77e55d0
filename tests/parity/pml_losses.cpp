// Losses on features against pytorch-metric-learning.

#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/loss/angular_loss.hpp>
#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/dpsh_loss.hpp>
#include <kindred/loss/fast_ap_loss.hpp>
#include <kindred/loss/intra_pair_variance_loss.hpp>
#include <kindred/loss/lifted_structure_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/nt_xent_loss.hpp>
#include <kindred/loss/proxy_anchor_loss.hpp>
#include <kindred/loss/proxy_nca_loss.hpp>
#include <kindred/loss/ranked_list_loss.hpp>
#include <kindred/loss/snr_contrastive_loss.hpp>
#include <kindred/loss/soft_triple_loss.hpp>
#include <kindred/loss/vicreg_loss.hpp>

#include "support/loss_parity.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("parity: losses of pytorch-metric-learning") {
  const Fixture f("pml_losses", "pytorch-metric-learning");
  check_cases<loss::MultiSimilarityLoss, double>(f, 2, [](Settings s) {
    return loss::MultiSimilarityLoss::Config{
        .alpha = s("alpha"), .beta = s("beta"), .base = s("base")};
  });
  check_cases<loss::NTXentLoss, double>(
      f, 2, [](Settings s) { return loss::NTXentLoss::Config{.temperature = s("temperature")}; });
  check_cases<loss::CircleLoss, double>(
      f, 2, [](Settings s) { return loss::CircleLoss::Config{.m = s("m"), .gamma = s("gamma")}; });
  check_cases<loss::LiftedStructureLoss, double>(f, 2, [](Settings s) {
    return loss::LiftedStructureLoss::Config{.neg_margin = s("neg_margin"),
                                             .pos_margin = s("pos_margin")};
  });
  check_cases<loss::AngularLoss, double>(
      f, 2, [](Settings s) { return loss::AngularLoss::Config{.alpha = s("alpha")}; });
  check_cases<loss::MarginLoss, double>(f, 2, [](Settings s) {
    return loss::MarginLoss::Config{.margin = s("margin"), .beta = s("beta")};
  });
  check_cases<loss::ProxyAnchorLoss, double>(f, 2, [](Settings s) {
    return loss::ProxyAnchorLoss::Config{
        .num_classes = 6, .embedding_size = 6, .margin = s("margin"), .alpha = s("alpha")};
  });
  check_cases<loss::ProxyNCALoss, double>(f, 2, [](Settings s) {
    return loss::ProxyNCALoss::Config{
        .num_classes = 6, .embedding_size = 6, .softmax_scale = s("softmax_scale")};
  });
  check_cases<loss::SoftTripleLoss, double>(f, 2, [](Settings s) {
    return loss::SoftTripleLoss::Config{.num_classes = 6,
                                        .embedding_size = 6,
                                        .centers_per_class = s.whole("centers_per_class"),
                                        .la = s("la"),
                                        .gamma = s("gamma"),
                                        .margin = s("margin")};
  });
  check_cases<loss::DPSHLoss, double>(
      f, 2, [](Settings s) { return loss::DPSHLoss::Config{.eta = s("eta")}; });
}

TEST_CASE("parity: losses of pytorch-metric-learning on whole batches") {
  const Fixture f("pml_losses", "pytorch-metric-learning");
  check_cases<loss::FastAPLoss, double>(
      f, 2, [](Settings s) { return loss::FastAPLoss::Config{.num_bins = s.whole("num_bins")}; });
  check_cases<loss::RankedListLoss, double>(f, 2, [](Settings s) {
    return loss::RankedListLoss::Config{.margin = s("margin"),
                                        .Tn = s("Tn"),
                                        .imbalance = s("imbalance"),
                                        .alpha = s("alpha"),
                                        .Tp = s("Tp")};
  });
  check_cases<loss::SignalToNoiseRatioContrastiveLoss, double>(f, 2, [](Settings s) {
    return loss::SignalToNoiseRatioContrastiveLoss::Config{.pos_margin = s("pos_margin"),
                                                           .neg_margin = s("neg_margin")};
  });
  check_cases<loss::IntraPairVarianceLoss, double>(f, 2, [](Settings s) {
    return loss::IntraPairVarianceLoss::Config{.pos_eps = s("pos_eps"), .neg_eps = s("neg_eps")};
  });
  check_cases<loss::VICRegLoss, double>(f, 2, [](Settings s) {
    return loss::VICRegLoss::Config{.invariance_lambda = s("invariance_lambda"),
                                    .variance_mu = s("variance_mu"),
                                    .covariance_v = s("covariance_v")};
  });
}
