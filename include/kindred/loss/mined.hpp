#pragma once
// A pair loss behind a miner.

#include <utility>

#include <kindred/loss/pair_loss.hpp>
#include <kindred/miner/miner.hpp>

namespace kindred::loss {

/// `Loss` on the pairs or triplets that `Miner` chooses in every batch. Of chosen triplets a loss
/// on pairs sees the pairs that are in one; loss::TripletMarginLoss sees the triplets themselves.
/// The choice has no gradient. A batch of which nothing is chosen has what Loss gives without
/// pairs.
///
///   Mined<miner::MultiSimilarityMiner, MultiSimilarityLoss>::Config{.miner = {.epsilon = 0.1},
///                                                                  .loss = {.alpha = 2}}
template <class Miner, class Loss>
class Mined : public FeatureLoss<Mined<Miner, Loss>> {
  static_assert(
      !requires { &Miner::logit_use; },
      "loss::Mined<Miner, Loss>: the first argument is a loss; the miner comes first");
  static_assert(
      requires { requires Loss::mineable; },
      "loss::Mined needs a loss that leaves the choice of pairs to a miner, such as "
      "MultiSimilarityLoss, CircleLoss, ContrastiveLoss, MarginLoss, PairwiseCosface, "
      "NTXentLoss, RankedListLoss or TripletMarginLoss");

 public:
  struct Config {
    typename Miner::Config miner{};
    typename Loss::Config loss{};
  };

  static constexpr const char* name() { return Loss::name(); }

  Mined(const Config& config, const Scope& scope)
      : miner_(config.miner), loss_(config.loss, scope) {}

  const typename Loss::Config& config() const { return loss_.config(); }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const FeatureFrom from = config().feature_from;
    detail::on_normalized(
        run, loss_.normalizes(), Loss::norm, in.at(from), gradient.at(from),
        [&](View<const T> x, View<T> dx) {
          miner::mine(run, miner_, x, in.labels, [&](const miner::Mining<T>& mining) {
            detail::on_pairs(run, loss_, x, in.labels, dx, report,
                             [&](const Pairs<T>& all) { fill(run, all, mining); });
          });
        });
  }

 private:
  template <class Context, class T>
  void fill(const Run<Context, T>& run, Pairs<T> pairs, const miner::Mining<T>& mining) const {
    constexpr bool triplets = miner::MinesTriplets<Miner, T>;
    pairs.selected = mining.selected;
    if constexpr (miner::ChoosesPairs<Miner, Context, T>)
      pairs.counts_triplets = miner_.counts();
    else
      pairs.counts_triplets = triplets || requires { Miner::counts_triplets; };
    const auto launch = [&](const auto& row) {
      kernels::pair_rows(run.ctx, pairs.batch, pairs.batch, row);
    };
    if constexpr (triplets && requires { loss_.row(pairs, miner_.triplet(mining)); })
      launch(loss_.row(pairs, miner_.triplet(mining)));
    else
      launch(detail::row_of(run, loss_, pairs));
  }

  Miner miner_;
  Loss loss_;
};

}  // namespace kindred::loss
