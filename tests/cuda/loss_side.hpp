#pragma once
// Losses on both sides of a parity test: values and all gradients, for several batches.

#include <kindred/core/run.hpp>
#include <kindred/loss/loss.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#else
#include <kindred/kernels/cuda/check_labels.cuh>
#include <kindred/kernels/cuda/elementwise.cuh>
#include <kindred/kernels/cuda/gemm.cuh>
#include <kindred/kernels/cuda/l2_normalize.cuh>
#include <kindred/kernels/cuda/pair_rows.cuh>
#include <kindred/kernels/cuda/pairwise.cuh>
#include <kindred/kernels/cuda/softmax_cross_entropy.cuh>
#endif

#include "cuda/support.hpp"

namespace kindred::test {
inline namespace
#ifdef KINDRED_CPU_SIDE
    cpu_side
#else
    cuda_side
#endif
{

/// What every loss of these tests has for classes and dimensions.
inline constexpr std::int64_t loss_classes = 10, loss_dim = 5;

/// Evaluates the loss on batches of features with these labels, one after the other: its buffers
/// go on from batch to batch. Gradients are added to numbers that are not zero. The teacher's
/// outputs are random.
template <class T, class Loss>
void run_loss(Side& side, const std::string& name, const typename Loss::Config& config,
              const std::vector<T>& features, const std::vector<std::int64_t>& labels,
              double tolerance) {
  ParameterTable table;
  const Loss loss(config, Scope(table, "loss"));
  std::vector<T> values(static_cast<std::size_t>(table.trainable_size())),
      buffers(static_cast<std::size_t>(table.buffer_size()));
  for (const ParameterInfo& p : table.entries()) {
    T* memory = p.kind == ParameterKind::buffer ? buffers.data() : values.data();
    p.initializer.fill(View<T>{memory + p.offset, p.shape}, {5, stream_of(p.name), 0});
  }
  const auto batch = static_cast<std::int64_t>(labels.size());
  const Shape shape{batch, loss_dim}, wide{batch, loss_classes}, all{table.trainable_size()};
  const auto steps = static_cast<std::int64_t>(features.size()) / shape.size();

  loss::LossInput<T> in;
  loss::LossGradient<T> gradient;
  const auto x = side.input(features, {steps * batch, loss_dim}),
             logits = side.input(random_values<T>(wide.size(), 1), wide);
  const auto dx = side.input(random_values<T>(shape.size(), 2), shape),
             dlogits = side.input(random_values<T>(wide.size(), 3), wide);
  const auto parameters = side.input(values, all),
             gradients = side.input(random_values<T>(all.size(), 4), all);
  const auto statistics = side.input(buffers, {table.buffer_size()});
  const auto y = side.input(labels, {batch});
  const auto report = side.template output<T>({loss::report_size});
  in.logits = logits;
  in.labels = y;
  in.teacher = {side.input(random_values<T>(shape.size(), 5), shape),
                side.input(random_values<T>(wide.size(), 6), wide)};
  gradient.features = gradient.backbone = dx;
  gradient.logits = dlogits;
  for (std::int64_t step = 0; step < steps; ++step) {
    in.features = in.backbone = {x.data + step * shape.size(), shape};
    const Run<SideContext, T> run{.ctx = side.ctx,
                                  .parameters = parameters.data,
                                  .statistics = statistics.data,
                                  .new_statistics = statistics.data,
                                  .gradients = gradients.data,
                                  .training = true,
                                  .random = {3, 0, static_cast<std::uint64_t>(step)}};
    side.run([&] { loss.evaluate(run, in, gradient, report); });
    side.record(name + " loss", report, tolerance);
    side.record(name + " dfeatures", dx, tolerance);
    side.record(name + " dlogits", dlogits, tolerance);
    side.record(name + " dparameters", gradients, tolerance);
    side.record(name + " buffers", statistics, tolerance);
  }
}

/// Groups of rows and rows alone, near and far; every row in a class of its own, all in one class;
/// equal rows and a row of zeros; a batch of one.
template <class Loss, class T>
void compare_loss(Side& side, const typename Loss::Config& config = {},
                  double tolerance = Side::tolerance<T>(1e-4)) {
  const auto evaluate = [&](const char* batch, double scale, std::vector<std::int64_t> labels,
                            bool degenerate = false) {
    auto x = random_values<T>(static_cast<std::int64_t>(labels.size()) * loss_dim, 6, scale);
    if (degenerate) {
      std::copy_n(x.begin(), loss_dim, x.begin() + 2 * loss_dim);
      std::fill_n(x.begin() + 4 * loss_dim, loss_dim, T(0));
    }
    run_loss<T, Loss>(side, text(Loss::name(), ", ", batch, ':'), config, x, labels, tolerance);
  };
  evaluate("groups", 1, random_labels(33, loss_classes, 7));
  evaluate("near", 0.3, random_labels(33, loss_classes, 8));
  evaluate("more than a warp takes", 1, random_labels(131, loss_classes, 9));
  evaluate("all different", 1, {0, 1, 2, 3, 4, 5, 6});
  evaluate("all alike", 1, {3, 3, 3, 3, 3, 3});
  evaluate("one row", 1, {9});
  // The row of zeros is alone in its class: its distance to every other is 1 but for the rounding,
  // so the hardest of its positives would be any.
  evaluate("equal and zero rows", 1, {4, 7, 4, 2, 0, 4, 7, 2, 2}, true);
}

}  // namespace cpu_side
}  // namespace kindred::test
