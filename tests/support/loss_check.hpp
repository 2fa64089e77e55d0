#pragma once
// A loss run outside of a model: its values, every gradient, and the check of one by the other.

#include <cstdint>
#include <utility>
#include <vector>

#include <kindred/core/run.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/loss/loss.hpp>

#include "support/numeric.hpp"

namespace kindred::test {

/// What a loss is given. Logits are absent if `logits` is empty.
template <class T>
struct LossCase {
  std::int64_t dim = 0;
  std::vector<T> features;
  std::vector<std::int64_t> labels;
  std::vector<T> logits = {};

  std::int64_t batch() const { return static_cast<std::int64_t>(labels.size()); }
};

/// A loss with its own parameters and buffers, drawn as a model draws them.
template <class Loss, class T>
class LossBench {
 public:
  explicit LossBench(const typename Loss::Config& config, int threads = 2)
      : loss(config, Scope(table, "loss")),
        parameters(static_cast<std::size_t>(table.trainable_size())),
        statistics(static_cast<std::size_t>(table.buffer_size())),
        context(threads) {
    for (const ParameterInfo& p : table.entries())
      p.initializer.fill(View<T>{at(p), p.shape}, {5, stream_of(p.name), 0});
  }

  T* at(const ParameterInfo& p) {
    return (p.kind == ParameterKind::buffer ? statistics : parameters).data() + p.offset;
  }

  /// Evaluates; the gradients are added to `start`, and the report was NaN before.
  T operator()(const LossCase<T>& c, T start = T(0)) {
    dfeatures.assign(c.features.size(), start);
    dlogits.assign(c.logits.size(), start);
    dparameters.assign(parameters.size(), start);
    report = poisoned<T>(loss.entries() * loss::report_size);
    const Shape shape{c.batch(), c.dim};
    loss::LossInput<T> in;
    loss::LossGradient<T> gradient;
    in.features = in.backbone = view(c.features, shape);
    gradient.features = gradient.backbone = view(dfeatures, shape);
    if (!c.logits.empty()) {
      const Shape wide{c.batch(), static_cast<std::int64_t>(c.logits.size()) / c.batch()};
      in.logits = view(c.logits, wide);
      gradient.logits = view(dlogits, wide);
    }
    in.labels = view(c.labels, {c.batch()});
    const Run<cpu::Context, T> run{.ctx = context,
                                   .parameters = parameters.data(),
                                   .statistics = statistics.data(),
                                   .new_statistics = statistics.data(),
                                   .gradients = dparameters.data(),
                                   .training = true,
                                   .random = {}};
    run_planned(context, [&] {
      loss.evaluate(run, in, gradient, view(report, {static_cast<std::int64_t>(report.size())}));
    });
    return report[0];
  }
  T active() const { return report[1]; }

  ParameterTable table;
  Loss loss;
  std::vector<T> parameters, statistics;
  cpu::Context context;
  std::vector<T> dfeatures, dlogits, dparameters, report;
};

/// Largest relative error of the gradients of weight * loss against central differences, in
/// double, with the accumulate contract checked.
template <class Loss>
double gradient_error(const typename Loss::Config& config, LossCase<double> c, double weight) {
  LossBench<Loss, double> bench(config);
  const double start = 0.25;
  bench(c, start);
  REQUIRE(bench.active() > 0);
  std::vector<double> got = bench.dfeatures, wanted;
  got.insert(got.end(), bench.dlogits.begin(), bench.dlogits.end());
  got.insert(got.end(), bench.dparameters.begin(), bench.dparameters.end());
  for (std::vector<double>* x : {&c.features, &c.logits, &bench.parameters})
    for (const double d : central_differences(*x, [&] { return bench(c); }))
      wanted.push_back(start + weight * d);
  return difference(got, wanted);
}
template <class Loss>
double gradient_error(const typename Loss::Config& config, LossCase<double> c) {
  return gradient_error<Loss>(config, std::move(c), config.weight);
}

/// Random rows whose pairs are all different; labels in any order, one of them alone.
inline LossCase<double> mixed_batch(std::uint64_t stream, double scale = 1) {
  LossCase<double> c{.dim = 5, .features = {}, .labels = {4, 7, 4, 2, 7, 4, 9, 2, 2}};
  c.features = random_values<double>(c.batch() * c.dim, stream, scale);
  return c;
}
/// Three classes of `per_class` rows next to each other.
inline LossCase<double> grouped_batch(std::int64_t per_class, std::uint64_t stream,
                                      double scale = 1) {
  LossCase<double> c{.dim = 5, .features = {}, .labels = {}};
  for (std::int64_t i = 0; i < 3 * per_class; ++i) c.labels.push_back(i / per_class);
  c.features = random_values<double>(c.batch() * c.dim, stream, scale);
  return c;
}

}  // namespace kindred::test
