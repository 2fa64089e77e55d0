// How long the retrieval metrics of a whole test set take, and in how much memory.
//   retrieval [--images 10000] [--columns 512] [--per-class 5] [--threads 0] [--top-k 0]
// Stanford Online Products' test set is --images 60502.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <vector>

#include <kindred/core/random.hpp>
#include <kindred/eval/retrieval.hpp>

using namespace kindred;

namespace {

struct Settings {
  std::int64_t images = 10000, columns = 512, per_class = 5, top_k = 0;
  int threads = 0;
};

/// Features that scatter around a centre per class, so that metrics are neither 0 nor 1.
std::vector<float> synthetic_features(const Settings& s) {
  std::vector<float> features(static_cast<std::size_t>(s.images * s.columns));
  cpu::Context ctx(s.threads);
  ctx.parallel_for(s.images, [&](std::int64_t i) {
    const auto step = static_cast<std::uint64_t>(i);
    RandomSequence center({1, 0, step / static_cast<std::uint64_t>(s.per_class)});
    RandomSequence scatter({1, 1, step});
    for (std::int64_t c = 0; c < s.columns; ++c)
      features[static_cast<std::size_t>(i * s.columns + c)] =
          static_cast<float>(center.uniform(-1, 1) + scatter.uniform(-2.5, 2.5));
  });
  return features;
}

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

template <class F>
void report(const char* what, const Settings& s, F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto images = static_cast<double>(s.images);
  const double flop = 2 * images * images * static_cast<double>(s.columns);
  std::printf("%s: %.2f s, %.1f GFLOP/s, peak resident %.0f MB\n", what, seconds,
              flop / seconds * 1e-9, peak_megabytes());
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  CLI::App app("Time and memory of the retrieval metrics: every image is query and gallery");
  app.add_option("--images", s.images)->check(CLI::Range(2, 10000000));
  app.add_option("--columns", s.columns)->check(CLI::Range(1, 65536));
  app.add_option("--per-class", s.per_class)->check(CLI::Range(2, 100000));
  app.add_option("--threads", s.threads, "0: all");
  app.add_option("--top-k", s.top_k, "also time top_k with this k");
  CLI11_PARSE(app, argc, argv);

  const std::vector<float> features = synthetic_features(s);
  std::vector<std::int64_t> labels(static_cast<std::size_t>(s.images)), ids(labels.size());
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = ids[i] / s.per_class;
  const Shape shape{s.images, s.columns};
  const eval::FeatureSet set{.features = {features.data(), shape}, .labels = labels, .ids = ids};
  const eval::RetrievalOptions options{.threads = s.threads};

  std::printf("%lld x %lld x %lld, scratch planned %.0f MB, features %.0f MB\n",
              static_cast<long long>(s.images), static_cast<long long>(s.images),
              static_cast<long long>(s.columns),
              static_cast<double>(eval::retrieval_scratch_bytes(shape, shape, options)) / 1048576,
              static_cast<double>(features.size() * sizeof(float)) / 1048576);
  report("evaluate_retrieval", s,
         [&] { std::cout << eval::evaluate_retrieval(set, set, options) << '\n'; });
  if (s.top_k > 0) report("top_k", s, [&] { eval::top_k(set, set, s.top_k, options); });
}
