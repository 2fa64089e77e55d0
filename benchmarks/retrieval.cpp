// A whole test set of 60,502 features of 512 numbers (Stanford Online Products) as queries and as
// gallery: all metrics over the full ranking, and the 100 most similar of every query.
//   build/benchmarks/retrieval [--benchmark_filter=TopK]
// Names: Ranking/IMAGES/COLUMNS, TopK/IMAGES/COLUMNS/K. TopK compares dot products of features that
// are normalised already and excludes nothing, which is what FAISS's IndexFlatIP computes.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include <kindred/core/random.hpp>
#include <kindred/eval/retrieval.hpp>

namespace {

using namespace kindred;

/// Normalised features that scatter around the centres of classes of five images, so that metrics
/// are neither 0 nor 1.
struct TestSet {
  Shape shape;
  std::vector<float> features;
  std::vector<std::int64_t> labels, ids;

  TestSet(std::int64_t images, std::int64_t columns) : shape{images, columns} {
    constexpr std::int64_t per_class = 5;
    features.resize(static_cast<std::size_t>(shape.size()));
    ids.resize(static_cast<std::size_t>(images));
    std::iota(ids.begin(), ids.end(), std::int64_t{0});
    for (const std::int64_t id : ids) labels.push_back(id / per_class);
    cpu::Context ctx;
    ctx.parallel_for(images, [&](std::int64_t i) {
      const auto step = static_cast<std::uint64_t>(i);
      RandomSequence center({1, 0, step / per_class}), scatter({1, 1, step});
      for (std::int64_t c = 0; c < columns; ++c)
        features[static_cast<std::size_t>(i * columns + c)] =
            static_cast<float>(center.uniform(-1, 1) + scatter.uniform(-2.5, 2.5));
    });
    ctx.parallel_ranges(images, 64, [&](std::int64_t begin, std::int64_t end) {
      float* rows = features.data() + begin * columns;
      eval::detail::normalize_rows(end - begin, columns, rows, rows);
    });
  }
  View<const float> view() const { return {features.data(), shape}; }

  void report(benchmark::State& state) const {
    const auto images = static_cast<double>(shape[0]);
    state.counters["GFLOP/s"] =
        benchmark::Counter(2e-9 * images * images * static_cast<double>(shape[1]),
                           benchmark::Counter::kIsIterationInvariantRate);
    state.counters["MiB planned"] =
        static_cast<double>(eval::retrieval_scratch_bytes(shape, shape, {.normalize = false})) /
        (1 << 20);
  }
};

void ranking(benchmark::State& state) {
  const TestSet t(state.range(0), state.range(1));
  const eval::FeatureSet set{.features = t.view(), .labels = t.labels, .ids = t.ids};
  double recall = 0;
  for (auto _ : state)
    recall = eval::evaluate_retrieval(set, set, {.normalize = false}).recall_of(1);
  t.report(state);
  state.counters["recall@1"] = recall;
}

void top_k(benchmark::State& state) {
  const TestSet t(state.range(0), state.range(1));
  const eval::FeatureSet set{.features = t.view()};
  for (auto _ : state)
    benchmark::DoNotOptimize(eval::top_k(set, set, state.range(2), {.normalize = false}));
  t.report(state);
}

BENCHMARK(ranking)
    ->Name("Ranking")
    ->Args({60502, 512})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(top_k)
    ->Name("TopK")
    ->Args({60502, 512, 100})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace

BENCHMARK_MAIN();
