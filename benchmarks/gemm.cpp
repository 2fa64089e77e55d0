// Matrix products of the sizes networks have, against Eigen, oneDNN and the FMA rate of the cores.
//   build/benchmarks/gemm --benchmark_enable_random_interleaving --benchmark_repetitions=5
// Names are gemm/<who>/<m>x<n>x<k><op(a)><op(b)>/<threads>; read the medians of GFLOP/s.

#include <kindred/kernels/cpu/gemm.hpp>

#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <string>
#include <vector>

#if defined(KINDRED_WITH_DNNL) && __has_include(<oneapi/dnnl/dnnl.hpp>)
#include <oneapi/dnnl/dnnl.hpp>
#define KINDRED_COMPARE_DNNL
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using namespace kindred;

struct Problem {
  std::int64_t m, n, k;
  Transpose ta = Transpose::no, tb = Transpose::no;
};

void set_threads(int threads) {
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
  Eigen::setNbThreads(threads);
}

void report(benchmark::State& state, double flops_per_iteration) {
  state.counters["GFLOP/s"] =
      benchmark::Counter(1e-9 * flops_per_iteration, benchmark::Counter::kIsIterationInvariantRate);
}

/// Independent fused multiply-adds in registers: the most that any kernel can reach.
void fma_peak(benchmark::State& state, int threads) {
  using V = cpu::Vector<float>;
  constexpr int sums = cpu::GemmTile<float>::many_registers ? 24 : 12, rounds = 20000;
  cpu::Context ctx(threads);
  for (auto _ : state) {
    ctx.parallel_for(threads, [&](std::int64_t) {
      V sum[sums], factor(1.0000001f), term(1e-7f);
      benchmark::DoNotOptimize(factor);
      benchmark::DoNotOptimize(term);
#pragma GCC unroll 32
      for (int i = 0; i < sums; ++i) sum[i] = V(static_cast<float>(i));
      for (int r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
        for (int i = 0; i < sums; ++i) sum[i] = xsimd::fma(sum[i], factor, term);
      }
#pragma GCC unroll 32
      for (int i = 0; i < sums; ++i) benchmark::DoNotOptimize(sum[i]);
    });
  }
  report(state, 2.0 * threads * sums * rounds * static_cast<double>(V::size));
}

struct Arrays {
  std::vector<float> a, b, c;
  explicit Arrays(const Problem& p)
      : a(static_cast<std::size_t>(p.m * p.k), 0.5f),
        b(static_cast<std::size_t>(p.k * p.n), 0.25f),
        c(static_cast<std::size_t>(p.m * p.n)) {}
};

void kindred_gemm(benchmark::State& state, const Problem& p, int threads) {
  Arrays x(p);
  cpu::Context ctx(threads);
  auto pass = [&] {
    cpu::gemm(ctx, p.ta, p.tb, p.m, p.n, p.k, x.a.data(), p.ta == Transpose::no ? p.k : p.m,
              x.b.data(), p.tb == Transpose::no ? p.n : p.k, x.c.data(), p.n, false);
  };
  ctx.arena().begin_recording();
  pass();
  const Plan plan = ctx.arena().end_recording();
  for (auto _ : state) {
    ctx.arena().begin_replay(plan);
    pass();
    benchmark::ClobberMemory();
  }
  report(state, 2.0 * static_cast<double>(p.m * p.n * p.k));
}

void eigen_gemm(benchmark::State& state, const Problem& p, int threads) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Arrays x(p);
  set_threads(threads);
  Eigen::Map<Matrix> a(x.a.data(), p.ta == Transpose::no ? p.m : p.k,
                       p.ta == Transpose::no ? p.k : p.m);
  Eigen::Map<Matrix> b(x.b.data(), p.tb == Transpose::no ? p.k : p.n,
                       p.tb == Transpose::no ? p.n : p.k);
  Eigen::Map<Matrix> c(x.c.data(), p.m, p.n);
  for (auto _ : state) {
    if (p.ta == Transpose::no && p.tb == Transpose::no)
      c.noalias() = a * b;
    else if (p.ta == Transpose::no)
      c.noalias() = a * b.transpose();
    else
      c.noalias() = a.transpose() * b;
    benchmark::ClobberMemory();
  }
  report(state, 2.0 * static_cast<double>(p.m * p.n * p.k));
}

#ifdef KINDRED_COMPARE_DNNL
void dnnl_gemm(benchmark::State& state, const Problem& p, int threads) {
  Arrays x(p);
  set_threads(threads);
  for (auto _ : state) {
    dnnl_sgemm(p.ta == Transpose::no ? 'N' : 'T', p.tb == Transpose::no ? 'N' : 'T', p.m, p.n, p.k,
               1.0f, x.a.data(), p.ta == Transpose::no ? p.k : p.m, x.b.data(),
               p.tb == Transpose::no ? p.n : p.k, 0.0f, x.c.data(), p.n);
    benchmark::ClobberMemory();
  }
  report(state, 2.0 * static_cast<double>(p.m * p.n * p.k));
}
#endif

void register_all() {
  constexpr auto no = Transpose::no, yes = Transpose::yes;
  const Problem problems[] = {
      {1152, 1152, 1152},
      {49, 512, 512},    // batch 1, 7 x 7
      {196, 256, 256},   // batch 1, 14 x 14
      {784, 128, 128},   // batch 1, 28 x 28
      {1568, 512, 512},  // batch 32, 7 x 7
      {1568, 1280, 1280},
      {6272, 256, 256},  // batch 32, 14 x 14
      {6272, 640, 320},
      {25088, 128, 128},          // batch 32, 28 x 28
      {100352, 64, 64},           // batch 32, 56 x 56
      {401408, 32, 16},           // batch 32, 112 x 112
      {6272, 256, 256, no, yes},  // their gradients
      {256, 256, 6272, yes, no},
      {1280, 1280, 1568, yes, no},
      {64, 64, 100352, yes, no},
      {64, 4096, 512, no, yes},  // a tile of classes of a margin head, and its gradients
      {64, 512, 4096},
      {4096, 512, 64, yes, no},
  };
  auto add = [](std::string name, auto f) {
    benchmark::RegisterBenchmark(name.c_str(), f)->UseRealTime()->MinTime(0.1);
  };
  for (int threads : {1, 2}) {
    const std::string tail = text("/", threads);
    add("gemm/fma_peak" + tail, [=](benchmark::State& s) { fma_peak(s, threads); });
    for (const Problem& p : problems) {
      const std::string name =
          text(p.m, "x", p.n, "x", p.k, p.ta == yes ? "T" : "N", p.tb == yes ? "T" : "N", tail);
      add(text("gemm/kindred/", name), [=](benchmark::State& s) { kindred_gemm(s, p, threads); });
      add(text("gemm/eigen/", name), [=](benchmark::State& s) { eigen_gemm(s, p, threads); });
#ifdef KINDRED_COMPARE_DNNL
      add(text("gemm/dnnl/", name), [=](benchmark::State& s) { dnnl_gemm(s, p, threads); });
#endif
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
