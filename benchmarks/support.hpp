#pragma once
// What the tables of gemm.cpp and layers.cpp share: contestants of one question run in turns within
// one process, beside the machine's own limits, and their medians.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <Eigen/Core>

#include <kindred/core/context.hpp>

#ifdef KINDRED_WITH_DNNL
#include <omp.h>
#endif

namespace kindred::benchmarks {

/// Threads of the peers that use OpenMP; kindred's are those of its context.
inline void set_peer_threads([[maybe_unused]] int threads) {
  Eigen::setNbThreads(threads);
#ifdef KINDRED_WITH_DNNL
  omp_set_num_threads(threads);
#endif
}

/// A pass of kernels whose scratch memory is planned now and used again at every call.
template <class F>
std::function<void()> planned(cpu::Context& ctx, F pass) {
  ctx.arena().begin_recording();
  pass();
  return [&ctx, pass, plan = ctx.arena().end_recording()] {
    ctx.arena().begin_replay(plan);
    pass();
  };
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

inline double geometric_mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += std::log(v);
  return std::exp(sum / static_cast<double>(values.size()));
}

/// Seconds of `count` calls of f.
inline double seconds_of(const std::function<void()>& f, std::int64_t count) {
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < count; ++i) f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Median seconds per call of every contestant, but of the first `limits`, which measure what the
/// machine can do, those of their best round: whatever disturbs them only hides the limit. Every
/// round runs all of them, each round beginning with another one; a run lasts at least `least`
/// seconds.
inline std::vector<double> interleaved(const std::vector<std::function<void()>>& contestants,
                                       std::size_t limits, int rounds, double least = 0.01) {
  // The workers of OpenMP spin this long after a loop before they leave the core to others.
  constexpr auto spinning_ends = std::chrono::milliseconds(5);
  std::vector<std::int64_t> counts;
  for (const auto& f : contestants) {
    f();  // meets fresh memory and, in some libraries, compiles
    const double once = std::max(seconds_of(f, 1), 1e-9);
    counts.push_back(std::max<std::int64_t>(1, static_cast<std::int64_t>(least / once)));
  }
  std::vector<std::vector<double>> times(contestants.size());
  for (int round = 0; round < rounds; ++round)
    for (std::size_t turn = 0; turn < contestants.size(); ++turn) {
      const std::size_t i = (turn + static_cast<std::size_t>(round)) % contestants.size();
      std::this_thread::sleep_for(spinning_ends);
      contestants[i]();  // its arrays back into the caches
      times[i].push_back(seconds_of(contestants[i], counts[i]) / static_cast<double>(counts[i]));
    }
  std::vector<double> result;
  for (std::size_t i = 0; i < times.size(); ++i)
    result.push_back(i < limits ? *std::min_element(times[i].begin(), times[i].end())
                                : median(times[i]));
  return result;
}

/// One row of a Markdown table.
inline void print_row(const std::vector<std::string>& cells) {
  for (const std::string& cell : cells) std::printf("| %s ", cell.c_str());
  std::printf("|\n");
  std::fflush(stdout);
}
/// The first column is text, the others are numbers.
inline void print_header(const std::vector<std::string>& cells) {
  print_row(cells);
  std::printf("|---");
  for (std::size_t i = 1; i < cells.size(); ++i) std::printf("|---:");
  std::printf("|\n");
}
inline std::string number(double value, int decimals) {
  char digits[64];
  std::snprintf(digits, sizeof digits, "%.*f", decimals, value);
  return digits;
}

}  // namespace kindred::benchmarks
