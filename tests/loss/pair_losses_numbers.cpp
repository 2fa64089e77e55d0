// The losses on pairs: duplicates, zero vectors, NaN, and the bits for any number of threads.

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

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// Equal rows and a zero row: finite numbers.
template <class Loss>
void check_finite(const typename Loss::Config& config = {}) {
  INFO(Loss::name());
  LossCase<double> c = mixed_batch(4);
  std::copy_n(c.features.begin(), 5, c.features.begin() + 10);      // 0 and 2: one label
  std::copy_n(c.features.begin() + 5, 5, c.features.begin() + 15);  // 1 and 3: two labels
  std::fill_n(c.features.begin() + 20, 5, 0.0);
  LossBench<Loss, double> bench(config);
  CHECK(std::isfinite(bench(c)));
  for (const double d : bench.dfeatures) CHECK(std::isfinite(d));
}

/// The same bits for one thread and for three, in float.
template <class Loss>
void check_threads(const typename Loss::Config& config = {}) {
  INFO(Loss::name());
  LossCase<float> c{.dim = 16, .features = random_values<float>(60 * 16, 6), .labels = {}};
  for (std::int64_t i = 0; i < 60; ++i) c.labels.push_back(i * 7 % 11);
  LossBench<Loss, float> one(config, 1), three(config, 3);
  CHECK(one(c) == three(c));
  CHECK(one.report == three.report);
  CHECK(one.dfeatures == three.dfeatures);
}

template <class... Losses>
struct List {};
template <class... L, class F>
void for_each(List<L...>, F&& f) {
  (f(static_cast<L*>(nullptr)), ...);
}
using All =
    List<loss::CircleLoss, loss::TripletLoss, loss::TripletLossV2, loss::TriHardLoss, loss::MSMLoss,
         loss::EmlLoss, loss::NpairsLoss, loss::ContrastiveLoss, loss::MultiSimilarityLoss,
         loss::SupConLoss, loss::NTXentLoss, loss::PairwiseCosface, loss::LiftedStructureLoss,
         loss::AngularLoss, loss::MarginLoss, loss::TripletAngularMarginLoss>;

}  // namespace

TEST_CASE("pair losses: duplicates and zero vectors give finite numbers") {
  for_each(All{}, [](auto* loss) { check_finite<std::remove_pointer_t<decltype(loss)>>(); });
}

TEST_CASE("pair losses: the bits do not depend on the number of threads") {
  for_each(All{}, [](auto* loss) { check_threads<std::remove_pointer_t<decltype(loss)>>(); });
}

TEST_CASE("pair losses: a NaN shows in the loss") {
  for_each(All{}, [](auto* loss) {
    using Loss = std::remove_pointer_t<decltype(loss)>;
    INFO(Loss::name());
    LossCase<double> c = mixed_batch(1);
    c.features[12] = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(LossBench<Loss, double>({})(c)));
  });
}
