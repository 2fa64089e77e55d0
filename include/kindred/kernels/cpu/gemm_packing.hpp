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
  /// Length of the sums between two visits of a tile: B's sliver comes from L2 meanwhile, which
  /// costs less than more visits.
  static constexpr std::int64_t depth =
      (many_registers ? 2048 : 1024) / static_cast<std::int64_t>(sizeof(T));
  /// Distance between rows of a panel packed by rows; not a multiple of a large power of two.
  static constexpr std::int64_t stride = depth + 64 / static_cast<std::int64_t>(sizeof(T));
  /// Columns of B in the cache at the same time.
  static constexpr std::int64_t block = 256;
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

/// Memory that will be read soon: runs of bytes at a constant distance. Tiles ask for its cache
/// lines while they compute, some at a time; when there are no more, for the last ones again.
class LinesAhead {
 public:
  /// None; `somewhere` is memory that may be read.
  explicit LinesAhead(const void* somewhere) : LinesAhead(somewhere, 0, 0, 0) {}
  LinesAhead(const void* first, std::int64_t runs, std::int64_t bytes, std::int64_t distance)
      : at_(static_cast<const char*>(first)), runs_left_(runs) {
    if (bytes == distance) {  // one long run
      bytes *= runs;
      runs_left_ = 1;
    }
    pieces_ = pieces_left_ = std::max<std::int64_t>(1, divide_up(bytes, piece));
    jump_ = distance - (pieces_ - 1) * piece;
  }
  template <class T>
  static LinesAhead of_matrix(const T* first, std::int64_t rows, std::int64_t columns,
                              std::int64_t ld) {
    constexpr auto size = static_cast<std::int64_t>(sizeof(T));
    return {first, rows, columns * size, ld * size};
  }

  [[gnu::always_inline]] void fetch() {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < piece; i += 64) __builtin_prefetch(at_ + i);
    if (--pieces_left_ > 0) {
      at_ += piece;
    } else if (--runs_left_ > 0) {
      pieces_left_ = pieces_;
      at_ += jump_;
    }
  }
  /// Whether all have been asked for.
  bool finished() const { return pieces_left_ <= 0 && runs_left_ <= 0; }

 private:
  static constexpr std::int64_t piece = 128;
  const char* at_;
  std::int64_t pieces_, pieces_left_;  // of a run
  std::int64_t runs_left_;
  std::int64_t jump_;  // from the last piece of a run to the first of the next
};

/// Where element (i, p) of a panel of A lies.
enum class PanelLayout {
  columns,  ///< p * step + i
  rows,     ///< i * step + p
};

/// A source of A has
///   layout   of its panels
///   group_rows(m)   the most rows that a group of panels from row m on may have
///   pack(m, rows, k, depth, to)   packs A[m : m+rows, k : k+depth], rows <= GemmTile::group_rows,
///     as panels that are GemmTile::panel_size apart; each has GemmTile::rows rows, the last one is
///     filled with zeros up to GemmTile::height. The step is GemmTile::stride or the height
///   rows_in_place(rows), at(m, k), lda   (optional) how many of the first rows tiles can read as
///     they lie, in whole panels, and where: the step is lda
///   ahead(m, rows, k, depth)   (optional) the memory that pack() or tiles will read.
template <class T>
struct Panel {
  const T* data;
  std::int64_t step;  ///< see PanelLayout

  /// A packed one with `rows` rows in use.
  static constexpr std::int64_t packed_step(PanelLayout layout, std::int64_t rows) {
    return layout == PanelLayout::columns ? GemmTile<T>::height(rows) : GemmTile<T>::stride;
  }
  /// Its memory, if it has all rows.
  LinesAhead lines(PanelLayout layout, std::int64_t depth) const {
    return layout == PanelLayout::columns
               ? LinesAhead::of_matrix(data, depth, GemmTile<T>::rows, step)
               : LinesAhead::of_matrix(data, GemmTile<T>::rows, depth, step);
  }
};

/// Of `rows` rows those in panels that tiles can read: all but a last one of less than a height.
template <class T>
constexpr std::int64_t rows_of_whole_panels(std::int64_t rows) {
  const std::int64_t last = (rows - 1) % GemmTile<T>::rows + 1;
  return last == GemmTile<T>::height(last) ? rows : rows - last;
}
/// How many of `rows` rows of a source of A need no packing.
template <class SourceA>
inline std::int64_t rows_in_place(const SourceA& a, std::int64_t rows) {
  if constexpr (requires { a.rows_in_place(rows); })
    return a.rows_in_place(rows);
  else
    return 0;
}
/// The panel that begins at A[m, k], where it lies; for rows_in_place().
template <class T, class SourceA>
inline Panel<T> panel_in_place([[maybe_unused]] const SourceA& a, [[maybe_unused]] std::int64_t m,
                               [[maybe_unused]] std::int64_t k) {
  if constexpr (requires { a.at(m, k); })
    return {a.at(m, k), a.lda};
  else
    return {};
}
/// The memory of a part of a source of A or B, see their ahead(); none if it cannot say.
template <class Source>
inline LinesAhead lines_ahead(const Source& source, std::int64_t begin, std::int64_t length,
                              std::int64_t other_begin, std::int64_t other_length) {
  if constexpr (requires { source.ahead(begin, length, other_begin, other_length); })
    if (length > 0 && other_length > 0)
      return source.ahead(begin, length, other_begin, other_length);
  return LinesAhead(&source);
}

/// The panels of A[m : m+rows, k : k+depth]: where they lie, or packed into `buffer`.
template <class T, class SourceA>
class PanelGroup {
  using Tile = GemmTile<T>;

 public:
  PanelGroup(const SourceA& a, std::int64_t m, std::int64_t rows, std::int64_t k,
             std::int64_t depth, T* buffer)
      : a_(a), m_(m), rows_(rows), in_place_(rows_in_place(a, rows)), k_(k), buffer_(buffer) {
    if (in_place_ < rows) a.pack(m + in_place_, rows - in_place_, k, depth, buffer);
  }
  /// Calls f(m, rows, panel).
  template <class F>
  void for_each(F&& f) const {
    for (std::int64_t i = 0; i < rows_; i += Tile::rows) {
      const std::int64_t used = std::min(Tile::rows, rows_ - i);
      f(m_ + i, used,
        i < in_place_ ? panel_in_place<T>(a_, m_ + i, k_)
                      : Panel<T>{buffer_ + (i - in_place_) / Tile::rows * Tile::panel_size,
                                 Panel<T>::packed_step(SourceA::layout, used)});
    }
  }

 private:
  const SourceA& a_;
  std::int64_t m_, rows_, in_place_, k_;
  T* buffer_;
};

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

/// Whether rows at this distance, a multiple of 4 KiB, would meet in one set of the L1 cache: those
/// are packed, all others are read where they lie.
template <class T>
constexpr bool meets_in_one_set(std::int64_t distance) {
  return distance * static_cast<std::int64_t>(sizeof(T)) % 4096 == 0;
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
  std::int64_t rows_in_place(std::int64_t rows) const {
    return meets_in_one_set<T>(lda) ? 0 : rows_of_whole_panels<T>(rows);
  }
  const T* at(std::int64_t m, std::int64_t k) const { return a + m * lda + k; }
  LinesAhead ahead(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth) const {
    return LinesAhead::of_matrix(at(m, k), rows, depth, lda);
  }
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
  /// As good as packed are rows that lie close together, and panels that use nearly all of the
  /// cache line which a tile loads for a step; narrower ones would load each several times.
  std::int64_t rows_in_place(std::int64_t rows) const {
    constexpr auto size = static_cast<std::int64_t>(sizeof(T));
    constexpr bool fills_lines = GemmTile<T>::rows * size >= 56;
    return lda * size <= 256 || (fills_lines && !meets_in_one_set<T>(lda))
               ? rows_of_whole_panels<T>(rows)
               : 0;
  }
  const T* at(std::int64_t m, std::int64_t k) const { return a + k * lda + m; }
  LinesAhead ahead(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth) const {
    return LinesAhead::of_matrix(at(m, k), depth, rows, lda);
  }
};

/// A source of B has pack(k, depth, n, columns, to) and perhaps ahead(k, depth, n, columns): packs
/// B[k : k+depth, n : n+columns] as slivers of GemmTile::columns columns; the last one has one or
/// two vectors and is filled with zeros. Element (p, j) of the sliver that starts at column n + q
/// goes to q * depth + p * width + j.
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
  LinesAhead ahead(std::int64_t k, std::int64_t depth, std::int64_t n, std::int64_t columns) const {
    return LinesAhead::of_matrix(at(k, n), depth, columns, ldb);
  }
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
  LinesAhead ahead(std::int64_t k, std::int64_t depth, std::int64_t n, std::int64_t columns) const {
    return LinesAhead::of_matrix(b + n * ldb + k, columns, depth, ldb);
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
  LinesAhead ahead(std::int64_t k, std::int64_t depth, std::int64_t n, std::int64_t columns) const {
    const std::int64_t size = columns * depth;  // slivers follow each other
    return LinesAhead::of_matrix(at(k / cut.part, n), 1, size, size);
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
