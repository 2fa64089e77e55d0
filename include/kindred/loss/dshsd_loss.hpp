#pragma once
// Deep supervised hashing based on stable distribution.

#include <kindred/kernels/softmax_cross_entropy.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// L = CE(logits, labels) + alpha mean_ij ( s d_ij / 2 + (1 - s) max(0, 2 D - d_ij) / 2 ) over all
/// B^2 pairs, d the squared Euclidean distance of the features [B,D], not normalised, s = [y_i =
/// y_j]; logits [B,C]. Active are the pairs with a term above 0. Where d is clipped at 1e-12, as on
/// the diagonal, the gradient is 0. Source: Wu et al., "Deep Supervised Hashing Based on Stable
/// Distribution", 2019; PaddleClas ppcls/loss/deephashloss.py (DSHSDLoss, multi_label False). It
/// takes the logarithm of the softmax, infinite for a hopeless row; here the loss stays finite.
/// Throws DataError for a label outside [0, C).
class DSHSDLoss : public FeatureLoss<DSHSDLoss> {
 public:
  struct Config {
    double weight = 1;
    double alpha = 0.05;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "DSHSDLoss"; }

  explicit DSHSDLoss(const Config& config, const Scope&) : config_(config) {}
  const Config& config() const { return config_; }
  LogitUse logit_use() const { return LogitUse::full; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    auto entropy = run.make({1}, "DSHSDLoss.entropy");
    kernels::softmax_cross_entropy(run.ctx, in.logits, in.labels.data, T(0), T(config_.weight),
                                   entropy, gradient.logits);
    detail::on_pairs(run, PairMatrix::squared_distance, Divisor::rows, config_.weight, x, in.labels,
                     gradient.at(config_.feature_from), report, [&](const Pairs<T>& pairs) {
                       kernels::pair_rows(
                           run.ctx, pairs.batch, pairs.batch,
                           Row<T>{pairs, T(2 * x.dim(1)), T(config_.alpha / double(pairs.batch))});
                     });
    kernels::scale_add(run.ctx, T(1), entropy, View<T>{report.data, {1}});
  }

  template <class T>
  struct Row {
    Pairs<T> pairs;
    T margin, scale;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        c[j] = p.same(i, j) ? scale / T(2) : m[j] < margin ? -scale / T(2) : T(0);
      });
      const T loss = group.sum(p.batch, [&](std::int64_t j) {
        const T rest = margin - m[j];
        return scale / T(2) * (p.same(i, j) ? m[j] : rest < T(0) ? T(0) : rest);
      });
      p.finish(group, i, loss,
               T(group.count(p.batch, [&](std::int64_t j) { return c[j] != T(0); })));
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
