#pragma once
// Softmax cross-entropy with optional label smoothing.

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/softmax_cross_entropy.hpp>
#include <kindred/loss/loss.hpp>

namespace kindred::loss {

/// L = mean_b -sum_c t_bc log softmax(z_b)_c, t = onehot, or (1 - epsilon) onehot + epsilon / C.
/// logits z [B,C], labels [B] in [0, C).
/// Source: PaddleClas ppcls/loss/celoss.py (an epsilon outside (0, 1) means none, as there).
/// Paddle's CPU kernel lets no z - max z below -64, which bounds its loss; here the loss is exact.
class CELoss {
 public:
  struct Config {
    double weight = 1;
    double epsilon = 0;  ///< label smoothing
  };

  static constexpr const char* name() { return "CELoss"; }
  static constexpr std::int64_t entries() { return 1; }

  explicit CELoss(const Config& config, const Scope&) : config_(config) {}

  LogitUse logit_use() const { return LogitUse::cross_entropy; }
  bool reads(FeatureFrom) const { return false; }
  void describe(LossReport* report) const { *report = {name(), config_.weight, 0, 0}; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const bool smooth = config_.epsilon > 0 && config_.epsilon < 1;
    const T epsilon = smooth ? T(config_.epsilon) : T(0), weight = T(config_.weight);
    const View<T> value{report.data, {1}};
    if (in.logit_free != nullptr)
      (*in.logit_free)(epsilon, weight, value);
    else
      kernels::softmax_cross_entropy(run.ctx, in.logits, in.labels.data, epsilon, weight, value,
                                     gradient.logits);
    kernels::fill(run.ctx, T(in.labels.size()), View<T>{report.data + 1, {1}});
  }

 private:
  Config config_;
};

}  // namespace kindred::loss
