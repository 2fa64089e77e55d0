#pragma once
// Triplet margin loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// Over all triplets of a row i, a positive p and a negative n, or those that a miner chose: L =
/// sum max(0, d_ip - d_in + margin) / number of terms above 0, d the Euclidean distance of the
/// features [B,D] divided by max(norm, 1e-12). Active are those terms; without any the loss is 0.
/// Behind a miner of pairs the triplets are those of a chosen positive with a chosen negative of
/// the row, as often as both were chosen. Source: Weinberger et al., "Distance Metric Learning for
/// Large Margin Nearest Neighbor Classification", 2005; Schroff et al., "FaceNet", CVPR 2015;
/// pytorch-metric-learning TripletMarginLoss (swap and smooth_loss False, triplets_per_anchor
/// "all").
class TripletMarginLoss : public PairLoss<TripletMarginLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.05;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "TripletMarginLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::distance;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit TripletMarginLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return row(pairs, Every{});
  }
  /// Of the triplets those that are `chosen`: a function of (i, p, n).
  template <class T, class Triplet>
  auto row(const Pairs<T>& pairs, const Triplet& chosen) const {
    constexpr bool by_pairs = std::is_same_v<Triplet, Every>;
    return Row<T, Triplet>{pairs, T(config_.margin), chosen, by_pairs && pairs.selected != nullptr};
  }

  struct Every {
    KINDRED_HD bool operator()(std::int64_t, std::int64_t, std::int64_t) const { return true; }
  };

  template <class T, class Triplet>
  struct Row {
    Pairs<T> pairs;
    T margin;
    Triplet chosen;
    bool weighted;

    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto hinge = [&](std::int64_t a, std::int64_t n) {
        const T h = m[a] - m[n] + margin;
        return h < T(0) ? T(0) : h;
      };
      // How often the triplet counts among the terms above 0.
      const auto times = [&](std::int64_t a, std::int64_t n) {
        if (hinge(a, n) == T(0) || !chosen(i, a, n)) return T(0);
        if (!weighted) return T(1);
        const T* selected = p.selected + i * p.batch;
        return selected[a] * selected[n];
      };
      T* c = p.coefficient_row(i);
      T loss = T(0), active = T(0);
      group.for_each(p.batch, [&](std::int64_t j) { c[j] = T(0); });
      for (std::int64_t a = 0; a < p.batch; ++a) {
        if (!p.positive(i, a)) continue;
        const T count = group.sum(
            p.batch, [&](std::int64_t n) { return p.negative(i, n) ? times(a, n) : T(0); });
        loss += group.sum(p.batch, [&](std::int64_t n) {
          return p.negative(i, n) ? times(a, n) * hinge(a, n) : T(0);
        });
        active += count;
        group.once([&] { c[a] = count; });
      }
      group.for_each(p.batch, [&](std::int64_t n) {
        if (!p.negative(i, n)) return;
        for (std::int64_t a = 0; a < p.batch; ++a)
          if (p.positive(i, a)) c[n] -= times(a, n);
      });
      p.finish(group, i, loss, active);
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
