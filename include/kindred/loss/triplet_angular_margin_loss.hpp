#pragma once
// Batch-hard triplet loss on cosine similarities.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// With s the cosine similarity of the features [B,D] (the inner product unless
/// `normalize_feature`), p_i = min_{y_j = y_i} s_ij (the row itself included) and
/// n_i = max_{y_j != y_i} s_ij: L = mean_i max(0, n_i - p_i + margin), and if `add_absolute`
/// + absolute_loss_weight mean_i (max(0, ap_value - p_i) + max(0, n_i - an_value)).
/// Active are the rows with a loss; a row without a negative contributes 0.
/// Source: PaddleClas ppcls/loss/tripletangularmarginloss.py. It puts the constant 1 for a
/// max(0, n_i - an_value) of 0, which moves its value but no gradient; here it is 0. It demands as
/// many positives in every row; here any batch is accepted. A zero vector, NaN there, stays zero.
class TripletAngularMarginLoss : public PairLoss<TripletAngularMarginLoss> {
 public:
  struct Config {
    double weight = 1;
    double margin = 0.5;
    bool normalize_feature = true;
    bool add_absolute = false;
    double absolute_loss_weight = 1;
    double ap_value = 0.9;
    double an_value = 0.5;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "TripletAngularMarginLoss"; }
  static constexpr PairMatrix matrix = PairMatrix::similarity;
  static constexpr Divisor divisor = Divisor::rows;
  static constexpr NormRule norm = NormRule::none;

  explicit TripletAngularMarginLoss(const Config& config, const Scope&) : config_(config) {}

  const Config& config() const { return config_; }
  bool normalizes() const { return config_.normalize_feature; }

  template <class T>
  auto row(const Pairs<T>& pairs) const {
    return Row<T>{pairs, T(config_.margin),
                  config_.add_absolute ? T(config_.absolute_loss_weight) : T(0),
                  T(config_.ap_value), T(config_.an_value)};
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T margin, absolute, ap_value, an_value;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const auto value = [&](std::int64_t j) { return m[j]; };
      const std::int64_t ap = group.argmin(
          p.batch, [&](std::int64_t j) { return p.same(i, j); }, value);
      const std::int64_t an = group.argmax(
          p.batch, [&](std::int64_t j) { return p.negative(i, j); }, value);
      if (an < 0) return p.nothing(group, i);
      T loss = T(0), dp = T(0), dn = T(0);
      const auto add = [&](T weight, T x, T sign_p, T sign_n) {
        if (x <= T(0)) return;
        loss += weight * x;
        dp += weight * sign_p;
        dn += weight * sign_n;
      };
      add(T(1), m[an] - m[ap] + margin, T(-1), T(1));
      add(absolute, ap_value - m[ap], T(-1), T(0));
      add(absolute, m[an] - an_value, T(0), T(1));
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) { c[j] = j == ap ? dp : j == an ? dn : T(0); });
      p.finish(group, i, loss, T(loss != T(0)));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
