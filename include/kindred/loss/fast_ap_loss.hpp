#pragma once
// FastAP: average precision through soft histograms.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// d the squared Euclidean distance, in [0, 4], of the features [B,D] divided by max(norm, 1e-12);
/// h+_l and h_l the histograms of row i's positives and of all other rows over the edges 4 l / L,
/// l = 0..L, each distance shared linearly by the two next edges; H+ and H their cumulative sums:
///   L_i = 1 - 1/N+_i sum_l h+_l H+_l / H_l; L = mean over the rows with a positive, the active
///   ones.
/// Source: Cakir et al., "Deep Metric Learning to Rank", CVPR 2019; pytorch-metric-learning
/// FastAPLoss. Throws ConfigError for num_bins (L) < 1.
class FastAPLoss : public PairLoss<FastAPLoss> {
 public:
  struct Config {
    double weight = 1;
    std::int64_t num_bins = 10;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "FastAPLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::squared_distance;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;

  explicit FastAPLoss(const Config& config, const Scope&) : config_(config) {
    if (config.num_bins < 1)
      throw ConfigError(text(name(), ": num_bins must be at least 1, got ", config.num_bins));
  }
  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class Context, class T>
  void fill(const Run<Context, T>& run, const Pairs<T>& pairs) const {
    const std::int64_t edges = config_.num_bins + 1;
    auto positives = run.make({pairs.batch, edges}, "FastAPLoss.positives");
    auto negatives = run.make({pairs.batch, edges}, "FastAPLoss.negatives");
    kernels::pair_rows(run.ctx, pairs.batch, pairs.batch,
                       Row<T>{pairs, edges, positives.data, negatives.data});
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    std::int64_t edges;
    T *positives, *negatives;  // the histograms, then the derivatives by them

    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const std::int64_t np = group.count(p.batch, positive);
      if (np == 0) return p.nothing(group, i);
      T *up = positives + i * edges, *un = negatives + i * edges;
      const T sharpness = T(edges - 1) / T(4);
      const auto bin = [&](std::int64_t j) {  // the lower edge
        const T at = m[j] * sharpness;
        if (!(at >= T(0))) return std::int64_t{0};  // NaN
        return at < T(edges - 2) ? static_cast<std::int64_t>(at) : edges - 2;
      };
      const auto share = [&](std::int64_t j, std::int64_t edge) {
        const T above = m[j] * sharpness - T(bin(j));
        return edge == bin(j) ? T(1) - above : edge == bin(j) + 1 ? above : T(0);
      };
      for (std::int64_t l = 0; l < edges; ++l) {
        const T hp =
            group.sum(p.batch, [&](std::int64_t j) { return positive(j) ? share(j, l) : T(0); });
        const T hn = group.sum(
            p.batch, [&](std::int64_t j) { return p.negative(i, j) ? share(j, l) : T(0); });
        group.once([&] {
          up[l] = hp;
          un[l] = hn;
        });
      }
      group.once([&] { p.losses[i] = T(1) - precision(up, un) / T(np); });
      const T slope = -sharpness / T(np);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        const T* u = positive(j) ? up : un;
        c[j] = j == i ? T(0) : slope * (u[bin(j) + 1] - u[bin(j)]);
      });
      group.once([&] { p.active[i] = T(1); });
    }

    /// sum_l h+_l H+_l / H_l; replaces both histograms by its derivatives.
    KINDRED_HD T precision(T* up, T* un) const {
      T sum_p = T(0), sum = T(0), value = T(0);
      for (std::int64_t l = 0; l < edges; ++l) {
        sum_p += up[l];
        sum += up[l] + un[l];
      }
      T rest_p = T(0), rest = T(0);  // sums over the edges from here on
      for (std::int64_t l = edges - 1; l >= 0; --l) {
        const T h = up[l], all = up[l] + un[l];
        const T share = sum == T(0) ? T(0) : h / sum;
        const T ratio = sum == T(0) ? T(0) : sum_p / sum;
        value += share * sum_p;
        rest_p += share;
        rest += share * ratio;
        up[l] = ratio + rest_p - rest;
        un[l] = -rest;
        sum_p -= h;
        sum -= all;
      }
      return value;
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
