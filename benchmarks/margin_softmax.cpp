// How close is the ArcMargin + CELoss step to the limit of its matrix products?
//   MarginStep/B/D/C   the step alone: milliseconds, operations per second, bytes planned above
//                      centres and their gradient
//   MarginLimit/B      step and one product [C,D] x [D,B] in turns within one run, and the step
//   with
//                      its cosines kept (three products) or computed again (four): "% of limit" is
//                      that many products over the step, medians of the rounds
//   MarginUpdate/B     the step and momentum on the centres: with update_in_tile, and in turns with
//                      it the gradient set to 0, made, checked and applied in passes of their own
#include <benchmark/benchmark.h>

#include <chrono>
#include <span>
#include <utility>
#include <vector>

#include <kindred/core/random.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/gemm.hpp>
#include <kindred/kernels/margin_softmax.hpp>
#include <kindred/optim/optimizer.hpp>

#include "support.hpp"

namespace {

using namespace kindred;
constexpr std::int64_t dim = 512, classes = 185341;  // of the PaddleClas product recogniser

std::vector<float> normal_values(std::int64_t n, std::uint64_t stream, float scale) {
  RandomSequence random({1, stream, 0});
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& v : values) v = scale * static_cast<float>(random.normal());
  return values;
}

/// The centres and their gradient, shared by all benchmarks of this program.
struct Head {
  std::vector<float> w = normal_values(classes * dim, 1, 0.01f);
  std::vector<float> dw = std::vector<float>(w.size(), 0.f);
};
Head& head() {
  static Head shared;
  return shared;
}

/// A pass of kernels in memory that is planned once; the first passes meet fresh memory.
template <class F>
class Planned {
 public:
  Planned(cpu::Context& ctx, F pass) : ctx_(ctx), pass_(std::move(pass)) {
    ctx_.arena().begin_recording();
    pass_();
    plan_ = ctx_.arena().end_recording();
    (*this)();
  }
  void operator()() {
    ctx_.arena().begin_replay(plan_);
    pass_();
  }
  double seconds() {
    const auto start = std::chrono::steady_clock::now();
    (*this)();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  double mebibytes() const { return static_cast<double>(plan_.bytes()) / (1 << 20); }

 private:
  cpu::Context& ctx_;
  F pass_;
  Plan plan_;
};

/// The step on one batch.
struct Step {
  std::int64_t batch, store_limit;
  std::vector<float> x = normal_values(batch * dim, 2, 1.f);
  std::vector<float> dx = std::vector<float>(x.size(), 0.f), loss = std::vector<float>(1);
  std::vector<std::int64_t> labels = some_labels();
  ArcMarginPolicy<float> policy{0.2, 30};

  std::vector<std::int64_t> some_labels() const {
    std::vector<std::int64_t> all;
    for (std::int64_t b = 0; b < batch; ++b) all.push_back(b * 2897 % classes);
    return all;
  }
  void operator()(cpu::Context& ctx) {
    Head& h = head();
    kernels::margin_softmax(ctx, policy, View<const float>{x.data(), {batch, dim}},
                            View<const float>{h.w.data(), {classes, dim}}, labels.data(), 0.f, 1.f,
                            View<float>{loss.data(), {1}}, View<float>{dx.data(), {batch, dim}},
                            View<float>{h.dw.data(), {classes, dim}}, store_limit);
  }
  bool keeps_cosines() const { return batch * classes * 4 <= store_limit; }
  double products() const { return keeps_cosines() ? 3 : 4; }
  const char* label() const { return keeps_cosines() ? "cosines kept" : "cosines computed again"; }
};

double product_operations(std::int64_t batch) {
  return 2.0 * static_cast<double>(batch * dim * classes);
}

void margin_step(benchmark::State& state) {
  cpu::Context ctx;
  Step step{state.range(0), kernels::margin_softmax_store_limit};
  Planned pass(ctx, [&] { step(ctx); });
  for (auto _ : state) pass();
  state.counters["GFLOP/s"] =
      benchmark::Counter(1e-9 * step.products() * product_operations(step.batch),
                         benchmark::Counter::kIsIterationInvariantRate);
  state.counters["MiB planned"] = pass.mebibytes();
  state.SetLabel(step.label());
}

/// The time of an iteration is that of the step.
void margin_limit(benchmark::State& state) {
  const bool keep = state.range(1) != 0;
  cpu::Context ctx;
  Step step{state.range(0), keep ? kernels::margin_softmax_store_limit : 0};
  Planned pass(ctx, [&] { step(ctx); });
  const auto u = normal_values(dim * step.batch, 3, 1.f);
  std::vector<float> cosines(static_cast<std::size_t>(classes * step.batch));
  Planned product(ctx, [&] {
    kernels::gemm(ctx, Transpose::no, Transpose::no,
                  View<const float>{head().w.data(), {classes, dim}},
                  View<const float>{u.data(), {dim, step.batch}},
                  View<float>{cosines.data(), {classes, step.batch}});
  });
  std::vector<double> of_step, of_product;
  for (auto _ : state) {
    of_product.push_back(product.seconds());
    of_step.push_back(pass.seconds());
    state.SetIterationTime(of_step.back());
  }
  const double one = benchmarks::median(of_product), all = benchmarks::median(of_step);
  state.counters["product, ms"] = 1e3 * one;
  state.counters["product, GFLOP/s"] = 1e-9 * product_operations(step.batch) / one;
  state.counters["step, GFLOP/s"] = 1e-9 * step.products() * product_operations(step.batch) / all;
  state.counters["% of limit"] = 100 * step.products() * one / all;
  state.SetLabel(step.label());
}

/// The time of an iteration is that of the step with its update in the tiles.
void margin_update(benchmark::State& state) {
  using Array = std::vector<float>;
  cpu::Context ctx;
  Head& h = head();
  Step step{state.range(0), kernels::margin_softmax_store_limit};
  Array velocity(h.w.size(), 0.f);
  std::vector<Array> moments(1, std::move(velocity));
  const optim::Momentum momentum{.weight_decay = 5e-4};
  const optim::Range range{.end = classes * dim, .decay = 5e-4};
  const optim::Update<float> update{h.w, h.dw, moments, 1e-3, 1};
  float finite = 0;
  Planned after(ctx, [&] {
    const View<float> dw{h.dw.data(), {classes * dim}};
    kernels::fill(ctx, 0.f, dw);
    step(ctx);
    kernels::all_finite(ctx, View<const float>(dw), View<float>{&finite, {1}});
    if (!ctx.planning()) momentum.update(ctx, std::span(&range, 1), update);
  });
  const optim::RowStep<cpu::Context, float, Array, optim::Momentum> rows(momentum, range, update);
  Planned in_tile(ctx, [&] {
    kernels::margin_softmax_update(
        ctx, step.policy, View<const float>{step.x.data(), {step.batch, dim}},
        View<const float>{h.w.data(), {classes, dim}}, step.labels.data(), 0.f, 1.f,
        View<float>{step.loss.data(), {1}}, View<float>{step.dx.data(), {step.batch, dim}}, rows,
        View<float>{&finite, {1}}, step.store_limit);
  });
  std::vector<double> of_after, of_tile;
  for (auto _ : state) {
    of_after.push_back(after.seconds());
    of_tile.push_back(in_tile.seconds());
    state.SetIterationTime(of_tile.back());
  }
  state.counters["after the pass, ms"] = 1e3 * benchmarks::median(of_after);
  state.counters["times faster"] = benchmarks::median(of_after) / benchmarks::median(of_tile);
  state.counters["MiB planned"] = in_tile.mebibytes();
  state.counters["MiB planned, after"] = after.mebibytes() + 4.0 * classes * dim / (1 << 20);
  state.SetLabel(step.label());
}

BENCHMARK(margin_step)
    ->Name("MarginStep")
    ->Args({64, dim, classes})
    ->Args({512, dim, classes})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(margin_limit)
    ->Name("MarginLimit")
    ->ArgNames({"", "keep"})
    ->Args({64, 1})
    ->Args({64, 0})
    ->Args({512, 0})
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime()
    ->Iterations(5);
BENCHMARK(margin_update)
    ->Name("MarginUpdate")
    ->Arg(64)
    ->Arg(512)
    ->Unit(benchmark::kMillisecond)
    ->UseManualTime()
    ->Iterations(5);

}  // namespace

BENCHMARK_MAIN();
