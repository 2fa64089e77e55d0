// The machine's own limits for 1 and all threads: fused multiply-adds per second, and copy and read
// bandwidth of arrays that fit a core's cache, and of arrays far larger.
//   build/benchmarks/roofline --benchmark_repetitions=5
// A copy counts the bytes read and the bytes written, not the line that a store reads first.

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "limits.hpp"

namespace {

using namespace kindred;

void fma(benchmark::State& state, int threads) {
  cpu::Context ctx(threads);
  double operations = 0;
  for (auto _ : state) operations = benchmarks::multiply_adds(ctx);
  state.counters["GFLOP/s"] =
      benchmark::Counter(1e-9 * operations, benchmark::Counter::kIsIterationInvariantRate);
}

void report_bytes(benchmark::State& state, std::int64_t bytes) {
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(bytes),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void copy(benchmark::State& state, int threads, std::int64_t bytes) {
  cpu::Context ctx(threads);
  const std::vector<float> from(static_cast<std::size_t>(bytes / 8), 1.f);
  std::vector<float> to(from.size());
  for (auto _ : state) benchmarks::copy_floats(ctx, bytes / 8, from.data(), to.data());
  report_bytes(state, bytes);
}

void read(benchmark::State& state, int threads, std::int64_t bytes) {
  cpu::Context ctx(threads);
  const std::vector<float> from(static_cast<std::size_t>(bytes / 4), 1.f);
  for (auto _ : state) benchmarks::read_floats(ctx, bytes / 4, from.data());
  report_bytes(state, bytes);
}

void register_all(int threads) {
  constexpr std::int64_t mebibyte = std::int64_t{1} << 20;
  const auto add = [threads](const std::string& name, auto f) {
    const std::string full = text(name, '/', threads);
    benchmark::RegisterBenchmark(full.c_str(), f)->UseRealTime()->MinTime(0.2);
  };
  add("fma", [=](benchmark::State& s) { fma(s, threads); });
  for (const std::int64_t size : {1, 64, 1024}) {
    add(text("copy/", size, "_MiB"),
        [=](benchmark::State& s) { copy(s, threads, size * mebibyte); });
    add(text("read/", size, "_MiB"),
        [=](benchmark::State& s) { read(s, threads, size * mebibyte); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_all(1);
  const int all = cpu::available_processors();
  if (all > 1) register_all(all);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
