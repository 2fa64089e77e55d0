#pragma once
// Deep Cauchy hashing.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// With d(a,b) = (1 - min(cos(a,b), 0.99)) D / 2 and s = [y_i = y_j]:
///   L = mean_ij w_ij (s ln(d_ij / gamma) + ln(1 + gamma / d_ij)) + lambda mean_i ln(1 + d(|x_i|,
///   1) / gamma),
/// w = B^2 / number of pairs of the same s, over all B^2 pairs; 1 if all pairs are alike. Features
/// [B,D]. Active are all pairs. Beyond a cosine of 0.99 the gradient is 0.
/// Source: Cao et al., "Deep Cauchy Hashing for Hamming Space Retrieval", CVPR 2018; PaddleClas
/// ppcls/loss/deephashloss.py (DCHLoss; its _lambda is lambda, n_class is not needed). It divides
/// by max(|a| |b|, 1e-4), which is the cosine unless a feature is nearly 0; here a zero row has
/// cosine 0 and gradient 0. Throws ConfigError unless gamma > 0.
class DCHLoss : public FeatureLoss<DCHLoss> {
 public:
  struct Config {
    double weight = 1;
    double gamma = 20;
    double lambda = 0.1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "DCHLoss"; }

  explicit DCHLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.gamma > 0))
      throw ConfigError(text(name(), ": gamma must be positive, got ", config.gamma));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const FeatureFrom from = config_.feature_from;
    detail::on_normalized(
        run, true, NormRule::none, in.at(from), gradient.at(from),
        [&](View<const T> x, View<T> dx) {
          const std::int64_t batch = x.dim(0);
          auto alike = run.make({batch}, "DCHLoss.alike");
          const Quantize<T> quantize{batch,
                                     x.dim(1),
                                     x.data,
                                     dx.data,
                                     T(1 / config_.gamma),
                                     T(config_.lambda),
                                     T(config_.weight / static_cast<double>(batch))};
          detail::on_pairs(run, PairMatrix::similarity, Divisor::rows, config_.weight, x, in.labels,
                           dx, report, [&](const Pairs<T>& pairs) {
                             kernels::pair_rows(run.ctx, batch, batch, Count<T>{pairs, alike.data});
                             kernels::pair_rows(run.ctx, batch, batch,
                                                Row<T>{pairs, alike.data, T(config_.gamma),
                                                       T(x.dim(1)) / T(2), quantize});
                           });
        });
  }

  static constexpr double nearly_one = 0.99;

  template <class T>
  struct Count {
    Pairs<T> pairs;
    T* alike;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const std::int64_t n =
          group.count(pairs.batch, [&](std::int64_t j) { return pairs.same(i, j); });
      group.once([&] { alike[i] = T(n); });
    }
  };

  /// The loss of row i for not being a code, with its gradient added to dx.
  template <class T>
  struct Quantize {
    std::int64_t batch, dim;
    const T* x;  // unit rows
    T* dx;
    T sharpness, lambda, share;
    template <class Group>
    KINDRED_HD T operator()(const Group& group, std::int64_t i) const {
      const T* u = x + i * dim;
      const T scale = T(1) / std::sqrt(T(dim)), half = T(dim) / T(2), top = T(nearly_one);
      const T cosine =
          scale * group.sum(dim, [&](std::int64_t d) { return u[d] < T(0) ? -u[d] : u[d]; });
      const T distance = (T(1) - (cosine > top ? top : cosine)) * half;
      const T slope =
          cosine > top ? T(0) : -half * sharpness / (T(1) + distance * sharpness) * scale;
      group.for_each(dim, [&](std::int64_t d) {
        dx[i * dim + d] += share * lambda * slope * (T(u[d] > T(0)) - T(u[d] < T(0)));
      });
      return lambda * std::log1p(distance * sharpness);
    }
  };

  template <class T>
  struct Row {
    Pairs<T> pairs;
    const T* alike;
    T gamma, half;
    Quantize<T> quantize;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const T all = T(p.batch) * T(p.batch), top = T(nearly_one);
      const T same = group.sum(p.batch, [&](std::int64_t j) { return alike[j]; });
      const bool both = same < all;              // the diagonal is always alike
      const auto weight = [&](std::int64_t j) {  // with 1 / B for the mean of the row
        return (!both ? T(1) : all / (p.same(i, j) ? same : all - same)) / T(p.batch);
      };
      const auto distance = [&](std::int64_t j) {
        return (T(1) - (m[j] > top ? top : m[j])) * half;
      };
      const T loss = group.sum(p.batch, [&](std::int64_t j) {
        const T d = distance(j);
        const T term = std::log1p(gamma / d) + (p.same(i, j) ? std::log(d / gamma) : T(0));
        return weight(j) * term;
      });
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        const T d = distance(j);
        const T slope = (p.same(i, j) ? T(1) / d : T(0)) - gamma / (d * (d + gamma));
        c[j] = m[j] > top ? T(0) : -half * weight(j) * slope;
      });
      p.finish(group, i, loss + quantize(group, i), T(p.batch));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
