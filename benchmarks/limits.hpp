#pragma once
// What the machine itself can do, in the forms that kernels meet it: fused multiply-adds on values
// in registers, and arrays copied or read by plain vector loads and stores.

#include <benchmark/benchmark.h>

#include <cstdint>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/simd.hpp>

namespace kindred::benchmarks {

/// Runs a fixed number of independent fused multiply-adds on every thread of the context; returns
/// how many operations (two for each multiply-add) they are in all.
inline double multiply_adds(cpu::Context& ctx) {
  using V = cpu::Vector<float>;
  // Two units of latency 4 need 8 sums at a time; 12, a factor and a term fit 16 registers.
  constexpr int sums = 12, rounds = 40000;
  ctx.parallel_for(ctx.threads(), [](std::int64_t) {
    V sum[sums], factor(1.0000001f), term(1e-7f);
    benchmark::DoNotOptimize(factor);
    benchmark::DoNotOptimize(term);
#pragma GCC unroll 12
    for (int i = 0; i < sums; ++i) sum[i] = V(static_cast<float>(i));
    for (int r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
      for (int i = 0; i < sums; ++i) sum[i] = xsimd::fma(sum[i], factor, term);
    }
#pragma GCC unroll 12
    for (int i = 0; i < sums; ++i) benchmark::DoNotOptimize(sum[i]);
  });
  return 2.0 * ctx.threads() * sums * rounds * static_cast<double>(V::size);
}

/// Elements in one chunk of the loops below: 64 KiB.
inline constexpr std::int64_t limit_chunk = 16384;

/// to = from for n floats: reads 4n bytes and writes as many.
inline void copy_floats(cpu::Context& ctx, std::int64_t n, const float* from, float* to) {
  using V = cpu::Vector<float>;
  constexpr std::int64_t width = cpu::vector_size<float>;
  ctx.parallel_ranges(n, limit_chunk, [=](std::int64_t begin, std::int64_t end) {
    std::int64_t i = begin;
    for (; i + width <= end; i += width) V::load_unaligned(from + i).store_unaligned(to + i);
    for (; i < end; ++i) to[i] = from[i];
    benchmark::ClobberMemory();
  });
}

/// Reads n floats; n is a multiple of the chunk.
inline void read_floats(cpu::Context& ctx, std::int64_t n, const float* from) {
  using V = cpu::Vector<float>;
  constexpr std::int64_t width = cpu::vector_size<float>, sums = 8;
  static_assert(limit_chunk % (width * sums) == 0);
  ctx.parallel_ranges(n, limit_chunk, [=](std::int64_t begin, std::int64_t end) {
    V sum[sums];
    for (V& s : sum) s = V(0.f);
    for (std::int64_t i = begin; i < end; i += width * sums) {
#pragma GCC unroll 8
      for (std::int64_t v = 0; v < sums; ++v) sum[v] += V::load_unaligned(from + i + v * width);
    }
    for (V& s : sum) benchmark::DoNotOptimize(s);
  });
}

}  // namespace kindred::benchmarks
