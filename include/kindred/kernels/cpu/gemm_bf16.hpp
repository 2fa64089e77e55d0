#pragma once
// Matrix products whose left factor or result is stored as BF16: converted while it is packed, and
// when it leaves the cache. The products are those of gemm.hpp in T, term by term.

#include <algorithm>
#include <cstdint>

#include <kindred/kernels/cpu/gemm.hpp>

namespace kindred::cpu {

/// Sources of A: BF16 rows, and the transpose.
template <class T>
struct RowsOfRoundedA {
  static constexpr auto layout = PanelLayout::rows;
  const BFloat16* a;
  std::int64_t lda;
  std::int64_t group_rows(std::int64_t) const { return GemmTile<T>::group_rows; }
  void pack(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth, T* to) const {
    pack_by_rows(rows, depth, to, [=, this](std::int64_t i, T* row) {
      convert<T>(a + (m + i) * lda + k, depth, row);
    });
  }
};
template <class T>
struct ColumnsOfRoundedA {
  static constexpr auto layout = PanelLayout::columns;
  const BFloat16* a;
  std::int64_t lda;
  std::int64_t group_rows(std::int64_t) const { return GemmTile<T>::group_rows; }
  void pack(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth, T* to) const {
    T column[GemmTile<T>::group_rows];
    const BFloat16* next = a + k * lda + m;
    pack_by_columns(rows, depth, to, [&](std::int64_t) -> const T* {
      convert<T>(next, rows, column);
      next += lda;
      return column;
    });
  }
};

/// c = A b, rounded: A [m,k], b [k,n], c [m,n]. Moves what a product in T does, with 2 bytes for an
/// element of c, and of A where that is BF16. A panel of rows is summed up in the cache.
template <class T, class SourceA>
void gemm_rounded(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
                  const T* b, BFloat16* c) {
  using Tile = GemmTile<T>;
  const DepthCut<T> cut(k);
  const std::int64_t blocks = divide_up(n, Tile::block), ldc = std::min(n, Tile::block) + 16;
  const std::int64_t panels = cut.parts * Tile::panel_size, size = panels + Tile::rows * ldc;
  auto packed = ctx.make<T>({k * round_up(n, Tile::columns)}, "packed B");
  auto scratch = ctx.make<T>({ctx.threads() * size}, "panel of A and its product");
  const PackedB<T> to(packed.data, k, n);
  const RowsOfB<T> source{b, n};
  ctx.parallel_for(cut.parts * blocks, [&](std::int64_t i) {
    const std::int64_t part = i / blocks, j = i % blocks * Tile::block;
    source.pack(cut.begin(part), cut.size(part), j, std::min(Tile::block, n - j), to.at(part, j));
  });
  // The product of one panel of rows.
  const auto multiply = [&](std::int64_t row, std::int64_t rows, T* panel, T* product) {
    for (std::int64_t part = 0; part < cut.parts; ++part)
      a.pack(row, rows, cut.begin(part), cut.size(part), panel + part * Tile::panel_size);
    for (std::int64_t j = 0; j < n; j += Tile::block) {
      const std::int64_t columns = std::min(Tile::block, n - j);
      for (std::int64_t part = 0; part < cut.parts; ++part)
        multiply_panel<T, SourceA::layout>(
            {MatrixC<T>{product, ldc}, 0, rows}, 0, columns, cut.size(part),
            {panel + part * Tile::panel_size, Panel<T>::packed_step(SourceA::layout, rows)},
            to.at(part, j), Unpacked<PackedB<T>>{}, part > 0, nullptr);
      for (std::int64_t i = 0; i < rows; ++i)
        convert<T>(product + i * ldc, columns, c + (row + i) * n + j);
    }
  };
  ctx.parallel_for(divide_up(m, Tile::group_rows), [&](std::int64_t group, int thread) {
    T* panel = scratch.data + thread * size;
    const std::int64_t end = std::min(m, (group + 1) * Tile::group_rows);
    for (std::int64_t row = group * Tile::group_rows; row < end; row += Tile::rows)
      multiply(row, std::min(Tile::rows, end - row), panel, panel + panels);
  });
}

}  // namespace kindred::cpu
