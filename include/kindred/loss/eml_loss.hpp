#pragma once
// Ensemble metric learning loss.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// With d the squared Euclidean distance of the features [B,D], for each row: P = mean over its
/// positives of e^(d - max d), N = mean over its negatives of e^(min d - d), theta = P N,
/// b = max positive d - min negative d, beta = 1e5, t = 20,
///   L_i = f(min(b,t)) + g(max(b,t)) - f(t),  f(b) = ln(1 + beta theta e^b) / ln(1 + beta),
///   g(b) = (ln theta + b + ln beta) / ln(1 + beta);  L = mean_i L_i.
/// Active are the rows with a positive and a negative; the others contribute 0.
/// Source: PaddleClas ppcls/loss/emlloss.py. There the classes are groups of samples_each_class
/// rows, here the labels say.
class EmlLoss : public PairLoss<EmlLoss> {
 public:
  struct Config {
    double weight = 1;

    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "EmlLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::squared_distance;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::none;

  explicit EmlLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return false; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto positive = [&](std::int64_t j) { return p.positive(i, j); };
      const auto negative = [&](std::int64_t j) { return p.negative(i, j); };
      const auto value = [&](std::int64_t j) { return m[j]; };
      const std::int64_t far = group.argmax(p.batch, positive, value);
      const std::int64_t near = group.argmin(p.batch, negative, value);
      if (far < 0 || near < 0) return p.nothing(group, i);
      const T np = T(group.count(p.batch, positive)), nn = T(group.count(p.batch, negative));
      const T most = m[far], least = m[near];
      const T mean_p = group.sum(p.batch, [&](std::int64_t j) {
        return positive(j) ? std::exp(m[j] - most) : T(0);
      }) / np;
      const T mean_n = group.sum(p.batch, [&](std::int64_t j) {
        return negative(j) ? std::exp(least - m[j]) : T(0);
      }) / nn;
      const T theta = mean_p * mean_n, b = most - least, top = T(20), beta = T(1e5);
      const T log_beta = std::log(T(1) + beta), low = b < top ? b : top, high = b < top ? top : b;
      const T x = beta * std::exp(low), y = beta * std::exp(top);
      const T loss = (std::log1p(theta * x) - std::log1p(theta * y) + std::log(theta) + high +
                      std::log(beta)) /
                     log_beta;
      const T dtheta = (x / (T(1) + theta * x) - y / (T(1) + theta * y) + T(1) / theta) / log_beta;
      const T db = (b < top ? theta * x / (T(1) + theta * x) : T(1)) / log_beta;
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = T(0);
        if (positive(j)) c[j] = dtheta * mean_n * std::exp(m[j] - most) / np;
        if (negative(j)) c[j] = -dtheta * mean_p * std::exp(least - m[j]) / nn;
        if (j == far) c[j] += db - dtheta * theta;
        if (j == near) c[j] += dtheta * theta - db;
      });
      p.finish(group, i, loss, T(1));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
