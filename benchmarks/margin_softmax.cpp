// How close is the ArcMargin + CELoss step to the limit of its matrix products?
// Compares, in one run: the fused step with the cosines kept between the passes and with the
// cosines computed again, and one matrix product [C,D] x [D,B] of the same size.
// Reported: operations per second (three products, four when cosines are computed again) and the
// bytes planned above centres and their gradient.

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include <kindred/core/random.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/gemm.hpp>
#include <kindred/kernels/margin_softmax.hpp>

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

void margin_step(benchmark::State& state, std::int64_t store_limit) {
  const std::int64_t batch = state.range(0);
  Head& h = head();
  auto x = normal_values(batch * dim, 2, 1.f);
  std::vector<float> dx(x.size(), 0.f), loss(1);
  std::vector<std::int64_t> labels;
  for (std::int64_t b = 0; b < batch; ++b) labels.push_back(b * 2897 % classes);
  const ArcMarginPolicy<float> policy(0.2, 30);
  cpu::Context ctx;
  auto step = [&] {
    kernels::margin_softmax(ctx, policy, View<const float>{x.data(), {batch, dim}},
                            View<const float>{h.w.data(), {classes, dim}}, labels.data(), 0.f, 1.f,
                            View<float>{loss.data(), {1}}, View<float>{dx.data(), {batch, dim}},
                            View<float>{h.dw.data(), {classes, dim}}, store_limit);
  };
  ctx.arena().begin_recording();
  step();
  const Plan plan = ctx.arena().end_recording();
  ctx.arena().begin_replay(plan);  // the first step meets fresh memory
  step();
  for (auto _ : state) {
    ctx.arena().begin_replay(plan);
    step();
  }
  const bool stored = batch * classes * 4 <= store_limit;
  const double operations = (stored ? 3.0 : 4.0) * 2.0 * static_cast<double>(batch * dim * classes);
  state.counters["GFLOP/s"] =
      benchmark::Counter(operations * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["MiB planned"] = static_cast<double>(plan.bytes()) / (1 << 20);
  state.SetLabel(stored ? "cosines kept" : "cosines computed again");
}

void margin_default(benchmark::State& state) {
  margin_step(state, kernels::margin_softmax_store_limit);
}
void margin_recomputed(benchmark::State& state) { margin_step(state, 0); }

/// One product of the step alone: its rate is the limit.
void product(benchmark::State& state) {
  const std::int64_t batch = state.range(0);
  Head& h = head();
  const auto u = normal_values(dim * batch, 3, 1.f);
  std::vector<float> cosines(static_cast<std::size_t>(classes * batch));
  cpu::Context ctx;
  auto multiply = [&] {
    kernels::gemm(ctx, Transpose::no, Transpose::no, View<const float>{h.w.data(), {classes, dim}},
                  View<const float>{u.data(), {dim, batch}},
                  View<float>{cosines.data(), {classes, batch}});
  };
  ctx.arena().begin_recording();
  multiply();
  const Plan plan = ctx.arena().end_recording();
  ctx.arena().begin_replay(plan);
  multiply();
  for (auto _ : state) {
    ctx.arena().begin_replay(plan);
    multiply();
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(batch * dim * classes),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(product)->Arg(64)->Arg(512)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(margin_default)
    ->Name("MarginStep")
    ->Args({64, dim, classes})
    ->Args({512, dim, classes})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(margin_recomputed)->Arg(64)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
