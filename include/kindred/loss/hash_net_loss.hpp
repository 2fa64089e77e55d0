#pragma once
// HashNet.

#include <kindred/loss/dch_loss.hpp>

namespace kindred::loss {

/// With h = tanh(beta x), w_ij = alpha h_i.h_j and s = [y_i = y_j]: L = mean_ij v_ij (log(1 + e^w)
/// - s w) over all B^2 pairs of the features [B,D]; v is B^2 / (number of pairs with the same s),
/// or 1 if all have the same. Active are all pairs. Continuation: beta = sqrt(1 + floor(step /
/// step_continuation)) brings h nearer to codes as the training goes on; step_continuation 0 keeps
/// beta = 1. Steps are counted in the buffer "step", so a checkpoint has them; a pass outside of
/// training does not count. Source: Cao et al., "HashNet: Deep Learning to Hash by Continuation",
/// ICCV 2017, on one batch instead of a memory of all codes; beta as in the DeepHash-pytorch
/// collection, which counts epochs. Throws ConfigError for a negative step_continuation.
class HashNetLoss : public FeatureLoss<HashNetLoss> {
 public:
  struct Config {
    double weight = 1;
    double alpha = 0.1;
    std::int64_t step_continuation = 1000;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "HashNetLoss"; }

  HashNetLoss(const Config& config, const Scope& scope) : config_(config) {
    if (config.step_continuation < 0)
      throw ConfigError(
          text(name(), ": step_continuation ", config.step_continuation, " must not be negative"));
    step_ = scope.declare("step", {1}, ParameterKind::buffer, Initializer::constant(0));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t batch = x.dim(0), dim = x.dim(1);
    auto codes = run.make(x.shape, "HashNetLoss.codes");
    auto dcodes = run.make(x.shape, "HashNetLoss.dcodes");
    auto alike = run.make({batch}, "HashNetLoss.alike");
    const Relax<T> relax{dim,        T(config_.step_continuation),
                         x.data,     run.buffer(step_).data,
                         codes.data, dcodes.data,
                         nullptr};
    kernels::pair_rows(run.ctx, batch, dim, relax);
    detail::on_pairs(
        run, PairMatrix::similarity, Divisor::rows, config_.weight, View<const T>(codes), in.labels,
        View<T>(dcodes), report, [&](const Pairs<T>& pairs) {
          kernels::pair_rows(run.ctx, batch, batch, DCHLoss::Count<T>{pairs, alike.data});
          kernels::pair_rows(run.ctx, batch, batch, Row<T>{pairs, alike.data, T(config_.alpha)});
        });
    Relax<T> back = relax;
    back.dx = gradient.at(config_.feature_from).data;
    kernels::pair_rows(run.ctx, batch, dim, back);
    if (run.training) kernels::pair_rows(run.ctx, 1, 1, Advance<T>{run.new_buffer(step_).data});
  }

  /// From features to relaxed codes, and with `dx` the way back.
  template <class T>
  struct Relax {
    std::int64_t dim;
    T continuation;
    const T *x, *step;
    T *codes, *dcodes, *dx;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T beta =
          continuation > T(0) ? std::sqrt(T(1) + std::floor(*step / continuation)) : T(1);
      group.for_each(dim, [&](std::int64_t d) {
        const std::int64_t at = i * dim + d;
        if (dx == nullptr) {
          codes[at] = std::tanh(beta * x[at]);
          dcodes[at] = T(0);
        } else {
          dx[at] += dcodes[at] * beta * (T(1) - codes[at] * codes[at]);
        }
      });
    }
  };

  template <class T>
  struct Advance {
    T* step;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      group.once([&] { *step += T(1); });
    }
  };

  template <class T>
  struct Row {
    Pairs<T> pairs;
    const T* alike;
    T alpha;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const Pairs<T>& p = pairs;
      const T* m = p.row(i);
      const T all = T(p.batch) * T(p.batch);
      const T same = group.sum(p.batch, [&](std::int64_t j) { return alike[j]; });
      const bool both = same < all;              // the diagonal is always alike
      const auto weight = [&](std::int64_t j) {  // with 1 / B for the mean of the row
        return (!both ? T(1) : all / (p.same(i, j) ? same : all - same)) / T(p.batch);
      };
      const T loss = group.sum(p.batch, [&](std::int64_t j) {
        const T w = alpha * m[j];
        return weight(j) * softplus(p.same(i, j) ? -w : w);  // log(1 + e^w) - w = log(1 + e^-w)
      });
      T* c = p.coefficient_row(i);
      group.for_each(p.batch, [&](std::int64_t j) {
        const T w = alpha * m[j];
        c[j] = alpha * weight(j) * (p.same(i, j) ? -sigmoid(-w) : sigmoid(w));
      });
      p.finish(group, i, loss, T(p.batch));
    }
  };

 private:
  Config config_;
  ParameterRef step_;
};

}  // namespace kindred::loss
