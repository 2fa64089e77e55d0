// Exact Hamming search: how fast codes pass, beside the copy and read bandwidth of the machine.
//   build/benchmarks/hamming [--benchmark_filter=Search]
// Names: Search/QUERIES/CODES/BITS, the 100 nearest of every query on one thread; Limit/copy and
// Limit/read the same memory without a search, on one thread. "GB/s of codes" counts every code
// once for every query that it is compared with: one query is bound by memory, many by arithmetic.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include <kindred/core/random.hpp>
#include <kindred/eval/hamming.hpp>

#include "limits.hpp"

namespace {

using namespace kindred;

std::vector<std::uint8_t> random_codes(std::int64_t codes, std::int64_t bytes) {
  std::vector<std::uint8_t> result(static_cast<std::size_t>(codes * bytes));
  RandomSequence random({1, 2, 3});
  for (std::size_t i = 0; i + 4 <= result.size(); i += 4) {
    const std::uint32_t word = random();
    std::memcpy(result.data() + i, &word, sizeof word);
  }
  return result;
}

void search(benchmark::State& state) {
  const std::int64_t queries = state.range(0), codes = state.range(1), bytes = state.range(2) / 8;
  const auto gallery = random_codes(codes, bytes), query = random_codes(queries, bytes);
  for (auto _ : state)
    benchmark::DoNotOptimize(eval::hamming_top_k({.codes = {query.data(), {queries, bytes}}},
                                                 {.codes = {gallery.data(), {codes, bytes}}}, 100,
                                                 1));
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["GB/s of codes"] =
      benchmark::Counter(1e-9 * static_cast<double>(queries * codes * bytes), rate);
  state.counters["queries/s"] = benchmark::Counter(static_cast<double>(queries), rate);
}

constexpr std::int64_t limit_floats = 16 << 20;  // 64 MiB, as the largest gallery below

void limit_copy(benchmark::State& state) {
  cpu::Context ctx(1);
  const std::vector<float> from(limit_floats, 1.f);
  std::vector<float> to(limit_floats);
  for (auto _ : state) benchmarks::copy_floats(ctx, limit_floats, from.data(), to.data());
  state.counters["GB/s read and written"] =
      benchmark::Counter(8e-9 * limit_floats, benchmark::Counter::kIsIterationInvariantRate);
}
void limit_read(benchmark::State& state) {
  cpu::Context ctx(1);
  const std::vector<float> from(limit_floats, 1.f);
  for (auto _ : state) benchmarks::read_floats(ctx, limit_floats, from.data());
  state.counters["GB/s read"] =
      benchmark::Counter(4e-9 * limit_floats, benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(limit_copy)->Name("Limit/copy")->Unit(benchmark::kMillisecond);
BENCHMARK(limit_read)->Name("Limit/read")->Unit(benchmark::kMillisecond);
BENCHMARK(search)
    ->Name("Search")
    ->Args({1, 8 << 20, 64})
    ->Args({1, 4 << 20, 128})
    ->Args({1, 1 << 20, 512})
    ->Args({64, 1 << 20, 64})
    ->Args({64, 1 << 19, 128})
    ->Args({64, 1 << 17, 512})
    ->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
