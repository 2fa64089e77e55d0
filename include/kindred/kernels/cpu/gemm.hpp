#pragma once
// Matrix products for one instruction set after another: packed, register-tiled, over xsimd
// batches.
//
// The innermost step multiplies a panel of A (`height` rows) with a sliver of B (two vectors wide)
// into accumulators that stay in registers (Goto & van de Geijn, "Anatomy of High-Performance
// Matrix Multiplication", 2008). Around it four loop orders, chosen by the shape alone:
//   tall  many rows: B is packed once, chunks of rows run in parallel;
//   wide  few rows:  A is packed once, chunks of columns run in parallel;
//   deep  a small result and a long sum (weight gradients): chunks of the sum run in parallel into
//         partial results, added in chunk order;
//   flat  one to four rows (a layer of one image): B is read once, in place, at memory speed.
// Where A and B come from and what happens to a finished tile are functors, so that convolutions
// gather their patches while packing and inference applies scale, shift and activation to tiles
// that are still in cache.
//
// 2 M N K operations on M K + K N + M N numbers. A and, where a panel is as wide as a cache line,
// A^T are read where they lie; packing reads and writes another A, or B, once more, A at most once
// for every `block` columns. C is read and written once for every `depth` of K. Memory that the
// next panel, group or part will read is asked for while the tiles of this one compute
// (LinesAhead), so that a core waits for little of it.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/gemm_packing.hpp>
#include <kindred/kernels/cpu/gemm_tile.hpp>
#include <kindred/kernels/transpose.hpp>

namespace kindred::cpu {

// ---- loops over one chunk -----------------------------------------------------------------------

/// Elements of 64-byte aligned scratch that gemm_serial needs: panels of A and a block of B.
template <class T>
constexpr std::int64_t gemm_scratch_size() {
  return GemmTile<T>::group_size + GemmTile<T>::depth * GemmTile<T>::block;
}

/// C[m0:m1, 0:n] (+)= A[m0:m1, k0:k1] B[k0:k1, 0:n] on the calling thread, which perhaps goes on
/// with `more` of the sum.
template <class T, class SourceA, class SourceB, class Destination>
void gemm_chunk(const SourceA& a, const SourceB& b, const Destination& c, std::int64_t m0,
                std::int64_t m1, std::int64_t n, std::int64_t k0, std::int64_t k1, bool accumulate,
                T* scratch, std::int64_t more = 0) {
  using Tile = GemmTile<T>;
  constexpr bool is_packed = std::is_same_v<SourceB, PackedB<T>>;  // then [k0, k1) is all of it
  const DepthCut<T> cut(k1 - k0);
  for (std::int64_t j = 0; j < n; j += Tile::block) {
    const std::int64_t columns = std::min(Tile::block, n - j);
    for (std::int64_t part = 0; part < cut.parts; ++part) {
      const std::int64_t k = k0 + cut.begin(part), depth = cut.size(part);
      const std::int64_t next_k = k + depth, next_depth = std::min(depth, k1 + more - next_k);
      T* block = scratch + Tile::group_size;
      if constexpr (is_packed) block = b.at(part, j);
      LinesAhead ahead_in_b = lines_ahead(b, next_k, next_depth, j, columns);
      for (std::int64_t m = m0, rows = 0; m < m1; m += rows) {
        rows = std::min(a.group_rows(m), m1 - m);
        const std::int64_t next = m + rows, next_rows = std::min(rows, m1 - next);
        LinesAhead ahead_in_a = next < m1 ? lines_ahead(a, next, next_rows, k, depth)
                                          : lines_ahead(a, m0, rows, next_k, next_depth);
        PanelGroup<T, SourceA>(a, m, rows, k, depth, scratch)
            .for_each([&](std::int64_t i, std::int64_t used, Panel<T> panel) {
              const Unpacked<SourceB> unpacked{!is_packed && i == m0 ? &b : nullptr, k};
              multiply_panel<T, SourceA::layout>({c, i, used}, j, columns, depth, panel, block,
                                                 unpacked, accumulate || part > 0, nullptr,
                                                 &ahead_in_a, &ahead_in_b);
            });
      }
    }
  }
}

// ---- loop orders --------------------------------------------------------------------------------

/// Parts of a product that are packed at once are at most this large.
inline constexpr std::int64_t gemm_packed_limit = std::int64_t{1} << 22;

/// How a tall product is cut into tasks of rows x columns, by its shape alone.
template <class T>
struct GemmTallCut {
  using Tile = GemmTile<T>;
  std::int64_t rows, row_tasks, columns, column_tasks;

  /// Large tasks reuse what they load of B; enough of them keep all threads busy. A task that packs
  /// A takes one group and all the columns that it can.
  GemmTallCut(std::int64_t m, std::int64_t n, bool packs_a) {
    constexpr std::int64_t enough = 24;
    const std::int64_t heights = divide_up(m, Tile::rows), blocks = divide_up(n, Tile::block);
    rows = Tile::rows * std::clamp<std::int64_t>(heights * blocks / enough,
                                                 std::min<std::int64_t>(8, divide_up(heights, 8)),
                                                 packs_a ? Tile::group_panels : 32);
    row_tasks = divide_up(m, rows);
    const std::int64_t least = packs_a ? std::min(blocks, divide_up(enough, row_tasks)) : blocks;
    columns = Tile::block * divide_up(blocks, least);
    column_tasks = divide_up(n, columns);
  }
};

/// B packed once, unless it is already; then blocks of rows x columns in parallel.
template <class T, class SourceA, class SourceB, class Destination>
void gemm_tall(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
               const SourceB& b, const Destination& c, const AffineEpilogue<T>* epilogue,
               bool accumulate) {
  using Tile = GemmTile<T>;
  constexpr bool is_packed = std::is_same_v<SourceB, PackedB<T>>;
  const DepthCut<T> cut(k);
  const std::int64_t padded_n = round_up(n, Tile::columns), blocks = divide_up(n, Tile::block);
  const std::int64_t group =
      is_packed ? cut.parts
                : std::clamp<std::int64_t>(gemm_packed_limit / (padded_n * cut.part), 1, cut.parts);
  const bool packs_a = rows_in_place(a, Tile::rows) == 0;
  // Short sums go through A so fast that the processor's own prefetching is better.
  const bool asks_ahead = cut.part > 32;
  const std::int64_t step = packs_a || !asks_ahead ? Tile::group_rows : Tile::rows;
  const GemmTallCut<T> tasks(m, n, packs_a);
  auto packed = ctx.make<T>({is_packed ? 0 : group * cut.part * padded_n}, "packed B");
  auto panels = ctx.make<T>({ctx.threads() * Tile::group_size}, "panels of A");
  for (std::int64_t first = 0; first < cut.parts; first += group) {
    const std::int64_t last = std::min(first + group, cut.parts);
    auto packed_at = [&, to = packed.data](std::int64_t part, std::int64_t j) {
      if constexpr (is_packed) return b.at(part, j);
      return to + (cut.begin(part) - cut.begin(first)) * padded_n + j * cut.size(part);
    };
    if constexpr (!is_packed)
      ctx.parallel_for((last - first) * blocks, [&](std::int64_t i) {
        const std::int64_t part = first + i / blocks, j = i % blocks * Tile::block;
        b.pack(cut.begin(part), cut.size(part), j, std::min(Tile::block, n - j),
               packed_at(part, j));
      });
    ctx.parallel_for(tasks.row_tasks * tasks.column_tasks, [&](std::int64_t i, int thread) {
      const std::int64_t begin = i / tasks.column_tasks * tasks.rows;
      const std::int64_t end = std::min(m, begin + tasks.rows);
      const std::int64_t left = i % tasks.column_tasks * tasks.columns;
      const std::int64_t right = std::min(n, left + tasks.columns);
      auto lines_of = [&](std::int64_t part, std::int64_t r, std::int64_t until) {
        const std::int64_t rows = asks_ahead ? std::min(step, until - r) : 0;
        return lines_ahead(a, r, rows, cut.begin(part), cut.size(part));
      };
      for (std::int64_t part = first; part < last; ++part) {
        const auto* finish = part + 1 == cut.parts ? epilogue : nullptr;
        for (std::int64_t r = begin; r < end; r += step) {
          LinesAhead ahead = r + step < end    ? lines_of(part, r + step, end)
                             : part + 1 < last ? lines_of(part + 1, begin, end)
                                               : lines_of(first, end, m);
          const PanelGroup<T, SourceA> group_of_a(a, r, std::min(step, end - r), cut.begin(part),
                                                  cut.size(part),
                                                  panels.data + thread * Tile::group_size);
          for (std::int64_t j = left; j < right; j += Tile::block)
            group_of_a.for_each([&](std::int64_t row, std::int64_t rows, Panel<T> panel) {
              multiply_panel<T, SourceA::layout>({c, row, rows}, j,
                                                 std::min(Tile::block, right - j), cut.size(part),
                                                 panel, packed_at(part, j), Unpacked<SourceB>{},
                                                 accumulate || part > 0, finish, &ahead, &ahead);
            });
        }
      }
    });
  }
}

/// Rows of A that gemm_wide packs: those that cannot be read in place.
template <class T, class SourceA>
class GemmWideRows {
  using Tile = GemmTile<T>;

 public:
  GemmWideRows(const SourceA& a, std::int64_t m, const DepthCut<T>& cut)
      : a_(a),
        cut_(cut),
        m_(m),
        in_place_(rows_in_place(a, m)),
        groups_(divide_up(m - in_place_, Tile::group_rows)),
        // Whole groups, which read memory in longer runs; panels where there would be few.
        rows_per_task_(groups_ == 1 ? Tile::rows : Tile::group_rows) {}

  /// Elements for one part of the sum.
  std::int64_t size() const { return groups_ * Tile::group_size; }
  /// Tasks of packing a part.
  std::int64_t tasks() const { return divide_up(m_ - in_place_, rows_per_task_); }
  void pack(std::int64_t task, std::int64_t part, T* to) const {
    const std::int64_t row = task * rows_per_task_;
    a_.pack(in_place_ + row, std::min(rows_per_task_, m_ - in_place_ - row), cut_.begin(part),
            cut_.size(part), to + row / Tile::rows * Tile::panel_size);
  }
  /// The panel from row r on of a part that was packed to `packed`.
  Panel<T> panel(std::int64_t r, std::int64_t part, const T* packed) const {
    if (r < in_place_) return panel_in_place<T>(a_, r, cut_.begin(part));
    return {packed + (r - in_place_) / Tile::rows * Tile::panel_size,
            Panel<T>::packed_step(SourceA::layout, std::min(Tile::rows, m_ - r))};
  }

 private:
  const SourceA& a_;
  const DepthCut<T>& cut_;
  std::int64_t m_, in_place_, groups_, rows_per_task_;
};

/// A packed once, where it has to be; chunks of columns in parallel, each packs its slivers of B
/// just before use, unless they are packed already.
template <class T, class SourceA, class SourceB, class Destination>
void gemm_wide(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
               const SourceB& b, const Destination& c, const AffineEpilogue<T>* epilogue,
               bool accumulate) {
  using Tile = GemmTile<T>;
  constexpr bool is_packed = std::is_same_v<SourceB, PackedB<T>>;
  const DepthCut<T> cut(k);
  const GemmWideRows<T, SourceA> rows_of_a(a, m, cut);
  const std::int64_t size = rows_of_a.size();
  const std::int64_t depth_group =
      std::clamp<std::int64_t>(gemm_packed_limit / std::max<std::int64_t>(size, 1), 1, cut.parts);
  // Small products are not worth a second thread.
  const std::int64_t slivers = divide_up(n, Tile::columns);
  const std::int64_t enough =
      divide_up(std::int64_t{100000}, std::max<std::int64_t>(1, m * k * Tile::columns));
  const std::int64_t chunk =
      Tile::columns *
      std::clamp<std::int64_t>(std::max(slivers / 8, enough), 1, Tile::block / Tile::columns);
  auto packed = ctx.make<T>({depth_group * size}, "packed A");
  auto blocks = ctx.make<T>({is_packed ? 0 : ctx.threads() * Tile::depth * chunk}, "block of B");
  for (std::int64_t first = 0; first < cut.parts; first += depth_group) {
    const std::int64_t last = std::min(first + depth_group, cut.parts);
    auto packed_at = [=, to = packed.data](std::int64_t part) {
      return to + (part - first) * size;
    };
    const std::int64_t tasks = rows_of_a.tasks();
    auto pack = [&](std::int64_t i) {
      rows_of_a.pack(i % tasks, first + i / tasks, packed_at(first + i / tasks));
    };
    if (n <= chunk)
      ctx.parallel_for(1, [&](std::int64_t) {
        for (std::int64_t i = 0; i < (last - first) * tasks; ++i) pack(i);
      });
    else
      ctx.parallel_for((last - first) * tasks, pack);
    ctx.parallel_for(divide_up(n, chunk), [&](std::int64_t i, int thread) {
      const std::int64_t j = i * chunk, columns = std::min(chunk, n - j);
      auto block_at = [&, to = blocks.data +
                               thread * Tile::depth * chunk]([[maybe_unused]] std::int64_t part) {
        if constexpr (is_packed) return b.at(part, j);
        return to;
      };
      for (std::int64_t part = first; part < last; ++part) {
        const std::int64_t depth = cut.size(part);
        LinesAhead ahead_in_b =
            part + 1 < last ? lines_ahead(b, cut.begin(part + 1), cut.size(part + 1), j, columns)
                            : lines_ahead(b, cut.begin(first), depth, j + columns,
                                          std::min(columns, n - j - columns));
        for (std::int64_t r = 0; r < m; r += Tile::rows) {
          const std::int64_t rows = std::min(Tile::rows, m - r);
          const Panel<T> panel = rows_of_a.panel(r, part, packed_at(part));
          LinesAhead ahead_in_a =
              r + rows < m
                  ? rows_of_a.panel(r + rows, part, packed_at(part)).lines(SourceA::layout, depth)
                  : LinesAhead(panel.data);
          // The first panel reads B itself; of a single sliver, A is in L2.
          LinesAhead* const other = r == 0 ? &ahead_in_a : &ahead_in_b;
          multiply_panel<T, SourceA::layout>(
              {c, r, rows}, j, columns, depth, panel, block_at(part),
              Unpacked<SourceB>{r == 0 ? &b : nullptr, cut.begin(part)}, accumulate || part > 0,
              part + 1 == cut.parts ? epilogue : nullptr,
              columns > Tile::columns ? &ahead_in_a : other, other);
        }
      }
    });
  }
}

/// sum[i,j] (+)= partial[0][i,j] + partial[1][i,j] + ..., in this order; the partial results are
/// dense [rows, columns] and follow each other, the rows of the sum are ld elements apart.
template <class T>
void add_partials(Context& ctx, std::int64_t partials, std::int64_t rows, std::int64_t columns,
                  const T* partial, T* sum, std::int64_t ld, bool accumulate) {
  const std::int64_t chunk = std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(columns, 1));
  ctx.parallel_ranges(rows, chunk, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      T* to = sum + i * ld;
      if (!accumulate) fill_zero(to, columns);
      for (std::int64_t s = 0; s < partials; ++s) {
        const T* from = partial + (s * rows + i) * columns;
        for (std::int64_t j = 0; j < columns; ++j) to[j] += from[j];
      }
    }
  });
}

/// Number of chunks of a sum of length k whose partial results have `size` elements.
inline std::int64_t deep_chunks(std::int64_t size, std::int64_t k) {
  const std::int64_t by_length = k / 512,
                     by_memory = (std::int64_t{1} << 21) / std::max<std::int64_t>(size, 1);
  return std::clamp<std::int64_t>(std::min(by_length, by_memory), 1, 16);
}

/// Chunks of the sum in parallel, partial results added in order.
template <class T, class SourceA, class SourceB>
void gemm_deep(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
               const SourceB& b, T* c, std::int64_t ldc, bool accumulate) {
  const std::int64_t chunks = deep_chunks(m * n, k), length = divide_up(k, chunks);
  auto partial = ctx.make<T>({chunks * m * n}, "partial products");
  auto scratch = ctx.make<T>({ctx.threads() * gemm_scratch_size<T>()}, "gemm blocks");
  ctx.parallel_for(chunks, [&](std::int64_t chunk, int thread) {
    gemm_chunk<T>(a, b, MatrixC<T>{partial.data + chunk * m * n, n}, 0, m, n,
                  std::min(k, chunk * length), std::min(k, (chunk + 1) * length), false,
                  scratch.data + thread * gemm_scratch_size<T>(),
                  k - std::min(k, (chunk + 1) * length));
  });
  add_partials(ctx, chunks, m, n, partial.data, c, ldc, accumulate);
}

/// Columns [n, n+columns) of A[:, k0:k1] B[k0:k1, :] for H rows: some rows of B at a time are read
/// where they lie, from end to end, while the sums stay in L1.
template <class T, std::int64_t H>
void multiply_flat(std::int64_t k0, std::int64_t k1, const RowsOfA<T>& a, const RowsOfB<T>& b,
                   T* const* rows, std::int64_t n, std::int64_t columns, bool accumulate) {
  constexpr std::int64_t registers = GemmTile<T>::many_registers ? 24 : 8;
  constexpr std::int64_t together = std::min<std::int64_t>(8, registers / H);
  if (!accumulate)
    for (std::int64_t i = 0; i < H; ++i) fill_zero(rows[i] + n, columns);
  auto add_rows_of_b = [&]<std::int64_t count>(std::integral_constant<std::int64_t, count>,
                                               std::int64_t k) {
    T left[H][count];
    for (std::int64_t i = 0; i < H; ++i)
      for (std::int64_t q = 0; q < count; ++q) left[i][q] = a.a[i * a.lda + k + q];
    vector_loop<T>(columns, [&](auto lane, std::int64_t j) {
      using V = typename decltype(lane)::type;
      V sum[H];
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < H; ++i) sum[i] = load_lanes<V>(rows[i] + n + j);
#pragma GCC unroll 16
      for (std::int64_t q = 0; q < count; ++q) {
        const V element = load_lanes<V>(b.at(k + q, n + j));
#pragma GCC unroll 16
        for (std::int64_t i = 0; i < H; ++i)
          sum[i] = multiply_add<V, T>(V(left[i][q]), element, sum[i]);
      }
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < H; ++i) store_lanes(rows[i] + n + j, sum[i]);
    });
  };
  std::int64_t k = k0;
  for (; k + together <= k1; k += together)
    add_rows_of_b(std::integral_constant<std::int64_t, together>{}, k);
  for (; k < k1; ++k) add_rows_of_b(std::integral_constant<std::int64_t, 1>{}, k);
}

/// Rows of C that the flat order takes at most.
inline constexpr std::int64_t gemm_flat_rows = 4;

/// Bound by reading B once: k n elements for 2 m k n operations. Chunks are runs of long rows of B,
/// or else parts of the sum, which are runs of memory, too.
template <class T, class Destination>
void gemm_flat(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const RowsOfA<T>& a,
               const RowsOfB<T>& b, const Destination& c, const AffineEpilogue<T>* epilogue,
               bool accumulate) {
  const std::int64_t blocks = divide_up(n * m, std::int64_t{4096});  // their sums fit into L1
  const std::int64_t width = round_up(divide_up(n, blocks), vector_size<T>);
  // Small products are not worth a second thread.
  const std::int64_t parts =
      std::clamp<std::int64_t>(std::min(8 / blocks, k * n / (std::int64_t{1} << 16)), 1, 8);
  const std::int64_t length = divide_up(k, parts);
  auto partial = ctx.make<T>({parts == 1 ? 0 : parts * m * n}, "partial products");
  ctx.parallel_for(blocks * parts, [&](std::int64_t i) {
    const std::int64_t part = i / blocks, begin = std::min(n, i % blocks * width);
    const std::int64_t columns = std::min(width, n - begin);
    T* rows[gemm_flat_rows];
    for (std::int64_t r = 0; r < m; ++r)
      rows[r] = parts == 1 ? c.row(r) : partial.data + (part * m + r) * n;
    unroll<gemm_flat_rows>([&](auto r) {
      if (m == r + 1)
        multiply_flat<T, r + 1>(std::min(k, part * length), std::min(k, (part + 1) * length), a, b,
                                rows, begin, columns, parts == 1 && accumulate);
    });
    if (parts == 1 && epilogue != nullptr) (*epilogue)(rows, m, begin, begin, columns);
  });
  if (parts == 1) return;
  ctx.parallel_for(blocks, [&](std::int64_t i) {
    const std::int64_t begin = std::min(n, i * width), columns = std::min(width, n - begin);
    T* rows[gemm_flat_rows];
    for (std::int64_t r = 0; r < m; ++r) {
      rows[r] = c.row(r);
      T* to = rows[r] + begin;
      if (!accumulate) fill_zero(to, columns);
      for (std::int64_t part = 0; part < parts; ++part) {
        const T* from = partial.data + (part * m + r) * n + begin;
        for (std::int64_t j = 0; j < columns; ++j) to[j] += from[j];
      }
    }
    if (epilogue != nullptr) (*epilogue)(rows, m, begin, begin, columns);
  });
}

/// Flat, tall or wide, by the shape.
template <class T, class SourceA, class SourceB, class Destination>
void gemm_by_rows(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
                  const SourceB& b, const Destination& c, const AffineEpilogue<T>* epilogue,
                  bool accumulate) {
  if constexpr (std::is_same_v<SourceA, RowsOfA<T>> && std::is_same_v<SourceB, RowsOfB<T>>)
    if (m <= gemm_flat_rows) return gemm_flat<T>(ctx, m, n, k, a, b, c, epilogue, accumulate);
  if (m <= 16 * GemmTile<T>::rows && (n >= 4 * GemmTile<T>::columns || m <= 2 * GemmTile<T>::rows))
    return gemm_wide<T>(ctx, m, n, k, a, b, c, epilogue, accumulate);
  gemm_tall<T>(ctx, m, n, k, a, b, c, epilogue, accumulate);
}

/// Calls f(source of A, source of B) for op(a) and op(b).
template <class T, class F>
inline void with_sources(Transpose ta, Transpose tb, const T* a, std::int64_t lda, const T* b,
                         std::int64_t ldb, F&& f) {
  auto with_b = [&](const auto& source_a) {
    if (tb == Transpose::no)
      f(source_a, RowsOfB<T>{b, ldb});
    else
      f(source_a, ColumnsOfB<T>{b, ldb});
  };
  if (ta == Transpose::no)
    with_b(RowsOfA<T>{a, lda});
  else
    with_b(ColumnsOfA<T>{a, lda});
}

/// Fills `to` with B [k,n] on the calling thread.
template <class T, class SourceB>
void pack_whole(const SourceB& b, std::int64_t n, const PackedB<T>& to) {
  for (std::int64_t part = 0; part < to.cut.parts; ++part)
    b.pack(to.cut.begin(part), to.cut.size(part), 0, n, to.at(part, 0));
}

/// c = A B (+ c), deep or by rows, by the shape.
template <class T, class SourceA, class SourceB>
void gemm_of(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
             const SourceB& b, T* c, std::int64_t ldc, bool accumulate) {
  if (k >= 4096 && k >= 16 * std::max(m, n) && m * n <= (1 << 17))
    gemm_deep(ctx, m, n, k, a, b, c, ldc, accumulate);
  else
    gemm_by_rows<T>(ctx, m, n, k, a, b, MatrixC<T>{c, ldc}, nullptr, accumulate);
}

// ---- entry points -------------------------------------------------------------------------------

/// c = op(a) op(b) (+ c): op(a) [m,k], op(b) [k,n], c [m,n], rows lda, ldb, ldc elements apart.
template <class T>
void gemm(Context& ctx, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
          const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
          bool accumulate) {
  if (m == 0 || n == 0) return;
  with_sources(ta, tb, a, lda, b, ldb, [&](const auto& source_a, const auto& source_b) {
    gemm_of(ctx, m, n, k, source_a, source_b, c, ldc, accumulate);
  });
}

/// c = a B with a packed B [k,n]: a [m,k], c [m,n].
template <class T>
void gemm_packed(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const T* a,
                 std::int64_t lda, const PackedB<T>& b, T* c, std::int64_t ldc) {
  if (m == 0 || n == 0) return;
  gemm_by_rows<T>(ctx, m, n, k, RowsOfA<T>{a, lda}, b, MatrixC<T>{c, ldc}, nullptr, false);
}

/// a times columns [n, n+columns) of b on the calling thread, a panel of rows at a time: what
/// becomes of a product may be used while it is in L1. Calls f(m, rows): row m of the product is
/// now c[0, columns), the next one ldc elements further. `c` holds GemmTile::rows rows.
template <class T, class F>
void gemm_panels(const PackedA<T>& a, const PackedB<T>& b, std::int64_t n, std::int64_t columns,
                 T* c, std::int64_t ldc, F&& f) {
  using Tile = GemmTile<T>;
  for (std::int64_t m = 0; m < a.rows; m += Tile::rows) {
    const std::int64_t rows = std::min(Tile::rows, a.rows - m);
    for (std::int64_t part = 0; part < a.cut.parts; ++part)
      multiply_panel<T, PackedA<T>::layout>(
          {MatrixC<T>{c, ldc}, 0, rows}, 0, columns, a.cut.size(part),
          {a.at(part, m), Panel<T>::packed_step(PackedA<T>::layout, rows)}, b.at(part, n),
          Unpacked<PackedB<T>>{}, part > 0, nullptr);
    f(m, rows);
  }
}

/// gemm on the calling thread alone, for use inside a chunk of parallel_for; `scratch` holds
/// gemm_scratch_size<T>() elements, aligned to 64 bytes.
template <class T>
void gemm_serial(Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
                 const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
                 bool accumulate, T* scratch) {
  with_sources(ta, tb, a, lda, b, ldb, [&](const auto& source_a, const auto& source_b) {
    gemm_chunk<T>(source_a, source_b, MatrixC<T>{c, ldc}, 0, m, n, 0, k, accumulate, scratch);
  });
}

/// y = x w + bias: x [batch,in], w [in,out], y [batch,out]; bias may be null.
template <class T>
void linear_forward(Context& ctx, std::int64_t batch, std::int64_t in, std::int64_t out, const T* x,
                    const T* w, const T* bias, T* y) {
  if (batch == 0 || out == 0) return;
  const AffineEpilogue<T> add_bias{nullptr, bias, Activation::identity};
  gemm_by_rows<T>(ctx, batch, out, in, RowsOfA<T>{x, in}, RowsOfB<T>{w, out}, MatrixC<T>{y, out},
                  bias == nullptr ? nullptr : &add_bias, false);
}

/// sum[j] += sum over i of x[i,j]: x [rows,columns].
template <class T>
void add_rows(Context& ctx, std::int64_t rows, std::int64_t columns, const T* x, T* sum) {
  const std::int64_t chunks = std::clamp<std::int64_t>(rows * columns / 65536, 1, 16);
  const std::int64_t length = divide_up(rows, chunks);
  auto partial = ctx.make<T>({chunks * columns}, "partial sums");
  ctx.parallel_for(chunks, [&](std::int64_t chunk) {
    T* to = partial.data + chunk * columns;
    fill_zero(to, columns);
    for (std::int64_t i = chunk * length; i < std::min(rows, (chunk + 1) * length); ++i)
      for (std::int64_t j = 0; j < columns; ++j) to[j] += x[i * columns + j];
  });
  add_partials(ctx, chunks, 1, columns, partial.data, sum, columns, true);
}

}  // namespace kindred::cpu
