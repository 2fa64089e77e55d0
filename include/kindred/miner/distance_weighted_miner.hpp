#pragma once
// Negatives drawn evenly over all distances.

#include <algorithm>
#include <limits>

#include <kindred/miner/miner.hpp>

namespace kindred::miner {

/// All positive pairs, and for each of them one negative of the row drawn with the probability
/// proportional to 1 / q(max(d_in, cutoff)) where d_in < nonzero_loss_cutoff, q(d) = d^(D-2)
/// (1 - d^2/4)^((D-3)/2) the density of distances on the unit sphere; d the Euclidean distance of
/// normalised features [B,D]. A row without such a negative is left out. The draws are functions of
/// the seed, the step and the pair.
/// Source: Wu et al., "Sampling Matters in Deep Embedding Learning", ICCV 2017, section 4;
/// pytorch-metric-learning DistanceWeightedMiner, which draws the positives too, one more than
/// there are, and scales the weights by their largest in the batch, so that rows far below it may
/// lose all of them; here every positive is taken once, and the largest weight is that of the row.
/// Throws ConfigError unless 0 < cutoff < 2.
class DistanceWeightedMiner {
 public:
  struct Config {
    double cutoff = 0.5;
    double nonzero_loss_cutoff = 1.4;
  };

  static constexpr const char* name() { return "DistanceWeightedMiner"; }
  static constexpr Matrix matrix = Matrix::distance;
  /// A chosen pair counts once for every triplet that it is in.
  static constexpr bool counts_triplets = true;

  explicit DistanceWeightedMiner(const Config& config) : config_(config) {
    if (!(config.cutoff > 0 && config.cutoff < 2))
      throw ConfigError(text(name(), ": cutoff must be in (0, 2), got ", config.cutoff));
  }

  template <class T>
  auto row(const Mining<T>& mining) const {
    return Row<T>{mining, T(config_.cutoff), T(config_.nonzero_loss_cutoff)};
  }

  template <class T>
  struct Row {
    Mining<T> mining;
    T cutoff, far;

    KINDRED_HD T log_weight(T distance) const {
      const T d = distance < cutoff ? cutoff : distance;
      const T dim = T(mining.dim);
      return (T(2) - dim) * std::log(d) - (dim - T(3)) / T(2) * std::log1p(-d * d / T(4));
    }

    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Mining<T>& m = mining;
      const T* d = m.row(i);
      constexpr T infinity = std::numeric_limits<T>::infinity();
      const auto in = [&](std::int64_t j) { return m.negative(i, j) && d[j] < far && d[j] < T(2); };
      const T top =
          group.max(m.batch, [&](std::int64_t j) { return in(j) ? log_weight(d[j]) : -infinity; });
      const auto weight = [&](std::int64_t j) {
        return in(j) ? std::exp(log_weight(d[j]) - top) : T(0);
      };
      const T total = group.sum(m.batch, weight);
      T* selected = m.selected_row(i);
      group.for_each(m.batch, [&](std::int64_t j) { selected[j] = T(0); });
      if (!(total > T(0))) return;
      group.once([&] {
        for (std::int64_t p = 0; p < m.batch; ++p) {
          if (!m.positive(i, p)) continue;
          selected[p] = T(1);
          const auto bits = philox(m.random, static_cast<std::uint64_t>(i * m.batch + p))[0];
          T left = T(uniform_from_bits(bits)) * total;
          std::int64_t n = -1;
          for (std::int64_t j = 0; j < m.batch && left >= T(0); ++j) {
            if (!in(j)) continue;
            n = j;  // the last one takes what rounding leaves
            left -= weight(j);
          }
          selected[n] += T(1);
        }
      });
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::miner
