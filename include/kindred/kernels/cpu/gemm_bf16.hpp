#pragma once
// Matrix products of factors rounded to BF16, with products and sums in float: see
// gemm_bf16_tile.hpp. What is BF16 in memory is read as it is, float is rounded while it is packed;
// the result is float or rounded. Two loop orders:
//   rows      many rows (pixels): B, the weights, is packed once; chunks of rows run in parallel.
//             Rows of A are pairs along the sum already, so that mostly they are read in place;
//   columns   the transpose of A times B, a long sum (weight gradients): both are packed a part of
//             the sum at a time. Small results: chunks of the sum run in parallel into partial
//             results, added in chunk order; large ones: chunks of the result do.
//
// 2 M N K operations on M K + K N + M N numbers, of 2 bytes where they are BF16. Each element of
// the result is one sum in the order of k (in the order columns: for each part or chunk).

#include <algorithm>
#include <cstdint>

#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/gemm_bf16_tile.hpp>

namespace kindred::cpu {

// ---- packing ------------------------------------------------------------------------------------

inline BFloat16 rounded(float x) { return to_bfloat16(x); }
inline BFloat16 rounded(BFloat16 x) { return x; }

/// BF16 numbers of one vector in the lower halves of its lanes.
inline Pairs load_halves(const BFloat16* p) {
#ifdef __CUDACC__  // nvcc does not know the conversions of vectors
  alignas(64) std::uint32_t lanes[PairTile::width];
  for (std::int64_t i = 0; i < PairTile::width; ++i) lanes[i] = p[i].bits;
  return Pairs::load_aligned(lanes);
#else
  BFloat16Lanes halves;
  std::memcpy(&halves, p, sizeof halves);
  const auto words = __builtin_convertvector(halves, FloatBitLanes);
  Pairs v;
  std::memcpy(&v, &words, sizeof v);
  return v;
#endif
}
inline Pairs load_halves(const float* p) {
  BFloat16 halves[PairTile::width];
  store_bfloat16(halves, Vector<float>::load_unaligned(p));
  return load_halves(halves);
}

/// The pairs (first[i], second[i]), i < PairTile::width, to `to`; a null second is zero. What lies
/// at `end` and beyond is not read: those pairs are zero.
template <class S>
inline void interleave(const S* first, const S* second, const S* end, BFloat16* to) {
  const S* last = second == nullptr ? first : second;
  if (end - last >= PairTile::width) {
    Pairs pairs = load_halves(first);
    if (second != nullptr) pairs |= load_halves(second) << 16;
    store_pairs(to, pairs);
    return;
  }
  for (std::int64_t i = 0; i < PairTile::width; ++i) {
    to[2 * i] = first + i < end ? rounded(first[i]) : BFloat16{0};
    to[2 * i + 1] = second != nullptr && second + i < end ? rounded(second[i]) : BFloat16{0};
  }
}

/// A matrix [k, columns] in memory, rows ld elements apart, of float or BFloat16.
template <class S>
struct PairSource {
  const S* data;
  std::int64_t ld;
  std::int64_t k, columns;
  const S* end() const { return data + (k - 1) * ld + columns; }

  /// Calls f(p, first, second) for the pairs of rows of [begin, begin + depth).
  template <class F>
  void each_pair(std::int64_t begin, std::int64_t depth, F&& f) const {
    const S* row = data + begin * ld;
    for (std::int64_t p = 0; p < depth; p += 2, row += 2 * ld)
      f(p / 2, row, p + 1 < depth ? row + ld : nullptr);
  }
  /// Rows [begin, begin + depth) of columns [n, n + count) as slivers of B: element (p, j) of the
  /// sliver that starts at column n + q goes to (q pairs + p / 2 width + j) 2 + p % 2.
  void pack_slivers(std::int64_t begin, std::int64_t depth, std::int64_t n, std::int64_t count,
                    BFloat16* to) const {
    const std::int64_t pairs = divide_up(depth, std::int64_t{2});
    each_pair(begin, depth, [&](std::int64_t p, const S* first, const S* second) {
      for (std::int64_t j = 0; j < count; j += PairTile::width) {
        const std::int64_t sliver = j / PairTile::columns * PairTile::columns;
        const std::int64_t width = PairTile::sliver(count - sliver);
        interleave(first + n + j, second == nullptr ? second : second + n + j, end(),
                   to + 2 * (sliver * pairs + p * width + j - sliver));
      }
    });
  }
  /// The same columns as panels of A, panel_size apart, each with PairTile::height rows. What a row
  /// writes beyond that is the place of the next one, or the slack of the panel.
  void pack_panels(std::int64_t begin, std::int64_t depth, std::int64_t m, std::int64_t count,
                   std::int64_t panel_size, BFloat16* to) const {
    each_pair(begin, depth, [&](std::int64_t p, const S* first, const S* second) {
      for (std::int64_t i = 0; i < count; i += PairTile::rows) {
        const std::int64_t height = PairTile::height(std::min(PairTile::rows, count - i));
        BFloat16* panel = to + i / PairTile::rows * panel_size + 2 * p * height;
        for (std::int64_t r = 0; r < height; r += PairTile::width)
          interleave(first + m + i + r, second == nullptr ? second : second + m + i + r, end(),
                     panel + 2 * r);
      }
    });
  }
};

/// Rows of k elements that follow each other, rounded, as whole pairs.
template <class S>
inline void pad_rows(const S* from, std::int64_t rows, std::int64_t k, BFloat16* to) {
  const auto round_run = [](const S* run, std::int64_t n, BFloat16* out) {
    if constexpr (std::is_same_v<S, BFloat16>)
      std::copy_n(run, n, out);
    else
      convert<float>(run, n, out);
  };
  if (k % 2 == 0) return round_run(from, rows * k, to);
  for (std::int64_t i = 0; i < rows; ++i, from += k, to += k + 1) {
    round_run(from, k, to);
    to[k] = {0};
  }
}

/// The sliver of `used` columns of B = w^T: w holds its columns as rows, ld elements apart.
inline void pack_transposed_sliver(const float* w, std::int64_t ld, std::int64_t k,
                                   std::int64_t used, BFloat16* to) {
  constexpr std::int64_t at_once = 64;
  const std::int64_t width = PairTile::sliver(used);
  for (std::int64_t begin = 0; begin < k; begin += at_once) {
    const std::int64_t depth = std::min(at_once, k - begin);
    const std::int64_t pairs = divide_up(depth, std::int64_t{2});
    BFloat16 row[at_once];
    for (std::int64_t j = 0; j < width; ++j) {
      if (j < used) convert<float>(w + j * ld + begin, depth, row);
      if (j >= used) std::fill_n(row, depth, BFloat16{0});
      if (depth % 2 != 0) row[depth] = {0};
      for (std::int64_t p = 0; p < pairs; ++p)
        std::memcpy(to + 2 * (p * width + j), row + 2 * p, 2 * sizeof(BFloat16));
    }
    to += 2 * pairs * width;
  }
}

/// B [k,n] packed whole as slivers: what a product, or inference once for all passes, makes of its
/// weights.
struct PackedPairs {
  BFloat16* data;
  std::int64_t k, n;

  std::int64_t pairs() const { return divide_up(k, std::int64_t{2}); }
  std::int64_t size() const { return 2 * pairs() * round_up(n, PairTile::columns); }
  std::int64_t slivers() const { return divide_up(n, PairTile::columns); }
  /// The sliver that starts at column j.
  BFloat16* at(std::int64_t j) const { return data + j * 2 * pairs(); }

  /// Fills sliver i from w [k,n], or from w [n,k] transposed.
  void pack(const float* w, Transpose transpose, std::int64_t i) const {
    const std::int64_t j = i * PairTile::columns, used = std::min(PairTile::columns, n - j);
    if (transpose == Transpose::no)
      PairSource<float>{w, n, k, n}.pack_slivers(0, k, j, used, at(j));
    else
      pack_transposed_sliver(w + j * k, k, k, used, at(j));
  }
};

// ---- rows ---------------------------------------------------------------------------------------

/// How the rows of a product are cut; depends on the shape alone.
struct PairRowsCut {
  std::int64_t rows;     ///< of a chunk
  std::int64_t columns;  ///< of a block of B, which stays in the L2 cache

  PairRowsCut(std::int64_t m, std::int64_t n, std::int64_t pairs) {
    const std::int64_t panels = divide_up(m, PairTile::rows);
    rows = PairTile::rows * std::clamp<std::int64_t>(panels / 24, 1, 32);
    columns = std::min(cached_columns(pairs), n);
    // Few rows share the work by columns.
    const std::int64_t chunks = divide_up(m, rows);
    if (chunks < 8) columns = std::min(columns, divide_up(n * chunks, std::int64_t{8}));
    columns = round_up(columns, PairTile::columns);
  }
  /// Columns of B of which half a MiB is left in the cache, whole slivers.
  static std::int64_t cached_columns(std::int64_t pairs) {
    const std::int64_t most = (std::int64_t{1} << 17) / std::max<std::int64_t>(pairs, 1);
    return std::max(most / PairTile::columns, std::int64_t{1}) * PairTile::columns;
  }
};

/// c = A B: A [m,k] of float or BFloat16, its rows lda elements apart, B packed, c [m,n] with rows
/// n elements apart; finished by the epilogue unless it is null.
template <class S, class Out>
void gemm_bf16_packed(Context& ctx, std::int64_t m, const S* a, std::int64_t lda,
                      const PackedPairs& b, Out* c, const AffineEpilogue<float>* epilogue) {
  const std::int64_t k = b.k, n = b.n, padded = 2 * b.pairs();
  const PairRowsCut cut(m, n, b.pairs());
  const std::int64_t blocks = divide_up(n, cut.columns);
  const std::int64_t panel_size = round_up(PairTile::rows * padded, std::int64_t{32});
  auto panels = ctx.make<BFloat16>({ctx.threads() * panel_size}, "panel of A");
  const PairProduct<Out> to{c, n, false, epilogue};
  ctx.parallel_for(divide_up(m, cut.rows) * blocks, [&](std::int64_t i, int thread) {
    BFloat16* packed = panels.data + thread * panel_size;
    const std::int64_t begin = i / blocks * cut.rows, end = std::min(m, begin + cut.rows);
    const std::int64_t j = i % blocks * cut.columns, columns = std::min(cut.columns, n - j);
    for (std::int64_t row = begin; row < end; row += PairTile::rows) {
      const std::int64_t rows = std::min(PairTile::rows, end - row);
      const S* from = a + row * lda;
      PairPanel panel{packed, padded};
      if constexpr (std::is_same_v<S, BFloat16>)
        if (k % 2 == 0 && rows == PairTile::height(rows)) panel = {from, lda};
      if (panel.data == packed)
        for (std::int64_t r = 0; r < rows; ++r) pad_rows(from + r * lda, 1, k, packed + r * padded);
      multiply_pair_panel<false>(panel, b.at(j), b.pairs(), row, rows, j, columns, to);
    }
  });
}

/// c = A op(w): A [m,k] of float or BFloat16, op(w) [k,n], c [m,n] of float or BFloat16; finished
/// by the epilogue unless it is null.
template <class S, class Out>
void gemm_bf16(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const S* a,
               const float* w, Transpose transpose, Out* c,
               const AffineEpilogue<float>* epilogue = nullptr) {
  if (m == 0 || n == 0) return;
  PackedPairs b{nullptr, k, n};
  auto packed = ctx.make<BFloat16>({b.size()}, "packed B");
  b.data = packed.data;
  ctx.parallel_for(b.slivers(), [&](std::int64_t i) { b.pack(w, transpose, i); });
  gemm_bf16_packed(ctx, m, a, k, b, c, epilogue);
}

// ---- columns ------------------------------------------------------------------------------------

/// How a sum over rows, of a transposed A, is cut.
struct PairColumns {
  /// Rows between two visits of a tile, which is when a panel and a sliver fit into L1.
  static constexpr std::int64_t depth = 512;
  /// Columns of A that are packed together, and a panel of them.
  static constexpr std::int64_t group = 8 * PairTile::rows;
  static constexpr std::int64_t panel_size =
      round_up(depth * PairTile::rows + 2 * PairTile::width, 32);
  static constexpr std::int64_t group_size = 8 * panel_size;
  /// Columns of B that stay in the L2 cache: equal blocks of at most 640.
  static std::int64_t block(std::int64_t n) {
    return round_up(divide_up(n, divide_up(n, std::int64_t{640})), PairTile::columns);
  }
};

/// c[m0:m1, n0:n0+columns] (+)= A[k0:k1, m0:m1]^T B[k0:k1, n0:n0+columns] on the calling thread;
/// k1 - k0 <= PairColumns::depth, `slivers` are those of B.
template <class X>
void multiply_pair_group(const PairSource<X>& a, std::int64_t k0, std::int64_t k1, std::int64_t m0,
                         std::int64_t m1, const BFloat16* slivers, std::int64_t n0,
                         std::int64_t columns, const PairProduct<float>& to, BFloat16* panels) {
  const std::int64_t pairs = divide_up(k1 - k0, std::int64_t{2});
  a.pack_panels(k0, k1 - k0, m0, m1 - m0, PairColumns::panel_size, panels);
  for (std::int64_t m = m0; m < m1; m += PairTile::rows) {
    const std::int64_t rows = std::min(PairTile::rows, m1 - m);
    multiply_pair_panel<true>({panels, 2 * PairTile::height(rows)}, slivers, pairs, m, rows, n0,
                              columns, to);
    panels += PairColumns::panel_size;
  }
}

/// Chunks of the sum in parallel, partial results added in order.
template <class X, class Y>
void gemm_bf16_deep(Context& ctx, const PairSource<X>& a, const PairSource<Y>& b, float* c) {
  const std::int64_t m = a.columns, n = b.columns, k = a.k, block = PairColumns::block(n);
  const std::int64_t chunks = deep_chunks(m * n, k), length = divide_up(k, chunks);
  const std::int64_t scratch_size = PairColumns::group_size + PairColumns::depth * block;
  auto partial = ctx.make<float>({chunks * m * n}, "partial weight gradients");
  auto scratch = ctx.make<BFloat16>({ctx.threads() * scratch_size}, "blocks of A and B");
  ctx.parallel_for(chunks, [&](std::int64_t chunk, int thread) {
    BFloat16 *panels = scratch.data + thread * scratch_size,
             *slivers = panels + PairColumns::group_size;
    const std::int64_t begin = std::min(k, chunk * length), end = std::min(k, begin + length);
    PairProduct<float> to{partial.data + chunk * m * n, n};
    if (begin == end) fill_zero(to.c, m * n);
    for (std::int64_t j = 0; j < n; j += block)
      for (std::int64_t k0 = begin; k0 < end; k0 += PairColumns::depth) {
        const std::int64_t k1 = std::min(end, k0 + PairColumns::depth);
        const std::int64_t columns = std::min(block, n - j);
        b.pack_slivers(k0, k1 - k0, j, columns, slivers);
        to.accumulate = k0 > begin;
        for (std::int64_t m0 = 0; m0 < m; m0 += PairColumns::group)
          multiply_pair_group(a, k0, k1, m0, std::min(m, m0 + PairColumns::group), slivers, j,
                              columns, to, panels);
      }
  });
  add_partials(ctx, chunks, m, n, partial.data, c, n, true);
}

/// B packed a group of parts of the sum at a time, chunks of the result in parallel.
template <class X, class Y>
void gemm_bf16_wide(Context& ctx, const PairSource<X>& a, const PairSource<Y>& b, float* c) {
  constexpr std::int64_t depth = PairColumns::depth;
  const std::int64_t m = a.columns, n = b.columns, k = a.k, block = PairColumns::block(n);
  const std::int64_t blocks = divide_up(n, block), groups = divide_up(m, PairColumns::group);
  const std::int64_t parts = divide_up(k, depth), padded_n = round_up(n, PairTile::columns);
  const std::int64_t together =
      std::clamp<std::int64_t>(gemm_packed_limit / (padded_n * depth), 1, parts);
  auto packed = ctx.make<BFloat16>({together * depth * padded_n}, "packed B");
  auto scratch = ctx.make<BFloat16>({ctx.threads() * PairColumns::group_size}, "panels of A");
  const PairProduct<float> to{c, n, true};
  for (std::int64_t first = 0; first < parts; first += together) {
    const std::int64_t count = std::min(together, parts - first);
    const auto slivers = [&](std::int64_t part, std::int64_t j) {
      const std::int64_t size = round_up(std::min(depth, k - part * depth), std::int64_t{2});
      return packed.data + (part - first) * depth * padded_n + j * size;
    };
    ctx.parallel_for(count * blocks, [&](std::int64_t i) {
      const std::int64_t part = first + i / blocks, j = i % blocks * block;
      b.pack_slivers(part * depth, std::min(depth, k - part * depth), j, std::min(block, n - j),
                     slivers(part, j));
    });
    ctx.parallel_for(groups * blocks, [&](std::int64_t i, int thread) {
      const std::int64_t m0 = i / blocks * PairColumns::group, j = i % blocks * block;
      for (std::int64_t part = first; part < first + count; ++part)
        multiply_pair_group(a, part * depth, std::min(k, (part + 1) * depth), m0,
                            std::min(m, m0 + PairColumns::group), slivers(part, j), j,
                            std::min(block, n - j), to,
                            scratch.data + thread * PairColumns::group_size);
    });
  }
}

/// c += A^T B: A [k,m], B [k,n], c [m,n].
template <class X, class Y>
void gemm_bf16_transposed(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const X* a,
                          const Y* b, float* c) {
  if (m == 0 || n == 0 || k == 0) return;
  const PairSource<X> source_a{a, m, k, m};
  const PairSource<Y> source_b{b, n, k, n};
  if (k >= 4096 && m * n <= (1 << 17))
    gemm_bf16_deep(ctx, source_a, source_b, c);
  else
    gemm_bf16_wide(ctx, source_a, source_b, c);
}

}  // namespace kindred::cpu
