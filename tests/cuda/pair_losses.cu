// The losses on pairs, CPU against CUDA: values and gradients.

#include <kindred/loss/angular_loss.hpp>
#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/eml_loss.hpp>
#include <kindred/loss/lifted_structure_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/msm_loss.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/npairs_loss.hpp>
#include <kindred/loss/nt_xent_loss.hpp>
#include <kindred/loss/pairwise_cosface.hpp>
#include <kindred/loss/sup_con_loss.hpp>
#include <kindred/loss/tri_hard_loss.hpp>
#include <kindred/loss/triplet_angular_margin_loss.hpp>
#include <kindred/loss/triplet_loss.hpp>
#include <kindred/loss/triplet_loss_v2.hpp>

#include "cuda/loss_side.hpp"

using namespace kindred;
using test::compare_loss;

namespace {

KINDRED_PARITY(pair_losses) {
  compare_loss<loss::TripletLoss, T>(side, {.weight = 0.7, .margin = 3});
  compare_loss<loss::TripletLossV2, T>(side, {.weight = 0.7});
  compare_loss<loss::TriHardLoss, T>(side, {.weight = 0.7, .margin = 1.3});
  compare_loss<loss::MSMLoss, T>(side, {.weight = 0.7, .margin = 0.4});
  compare_loss<loss::EmlLoss, T>(side, {.weight = 0.7});
  compare_loss<loss::NpairsLoss, T>(side, {.weight = 0.7, .reg_lambda = 0.3});
  compare_loss<loss::ContrastiveLoss, T>(side, {.weight = 0.7, .margin = 0.1});
  compare_loss<loss::MultiSimilarityLoss, T>(side,
                                             {.weight = 0.7, .alpha = 3, .beta = 9, .base = 0.4});
  compare_loss<loss::SupConLoss, T>(side,
                                    {.weight = 0.7, .temperature = 0.2, .base_temperature = 0.1});
}

KINDRED_PARITY(more_pair_losses) {
  compare_loss<loss::CircleLoss, T>(side, {.weight = 0.7});
  compare_loss<loss::NTXentLoss, T>(side, {.weight = 0.7, .temperature = 0.3});
  compare_loss<loss::PairwiseCosface, T>(side, {.weight = 0.7, .margin = 0.2, .gamma = 5});
  compare_loss<loss::LiftedStructureLoss, T>(side,
                                             {.weight = 0.7, .neg_margin = 1.2, .pos_margin = 0.1});
  compare_loss<loss::AngularLoss, T>(side, {.weight = 0.7, .alpha = 35});
  compare_loss<loss::MarginLoss, T>(side, {.weight = 0.7, .margin = 0.31, .beta = 1.1});
  compare_loss<loss::MarginLoss, T>(
      side, {.weight = 0.7, .margin = 0.31, .beta = 1.1, .learn_beta = true});
  compare_loss<loss::TripletAngularMarginLoss, T>(
      side, {.weight = 0.7, .margin = 0.9, .add_absolute = true});
}

}  // namespace
