#pragma once
// Deep pairwise-supervised hashing.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// With w_ij = x_i.x_j / 2 and s = [y_i = y_j]: L = mean_ij (log(1 + e^w) - s w) over all B^2 pairs
/// + eta mean_id (x_id - sign(x_id))^2 over all entries; features [B,D] not normalised, sign a
/// constant, its value at 0 being 0. Active are all pairs. Source: Li et al., "Feature Learning
/// based Deep Supervised Hashing with Pairwise Labels", IJCAI 2016, on one batch instead of the
/// whole set, as the common implementations do.
class DPSHLoss : public FeatureLoss<DPSHLoss> {
 public:
  struct Config {
    double weight = 1;
    double eta = 0.1;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "DPSHLoss"; }

  explicit DPSHLoss(const Config& config, const Scope&) : config_(config) {}
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const View<T> dx = gradient.at(config_.feature_from);
    const double size = static_cast<double>(x.size());
    detail::on_pairs(run, PairMatrix::similarity, Divisor::rows, config_.weight, x, in.labels, dx,
                     report, [&](const Pairs<T>& pairs) {
                       kernels::pair_rows(run.ctx, pairs.batch, pairs.batch,
                                          Row<T>{pairs, x.dim(1), x.data, dx.data,
                                                 T(config_.eta / static_cast<double>(x.dim(1))),
                                                 T(2 * config_.weight * config_.eta / size)});
                     });
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    std::int64_t dim;
    const T* x;
    T *dx, eta, slope;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const T share = T(1) / T(p.batch);
      const auto error = [&](std::int64_t d) {
        const T v = x[i * dim + d];
        return v - (T(v > T(0)) - T(v < T(0)));
      };
      const T loss = group.sum(p.batch, [&](std::int64_t j) {
        return share * (softplus(m[j] / T(2)) - (p.same(i, j) ? m[j] / T(2) : T(0)));
      });
      const T code = group.sum(dim, [&](std::int64_t d) { return eta * error(d) * error(d); });
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = share / T(2) * (sigmoid(m[j] / T(2)) - T(p.same(i, j)));
      });
      group.for_each(dim, [&](std::int64_t d) { dx[i * dim + d] += slope * error(d); });
      p.finish(group, i, loss + code, T(p.batch));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
