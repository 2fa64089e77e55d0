#pragma once
// Multi-similarity loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean_i 1/alpha log(1 + sum_p e^(-alpha (s_ip - base))) + 1/beta log(1 + sum_n e^(beta (s_in
/// - base))), s the cosine similarity of the features [B,D], p the other rows of the label, n those
/// of other labels. Active are the rows with a positive or a negative. Source: Wang et al.,
/// "Multi-Similarity Loss with General Pair Weighting", CVPR 2019, without its mining;
/// pytorch-metric-learning MultiSimilarityLoss. Throws ConfigError unless alpha, beta > 0.
class MultiSimilarityLoss : public PairLoss<MultiSimilarityLoss> {
 public:
  struct Config {
    double weight = 1;
    double alpha = 2;
    double beta = 50;
    double base = 0.5;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "MultiSimilarityLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit MultiSimilarityLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.alpha > 0))
      throw ConfigError(text(name(), ": alpha must be positive, got ", config.alpha));
    if (!(config.beta > 0))
      throw ConfigError(text(name(), ": beta must be positive, got ", config.beta));
  }

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(config_.alpha), T(config_.beta), T(config_.base)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T alpha, beta, base;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const auto negative = [&](std::int64_t j) { return p.negative(i, j); };
      const auto pull = [&](std::int64_t j) { return alpha * (base - m[j]); };
      const auto push = [&](std::int64_t j) { return beta * (m[j] - base); };
      const T pulled = log_sum_exp(group, p.batch, true, positive, pull);
      const T pushed = log_sum_exp(group, p.batch, true, negative, push);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = positive(j)   ? -std::exp(pull(j) - pulled)
               : negative(j) ? std::exp(push(j) - pushed)
                             : T(0);
      });
      const bool any = group.count(p.batch, [&](std::int64_t j) { return j != i; }) > 0;
      p.finish(group, i, pulled / alpha + pushed / beta, T(any));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
