#pragma once
// Normalised temperature-scaled cross-entropy (InfoNCE).

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean over all positive pairs (i,p) of -log( e^(s_ip / t) / (e^(s_ip / t) + sum_n e^(s_in /
/// t)) ), s the cosine similarity of the features [B,D], n the rows of other labels, t the
/// temperature. Active are the positive pairs of rows with a negative; without any the loss is 0.
/// Source: Chen et al., "A Simple Framework for Contrastive Learning", 2020;
/// pytorch-metric-learning NTXentLoss. Throws ConfigError unless temperature > 0.
class NTXentLoss : public PairLoss<NTXentLoss> {
 public:
  struct Config {
    double weight = 1;
    double temperature = 0.07;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "NTXentLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;
  static constexpr bool mineable = true;

  explicit NTXentLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.temperature > 0))
      throw ConfigError(text(name(), ": temperature must be positive, got ", config.temperature));
  }

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(1 / config_.temperature)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T sharpness;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const auto negative = [&](std::int64_t j) { return p.negative(i, j); };
      const auto logit = [&](std::int64_t j) { return sharpness * m[j]; };
      const std::int64_t np = group.count(p.batch, positive);
      if (np == 0 || group.count(p.batch, negative) == 0) return p.nothing(group, i);
      const T lse = log_sum_exp(group, p.batch, false, negative, logit);
      const T loss = group.sum(
          p.batch, [&](std::int64_t j) { return positive(j) ? softplus(lse - logit(j)) : T(0); });
      const T missed = group.sum(
          p.batch, [&](std::int64_t j) { return positive(j) ? sigmoid(lse - logit(j)) : T(0); });
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = positive(j)   ? -sharpness * sigmoid(lse - logit(j))
               : negative(j) ? sharpness * missed * std::exp(logit(j) - lse)
                             : T(0);
      });
      p.finish(group, i, loss, T(np));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
