#pragma once
// Angular loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = mean over all positive pairs (i,p) of log(1 + sum_n e^(4 t (x_i + x_p).x_n - 2 (1 + t)
/// x_i.x_p)), t = tan^2 alpha, on the features [B,D] divided by max(norm, 1e-12); n the rows of
/// other labels. Active are the positive pairs of rows with a negative; without any the loss is 0.
/// Source: Wang et al., "Deep Metric Learning with Angular Loss", ICCV 2017, eq. 8 without the
/// N-pair term; pytorch-metric-learning AngularLoss, which builds pairs x B products, here nothing
/// larger than B x B. Throws ConfigError unless alpha is in (0, 90) degrees.
class AngularLoss : public PairLoss<AngularLoss> {
 public:
  struct Config {
    double weight = 1;
    double alpha = 40;  ///< degrees
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "AngularLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::active;
  static constexpr NormRule norm = NormRule::max_eps;

  explicit AngularLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.alpha > 0 && config.alpha < 90))
      throw ConfigError(text(name(), ": alpha must be in (0, 90) degrees, got ", config.alpha));
  }

  const Config& config() const { return config_; }
  bool normalizes() const { return true; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    const double tangent = std::tan(config_.alpha / 180 * 3.14159265358979323846);
    return Row<T>{pairs, T(tangent * tangent)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T t;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto negative = [&](std::int64_t j) { return p.negative(i, j); };
      const std::int64_t np =
          group.count(p.batch, [&](std::int64_t j) { return p.positive(i, j); });
      if (np == 0 || group.count(p.batch, negative) == 0) return p.nothing(group, i);
      const auto exponent = [&](std::int64_t a, std::int64_t n) {
        return T(4) * t * (m[n] + p.row(a)[n]) - T(2) * (T(1) + t) * m[a];
      };
      T* c = p.coefficient_row(i);
      T loss = T(0);
      for (std::int64_t a = 0; a < p.batch; ++a) {  // c of a positive holds its loss for a while
        if (!p.positive(i, a)) continue;
        const T lse = log_sum_exp(group, p.batch, true, negative,
                                  [&](std::int64_t n) { return exponent(a, n); });
        group.once([&] { c[a] = lse; });
        loss += lse;
      }
      // The pairs (i,p) and (p,i) have equal losses, hence 8 t for 4 t.
      group.for_each(p.batch, [&](std::int64_t n) {
        if (p.positive(i, n)) return;
        c[n] = T(0);
        if (!negative(n)) return;
        for (std::int64_t a = 0; a < p.batch; ++a)
          if (p.positive(i, a)) c[n] += T(8) * t * std::exp(exponent(a, n) - c[a]);
      });
      group.for_each(p.batch, [&](std::int64_t a) {
        if (p.positive(i, a)) c[a] = T(2) * (T(1) + t) * std::expm1(-c[a]);
      });
      p.finish(group, i, loss, T(np));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
