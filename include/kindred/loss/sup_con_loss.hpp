#pragma once
// Supervised contrastive loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = -temperature / base_temperature mean_i mean_p log( e^(s_ip / temperature) / sum_{k != i}
/// e^(s_ik / temperature) ), s = x x^T of the features [B,D], divided by (norm + 1e-12) first if
/// `normalize_feature`; p the other rows of the label. Active are the rows with a positive; the
/// others, NaN in PaddleClas, contribute 0.
/// Source: Khosla et al., "Supervised Contrastive Learning", 2020; PaddleClas
/// ppcls/loss/supconloss.py. There groups of `views` rows must share a label, here any layout does;
/// its contrast_mode "one" fails for more than one view and is not offered.
/// Throws ConfigError unless both temperatures are positive.
class SupConLoss : public PairLoss<SupConLoss> {
 public:
  struct Config {
    double weight = 1;
    double temperature = 0.07;
    double base_temperature = 0.07;
    bool normalize_feature = true;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "SupConLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::add_eps;

  explicit SupConLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.temperature > 0))
      throw ConfigError(text(name(), ": temperature must be positive, got ", config.temperature));
    if (!(config.base_temperature > 0))
      throw ConfigError(
          text(name(), ": base_temperature must be positive, got ", config.base_temperature));
  }

  const Config& config() const { return config_; }
  bool normalizes() const { return config_.normalize_feature; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(1 / config_.temperature),
                  T(config_.temperature / config_.base_temperature)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T sharpness, scale;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const T np = T(group.count(p.batch, positive));
      if (np == T(0)) return p.nothing(group, i);
      const auto other = [&](std::int64_t j) { return j != i; };
      const auto logit = [&](std::int64_t j) { return sharpness * m[j]; };
      const T lse = log_sum_exp(group, p.batch, false, other, logit);
      const T mean = group.sum(p.batch, [&](std::int64_t j) {
        return positive(j) ? lse - logit(j) : T(0);
      }) / np;
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = other(j) ? scale * sharpness *
                              (std::exp(logit(j) - lse) - (positive(j) ? T(1) / np : T(0)))
                        : T(0);
      });
      p.finish(group, i, scale * mean, T(1));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
