#pragma once
// Locality-constrained deep supervised hashing.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// With w_ij = clip(x_i.x_j / 2, -50, 50), v_ij = sign(x_i).sign(x_j) / 2 and s = +1 for the same
/// label, else -1: L = mean_ij log(1 + e^(-s w)) + lambda mean_ij (sigmoid(w) - sigmoid(v))^2 over
/// all B^2 pairs; features [B,D] not normalised, sign a constant. Active are all pairs. Source: Zhu
/// and Gao, "Locality-Constrained Deep Supervised Hashing for Image Retrieval", 2017; PaddleClas
/// ppcls/loss/deephashloss.py (LCDSHLoss; its _lambda is lambda, n_class is not needed).
class LCDSHLoss : public FeatureLoss<LCDSHLoss> {
 public:
  struct Config {
    double weight = 1;
    double lambda = 3;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "LCDSHLoss"; }

  explicit LCDSHLoss(const Config& config, const Scope&) : config_(config) {}
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0);
    auto signs = run.make(x.shape, "LCDSHLoss.signs");
    auto codes = run.make({batch, batch}, "LCDSHLoss.codes");
    kernels::pair_rows(run.ctx, batch, x.dim(1), Sign<T>{x.dim(1), x.data, signs.data});
    kernels::gram_matrix(run.ctx, signs, View<T>(codes));
    detail::on_pairs(run, PairMatrix::similarity, Divisor::rows, config_.weight, x, in.labels,
                     gradient.at(config_.feature_from), report, [&](const Pairs<T>& pairs) {
                       kernels::pair_rows(run.ctx, batch, batch,
                                          Row<T>{pairs, codes.data, T(config_.lambda),
                                                 T(1 / static_cast<double>(batch))});
                     });
  }

  template <class T>
  struct Sign {
    std::int64_t dim;
    const T* x;
    T* signs;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      group.for_each(dim, [&](std::int64_t d) {
        const T v = x[i * dim + d];
        signs[i * dim + d] = T(v > T(0)) - T(v < T(0));
      });
    }
  };

  template <class T>
  struct Row {
    Pairs<T> pairs;
    const T* codes;
    T lambda, share;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const T* code = codes + i * p.batch;
      const T limit = T(50);
      const auto inner = [&](std::int64_t j) {
        const T w = m[j] / T(2);
        return w > limit ? limit : w < -limit ? -limit : w;
      };
      const auto sign = [&](std::int64_t j) { return p.same(i, j) ? T(1) : T(-1); };
      const auto error = [&](std::int64_t j) {
        return sigmoid(inner(j)) - sigmoid(code[j] / T(2));
      };
      const T loss = group.sum(p.batch, [&](std::int64_t j) {
        return share * (softplus(-sign(j) * inner(j)) + lambda * error(j) * error(j));
      });
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        const T w = m[j] / T(2), q = sigmoid(w);
        const T slope =
            -sign(j) * sigmoid(-sign(j) * w) + lambda * T(2) * error(j) * q * (T(1) - q);
        c[j] = w < -limit || w > limit ? T(0) : share / T(2) * slope;
      });
      p.finish(group, i, loss, T(p.batch));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
