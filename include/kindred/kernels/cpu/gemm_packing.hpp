#pragma once
// How matrix products see their factors: sizes of the tiles, and A and B packed so that the tile
// reads them in order. See gemm.hpp for the whole.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

/// Sizes of the tiles for element type T on the compile target.
template <class T>
struct GemmTile {
  using Arch = typename Vector<T>::arch_type;
  static constexpr bool many_registers =
      std::is_base_of_v<xsimd::avx512f, Arch> || std::is_base_of_v<xsimd::neon64, Arch>;
  static constexpr std::int64_t width = vector_size<T>;
  /// Rows and columns of a full tile: 2 * rows accumulators, 2 vectors of B, 1 broadcast of A.
  static constexpr std::int64_t rows = many_registers ? 14 : 6;
  static constexpr std::int64_t columns = 2 * width;
  /// Panels at the lower edge are computed with the smallest of these heights that holds them.
  static constexpr std::int64_t heights[3] = {rows, many_registers ? 8 : 4, many_registers ? 4 : 2};
  /// Length of the sums between two visits of a tile: a panel of A and a sliver of B fit into L1.
  static constexpr std::int64_t depth = 1024 / static_cast<std::int64_t>(sizeof(T));
  /// Distance between rows of a panel packed by rows; not a multiple of a large power of two.
  static constexpr std::int64_t stride = depth + 64 / static_cast<std::int64_t>(sizeof(T));
  /// Columns of B in the cache at the same time.
  static constexpr std::int64_t block = 512;
  /// Elements of a packed panel of A, and rows of as many panels as are packed together: what lies
  /// close together in memory is then read together.
  static constexpr std::int64_t panel_size = rows * stride;
  static constexpr std::int64_t group_panels = 8, group_rows = group_panels * rows;
  static constexpr std::int64_t group_size = group_panels * panel_size;

  static constexpr std::int64_t height(std::int64_t remaining) {
    return remaining <= heights[2] ? heights[2] : remaining <= heights[1] ? heights[1] : heights[0];
  }
};

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return divide_up(a, b) * b; }

/// Calls f(0), ..., f(N - 1) with compile-time arguments.
template <std::int64_t N, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<std::int64_t... I>(std::integer_sequence<std::int64_t, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<std::int64_t, I>{}), ...);
  }
  (std::make_integer_sequence<std::int64_t, N>{});
}

/// Copies n elements; short ends as two overlapping pieces, because most runs here are short.
template <class T>
inline void copy(const T* from, std::int64_t n, T* to) {
  constexpr std::int64_t width = vector_size<T>;
  for (; n >= width; n -= width, from += width, to += width)
    Vector<T>::load_unaligned(from).store_unaligned(to);
  if constexpr (width >= 16)
    if (n >= 8) {
      T piece[16];
      std::memcpy(piece, from, 8 * sizeof(T));
      std::memcpy(piece + 8, from + n - 8, 8 * sizeof(T));
      std::memcpy(to, piece, 8 * sizeof(T));
      std::memcpy(to + n - 8, piece + 8, 8 * sizeof(T));
      return;
    }
  for (; n >= 4; n -= 4, from += 4, to += 4) std::memcpy(to, from, 4 * sizeof(T));
  for (std::int64_t i = 0; i < n; ++i) to[i] = from[i];
}
template <class T>
inline void fill_zero(T* to, std::int64_t n) {
  if (n > 0) std::memset(to, 0, static_cast<std::size_t>(n) * sizeof(T));
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) && !defined(__CUDACC__)  // nvcc mistakes its type
#define KINDRED_HAS_SHUFFLE 1
#endif
#endif

/// to[p * to_stride + j] = from[j * from_stride + p] for one square of vector_size rows.
template <class T>
inline void transpose_square(const T* from, std::int64_t from_stride, T* to,
                             std::int64_t to_stride) {
  constexpr std::int64_t n = vector_size<T>;
#ifdef KINDRED_HAS_SHUFFLE
  // Butterfly: in the step of distance d, rows i and i + d exchange their off-diagonal d x d
  // blocks.
  using Register [[gnu::vector_size(sizeof(T) * n)]] = T;
  Register r[n];
  unroll<n>([&](auto j) __attribute__((always_inline)) {
    std::memcpy(&r[j], from + j * from_stride, sizeof(Register));
  });
  auto step = [&](auto distance) __attribute__((always_inline)) {
    constexpr std::int64_t d = distance;
    unroll<n>([&](auto row) __attribute__((always_inline)) {
      constexpr std::int64_t i = row;
      if constexpr ((i & d) == 0) {
        [&]<int... c>(std::integer_sequence<int, c...>) __attribute__((always_inline)) {
          const auto low = __builtin_shufflevector(
              r[i], r[i + d],
              ((c & d) == 0 ? c : static_cast<int>(n) + c - static_cast<int>(d))...);
          r[i + d] = __builtin_shufflevector(
              r[i], r[i + d],
              ((c & d) == 0 ? c + static_cast<int>(d) : static_cast<int>(n) + c)...);
          r[i] = low;
        }
        (std::make_integer_sequence<int, static_cast<int>(n)>{});
      }
    });
  };
  if constexpr (n >= 16) step(std::integral_constant<std::int64_t, 8>{});
  if constexpr (n >= 8) step(std::integral_constant<std::int64_t, 4>{});
  if constexpr (n >= 4) step(std::integral_constant<std::int64_t, 2>{});
  if constexpr (n >= 2) step(std::integral_constant<std::int64_t, 1>{});
  unroll<n>([&](auto j) __attribute__((always_inline)) {
    std::memcpy(to + j * to_stride, &r[j], sizeof(Register));
  });
#else
  for (std::int64_t p = 0; p < n; ++p)
    for (std::int64_t j = 0; j < n; ++j) to[p * to_stride + j] = from[j * from_stride + p];
#endif
}

/// Where element (i, p) of a panel of A lies.
enum class PanelLayout {
  columns,       ///< p * step + i
  rows,          ///< i * GemmTile::stride + p
  strided_rows,  ///< i * step + p
};

/// A source of A has
///   layout   of its panels
///   group_rows(m)   the most rows that a group of panels from row m on may have
///   pack(m, rows, k, depth, to)   packs A[m : m+rows, k : k+depth], rows <= GemmTile::group_rows,
///     as panels that are GemmTile::panel_size apart; each has GemmTile::rows rows, the last one is
///     filled with zeros up to GemmTile::height. The step is GemmTile::stride or the height
///   in_place(rows), at(m, k), lda   (optional) whether and where a panel can be read unpacked.
template <class T>
struct Panel {
  const T* data;
  std::int64_t step;  ///< see PanelLayout

  /// A packed one with `rows` rows in use.
  static constexpr std::int64_t packed_step(PanelLayout layout, std::int64_t rows) {
    return layout == PanelLayout::columns ? GemmTile<T>::height(rows) : GemmTile<T>::stride;
  }
};

/// Calls f(m, rows, panel) for the panels of A[m : m+rows, k : k+depth], in `buffer` if packed.
template <class T, class SourceA, class F>
inline void for_each_panel(const SourceA& a, std::int64_t m, std::int64_t rows, std::int64_t k,
                           std::int64_t depth, T* buffer, F&& f) {
  using Tile = GemmTile<T>;
  bool in_place = false;
  if constexpr (requires { a.in_place(rows); }) in_place = a.in_place(rows);
  if (!in_place) a.pack(m, rows, k, depth, buffer);
  for (std::int64_t i = 0; i < rows; i += Tile::rows) {
    const std::int64_t used = std::min(Tile::rows, rows - i);
    Panel<T> panel{buffer + i / Tile::rows * Tile::panel_size,
                   Panel<T>::packed_step(SourceA::layout, used)};
    if constexpr (requires { a.in_place(rows); })
      if (in_place) panel = {a.at(m + i, k), a.lda};
    f(m + i, used, panel);
  }
}

/// Packs by rows: copy_row(i, to) writes the `depth` elements of row i.
template <class T, class CopyRow>
inline void pack_by_rows(std::int64_t rows, std::int64_t depth, T* to, CopyRow&& copy_row) {
  using Tile = GemmTile<T>;
  for (std::int64_t i = 0; i < rows; ++i, to += Tile::stride) copy_row(i, to);
  const std::int64_t last = (rows - 1) % Tile::rows + 1;
  for (std::int64_t i = last; i < Tile::height(last); ++i, to += Tile::stride) fill_zero(to, depth);
}
static_assert(GemmTile<float>::panel_size == GemmTile<float>::rows * GemmTile<float>::stride,
              "rows of consecutive panels follow each other");

/// Packs by columns: from(p) is where the `rows` elements of column p lie, or null for zeros.
template <class T, class From>
inline void pack_by_columns(std::int64_t rows, std::int64_t depth, T* to, From&& from) {
  using Tile = GemmTile<T>;
  const std::int64_t full = rows / Tile::rows, rest = rows % Tile::rows;
  const std::int64_t height = Tile::height(rest);
  T* last = to + full * Tile::panel_size;
  for (std::int64_t p = 0; p < depth; ++p, to += Tile::rows, last += height) {
    const T* source = from(p);
    for (std::int64_t q = 0; q < full; ++q) {
      if (source == nullptr)
        std::memset(to + q * Tile::panel_size, 0, sizeof(T) * Tile::rows);
      else
        std::memcpy(to + q * Tile::panel_size, source + q * Tile::rows, sizeof(T) * Tile::rows);
    }
    if (rest == 0) continue;
    const T* tail = source == nullptr ? source : source + full * Tile::rows;
    if (tail != nullptr && rest == Tile::heights[1])
      std::memcpy(last, tail, sizeof(T) * Tile::heights[1]);
    else if (tail != nullptr && rest == Tile::heights[2])
      std::memcpy(last, tail, sizeof(T) * Tile::heights[2]);
    else
      for (std::int64_t i = 0; i < height; ++i)
        last[i] = tail != nullptr && i < rest ? tail[i] : T(0);
  }
}

template <class T>
struct RowsOfA {  // op(A) = A
  static constexpr auto layout = PanelLayout::rows;
  const T* a;
  std::int64_t lda;
  std::int64_t group_rows(std::int64_t) const { return GemmTile<T>::group_rows; }
  void pack(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth, T* to) const {
    pack_by_rows(rows, depth, to,
                 [=, this](std::int64_t i, T* row) { copy(a + (m + i) * lda + k, depth, row); });
  }
};

/// Short rows, which lie so close together that they need no packing.
template <class T>
struct ThinRowsOfA : RowsOfA<T> {
  static constexpr auto layout = PanelLayout::strided_rows;
  static bool fits(const RowsOfA<T>& a) {
    return a.lda * static_cast<std::int64_t>(sizeof(T)) <= 256;
  }
  bool in_place(std::int64_t rows) const {
    const std::int64_t last = (rows - 1) % GemmTile<T>::rows + 1;
    return last == GemmTile<T>::height(last);
  }
  const T* at(std::int64_t m, std::int64_t k) const { return this->a + m * this->lda + k; }
};

template <class T>
struct ColumnsOfA {  // op(A) = A^T
  static constexpr auto layout = PanelLayout::columns;
  const T* a;
  std::int64_t lda;
  std::int64_t group_rows(std::int64_t) const { return GemmTile<T>::group_rows; }
  void pack(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth, T* to) const {
    const T* first = at(m, k);
    pack_by_columns(rows, depth, to, [=, this](std::int64_t p) { return first + p * lda; });
  }
  /// Rows that lie close together are as good as packed.
  bool in_place(std::int64_t rows) const {
    const std::int64_t last = (rows - 1) % GemmTile<T>::rows + 1;
    return last == GemmTile<T>::height(last) && lda * static_cast<std::int64_t>(sizeof(T)) <= 256;
  }
  const T* at(std::int64_t m, std::int64_t k) const { return a + k * lda + m; }
};

/// A source of B has pack(k, depth, n, columns, to): packs B[k : k+depth, n : n+columns] as slivers
/// of GemmTile::columns columns; the last one has one or two vectors and is filled with zeros.
/// Element (p, j) of the sliver that starts at column n + q goes to q * depth + p * width + j.
constexpr std::int64_t sliver_width(std::int64_t columns, std::int64_t vector) {
  return columns > vector ? 2 * vector : vector;
}

/// From rows: b[p * ldb + j]. Whole rows are read at a time.
template <class T>
void pack_rows_of_b(const T* b, std::int64_t ldb, std::int64_t depth, std::int64_t columns, T* to) {
  using Tile = GemmTile<T>;
  const std::int64_t full = columns / Tile::columns * Tile::columns, rest = columns - full;
  const std::int64_t width = sliver_width(rest, Tile::width);
  for (std::int64_t p = 0; p < depth; ++p, b += ldb) {
    for (std::int64_t j = 0; j < full; j += Tile::columns)
      copy(b + j, Tile::columns, to + j * depth + p * Tile::columns);
    if (rest == 0) continue;
    T* last = to + full * depth + p * width;
    copy(b + full, rest, last);
    for (std::int64_t j = rest; j < width; ++j) last[j] = 0;
  }
}

/// From columns: b[j * ldb + p]; `width` is that of the slivers in `to`.
template <class T>
void pack_sliver_of_columns(const T* b, std::int64_t ldb, std::int64_t depth, std::int64_t columns,
                            std::int64_t width, T* to) {
  constexpr std::int64_t n = vector_size<T>;
  for (std::int64_t j = 0; j < width; j += n) {
    std::int64_t p = 0;
    if (j + n <= columns)
      for (; p + n <= depth; p += n)
        transpose_square(b + j * ldb + p, ldb, to + p * width + j, width);
    for (; p < depth; ++p)
      for (std::int64_t i = j; i < j + n; ++i)
        to[p * width + i] = i < columns ? b[i * ldb + p] : T(0);
  }
}

template <class T>
struct RowsOfB {  // op(B) = B
  const T* b;
  std::int64_t ldb;
  void pack(std::int64_t k, std::int64_t depth, std::int64_t n, std::int64_t columns, T* to) const {
    pack_rows_of_b(at(k, n), ldb, depth, columns, to);
  }
  const T* at(std::int64_t k, std::int64_t n) const { return b + k * ldb + n; }
};
template <class T>
struct ColumnsOfB {  // op(B) = B^T
  const T* b;
  std::int64_t ldb;
  void pack(std::int64_t k, std::int64_t depth, std::int64_t n, std::int64_t columns, T* to) const {
    using Tile = GemmTile<T>;
    for (std::int64_t j = 0; j < columns; j += Tile::columns) {
      const std::int64_t used = std::min(Tile::columns, columns - j);
      pack_sliver_of_columns(b + (n + j) * ldb + k, ldb, depth, used,
                             sliver_width(used, Tile::width), to + j * depth);
    }
  }
};

/// How a sum of length k is cut: equal parts of at most GemmTile::depth.
template <class T>
struct DepthCut {
  std::int64_t k, parts, part;
  explicit DepthCut(std::int64_t length)
      : k(length),
        parts(std::max<std::int64_t>(1, divide_up(length, GemmTile<T>::depth))),
        part(std::clamp(round_up(divide_up(length, parts), vector_size<T>), vector_size<T>,
                        GemmTile<T>::depth)) {}
  std::int64_t begin(std::int64_t i) const { return i * part; }
  std::int64_t size(std::int64_t i) const { return std::min(part, k - i * part); }
};

/// A matrix B [k,n] packed whole, part after part of the sum, each as slivers (see above): what
/// inference makes of its weights once for all passes.
template <class T>
struct PackedB {
  T* data;
  DepthCut<T> cut;
  std::int64_t padded_columns;

  PackedB(T* to, std::int64_t k, std::int64_t n)
      : data(to), cut(k), padded_columns(round_up(n, GemmTile<T>::columns)) {}
  std::int64_t size() const { return cut.k * padded_columns; }
  /// The sliver of a part that starts at column j.
  T* at(std::int64_t part, std::int64_t j) const {
    return data + cut.begin(part) * padded_columns + j * cut.size(part);
  }
};

/// A matrix A [m,k] packed whole, part after part of the sum, each as panels of rows.
template <class T>
struct PackedA {
  T* data;
  DepthCut<T> cut;
  std::int64_t rows;
  static constexpr auto layout = PanelLayout::rows;

  PackedA(T* to, std::int64_t m, std::int64_t k) : data(to), cut(k), rows(m) {}
  static std::int64_t size(std::int64_t m, std::int64_t k) {
    return DepthCut<T>(k).parts * divide_up(m, GemmTile<T>::rows) * GemmTile<T>::panel_size;
  }
  /// Where the panel of a part lies that starts at row m.
  T* at(std::int64_t part, std::int64_t m) const {
    return data + (part * divide_up(rows, GemmTile<T>::rows) + m / GemmTile<T>::rows) *
                      GemmTile<T>::panel_size;
  }
  void pack(const RowsOfA<T>& a) const {
    for (std::int64_t part = 0; part < cut.parts; ++part)
      a.pack(0, rows, cut.begin(part), cut.size(part), at(part, 0));
  }
};

}  // namespace kindred::cpu
