#pragma once
// The innermost step of products of BF16 factors: a panel of A times a sliver of B, summed up in
// float registers. See gemm_bf16.hpp for the whole.
//
// What a register holds of the factors are pairs: two BF16 numbers that follow each other along the
// sum, in one 32-bit lane, the first in the lower half. AVX512_BF16 has one instruction for the
// product of two vectors of pairs, 32 multiply-adds at the rate of 16 in float; elsewhere a pair is
// two multiply-adds in float, in the same order. Both give the same bits, but for numbers below
// 2^-126, which the instruction takes for zero.

#include <cstdint>
#include <cstring>

#include <kindred/kernels/cpu/gemm_tile.hpp>

namespace kindred::cpu {

/// Sizes of the tiles on the compile target.
struct PairTile {
#ifdef __AVX512BF16__
  static constexpr bool has_instruction = true;
#else
  static constexpr bool has_instruction = false;  // pairs are taken apart in registers
#endif
  static constexpr bool many_registers = GemmTile<float>::many_registers;
  static constexpr std::int64_t width = vector_size<float>;
  /// Rows and columns of a full tile.
  static constexpr std::int64_t rows = has_instruction ? 14 : many_registers ? 12 : 4;
  static constexpr std::int64_t columns = 2 * width;
  /// Panels at the lower edge are computed with the smallest of these heights that holds them.
  static constexpr std::int64_t heights[3] = {rows, many_registers ? 8 : 2, many_registers ? 4 : 1};

  static constexpr std::int64_t height(std::int64_t remaining) {
    return remaining <= heights[2] ? heights[2] : remaining <= heights[1] ? heights[1] : heights[0];
  }
  /// Columns of a sliver of B of which `columns` are used.
  static constexpr std::int64_t sliver(std::int64_t used) { return used > width ? columns : width; }
};

using Pairs = Vector<std::uint32_t>;
static_assert(sizeof(Pairs) == sizeof(Vector<float>));

/// The pair at p in all lanes.
inline Pairs broadcast_pair(const BFloat16* p) {
  std::uint32_t pair;
  std::memcpy(&pair, p, sizeof pair);
  return Pairs(pair);
}
inline Pairs load_pairs(const BFloat16* p) {
  return Pairs::load_aligned(reinterpret_cast<const std::uint32_t*>(p));
}
inline void store_pairs(BFloat16* p, const Pairs& v) {
  v.store_unaligned(reinterpret_cast<std::uint32_t*>(p));
}

/// sum + a b in each lane: the second products of the pairs are added first.
[[gnu::always_inline]] inline Vector<float> add_products(const Pairs& a, const Pairs& b,
                                                         const Vector<float>& sum) {
#if defined(__AVX512BF16__) && !defined(__CUDACC__)  // nvcc does not know the type
  if constexpr (sizeof(Pairs) == 64) {
    const __m512i left = a, right = b;
    return _mm512_dpbf16_ps(sum, (__m512bh)left, (__m512bh)right);
  }
#endif
  const Pairs upper(0xFFFF0000u);
  const auto number = [](const Pairs& bits) {
    Vector<float> v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  };
  const Vector<float> second = xsimd::fma(number(a & upper), number(b & upper), sum);
  return xsimd::fma(number(a << 16), number(b << 16), second);
}

/// A panel of A: the pairs of one row follow each other, or those of one column.
struct PairPanel {
  const BFloat16* data;
  std::int64_t step;  ///< elements between rows, or between columns of pairs
};

/// c[H, V vectors] (+)= panel times sliver. Sums are stored rounded if Out is BFloat16.
template <std::int64_t H, std::int64_t V, bool by_columns, class Out>
void multiply_pairs(std::int64_t pairs, PairPanel panel, const BFloat16* b, Out* c,
                    std::int64_t ldc, bool accumulate) {
  constexpr std::int64_t width = PairTile::width;
  // Every third row has a pointer, the next two are one and two distances from it, which is what
  // addresses of x86 can say.
  constexpr std::int64_t rows_per_pointer = by_columns ? H : 3;
  const std::int64_t row_step = by_columns ? 2 : panel.step;
  const std::int64_t pair_step = by_columns ? panel.step : 2;
  const BFloat16* a[divide_up(H, rows_per_pointer)];
#pragma GCC unroll 16
  for (std::int64_t i = 0; i < H; i += rows_per_pointer)
    a[i / rows_per_pointer] = panel.data + i * row_step;
  Vector<float> sum[V][H];
#pragma GCC unroll 16
  for (std::int64_t v = 0; v < V; ++v) {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) sum[v][i] = Vector<float>(0.f);
  }
  auto step = [&]() __attribute__((always_inline)) {
    Pairs right[V];
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < V; ++v) right[v] = load_pairs(b + v * 2 * width);
    b += V * 2 * width;
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) {
      const Pairs left = broadcast_pair(a[i / rows_per_pointer] + i % rows_per_pointer * row_step);
#pragma GCC unroll 16
      for (std::int64_t v = 0; v < V; ++v) sum[v][i] = add_products(left, right[v], sum[v][i]);
    }
    for (const BFloat16*& pointer : a) pointer += pair_step;
  };
  // Two at a time, and a row of C asked for with each: see multiply_tile().
  const Out* row = c;
  std::int64_t rows_left = H;
  for (std::int64_t p = pairs / 2; p > 0; --p) {
    __builtin_prefetch(row, 1);
    if constexpr (V > 1) __builtin_prefetch(row + V * width - 1, 1);
    row += --rows_left > 0 ? ldc : 0;
    step();
    step();
  }
  if (pairs % 2 != 0) step();
#pragma GCC unroll 16
  for (std::int64_t v = 0; v < V; ++v) {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) {
      Out* to = c + i * ldc + v * width;
      if constexpr (std::is_same_v<Out, float>)
        if (accumulate) sum[v][i] += Vector<float>::load_unaligned(to);
      store_lanes(to, sum[v][i]);
    }
  }
}

/// c[H, V vectors] = the epilogue, for columns n, ..., of a tile of sums.
template <std::int64_t H, std::int64_t V, class Out>
void finish_tile(const float* tile, const RegisterEpilogue<float>& epilogue, std::int64_t n, Out* c,
                 std::int64_t ldc) {
#pragma GCC unroll 2
  for (std::int64_t v = 0; v < V; ++v) {
    const std::int64_t j = v * PairTile::width;
    Vector<float> sum[H];
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i)
      sum[i] = Vector<float>::load_aligned(tile + i * PairTile::columns + j);
    epilogue(sum, n + j);
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) store_lanes(c + i * ldc + j, sum[i]);
  }
}

/// Calls f(H, V) as compile-time constants.
template <class F>
inline void with_pair_tile(std::int64_t rows, std::int64_t used, F&& f) {
  unroll<3>([&](auto h) {
    constexpr std::int64_t height = PairTile::heights[h];
    if (PairTile::height(rows) != height) return;
    using H = std::integral_constant<std::int64_t, height>;
    if (used > PairTile::width)
      f(H{}, std::integral_constant<std::int64_t, 2>{});
    else
      f(H{}, std::integral_constant<std::int64_t, 1>{});
  });
}

/// Where a product goes: rows ldc elements apart. `accumulate`, where Out is float: it is added.
/// Otherwise, unless the epilogue is null, that is applied to it.
template <class Out>
struct PairProduct {
  Out* c;
  std::int64_t ldc;
  bool accumulate = false;
  const AffineEpilogue<float>* epilogue = nullptr;

  /// Takes the first `rows` x `used` sums of a tile, which are c[m.., n..].
  void take(float* tile, std::int64_t rows, std::int64_t used, std::int64_t m,
            std::int64_t n) const {
    float* row[PairTile::rows];
    for (std::int64_t i = 0; i < rows; ++i) row[i] = tile + i * PairTile::columns;
    if (epilogue != nullptr) (*epilogue)(row, rows, 0, n, used);
    for (std::int64_t i = 0; i < rows; ++i) {
      Out* to = c + (m + i) * ldc + n;
      if constexpr (std::is_same_v<Out, float>)
        if (accumulate) {
          for (std::int64_t j = 0; j < used; ++j) to[j] += row[i][j];
          continue;
        }
      convert<float>(row[i], used, to);
    }
  }
};

/// Columns [n, n+columns) of `rows` rows from m on: a panel times slivers. The panel has
/// PairTile::height(rows) rows, of which those beyond `rows` may hold anything.
template <bool by_columns, class Out>
void multiply_pair_panel(PairPanel panel, const BFloat16* slivers, std::int64_t pairs,
                         std::int64_t m, std::int64_t rows, std::int64_t n, std::int64_t columns,
                         const PairProduct<Out>& to) {
  const bool in_registers = to.epilogue != nullptr && to.epilogue->fits_registers();
  const RegisterEpilogue<float> quick(in_registers ? *to.epilogue : AffineEpilogue<float>{}, n);
  for (std::int64_t j = 0; j < columns; j += PairTile::columns) {
    const std::int64_t used = std::min(PairTile::columns, columns - j);
    const BFloat16* sliver = slivers + j * 2 * pairs;
    const bool whole = rows == PairTile::height(rows) && used % PairTile::width == 0;
    with_pair_tile(rows, used, [&](auto h, auto v) {
      Out* c = to.c + m * to.ldc + n + j;
      if (whole && to.epilogue == nullptr)
        return multiply_pairs<h, v, by_columns>(pairs, panel, sliver, c, to.ldc, to.accumulate);
      alignas(64) float tile[PairTile::rows * PairTile::columns];
      multiply_pairs<h, v, by_columns>(pairs, panel, sliver, tile, PairTile::columns, false);
      if (whole && in_registers)
        finish_tile<h, v>(tile, quick, j, c, to.ldc);
      else
        to.take(tile, rows, used, m, n + j);
    });
  }
}

}  // namespace kindred::cpu
