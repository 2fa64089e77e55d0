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

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>
#include <kindred/kernels/transpose.hpp>

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

// ---- packing ------------------------------------------------------------------------------------

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
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

// ---- destinations and epilogues -----------------------------------------------------------------

/// A destination has row(m), where row m of C starts, and distance() of rows or 0 if it varies.
template <class T>
struct MatrixC {
  T* c;
  std::int64_t ldc;
  std::int64_t distance() const { return ldc; }
  T* row(std::int64_t m) const { return c + m * ldc; }
};

/// row[j] = activation(scale[n+j] row[j] + shift[n+j]); null scale is 1, null shift is 0.
template <Activation A, class T>
inline void apply_affine(T* row, const T* scale, const T* shift, std::int64_t columns) {
  constexpr std::int64_t width = vector_size<T>;
  std::int64_t j = 0;
  for (; j + width <= columns; j += width) {
    const auto v = Vector<T>::load_unaligned(row + j);
    const Vector<T> times =
        scale == nullptr ? Vector<T>(T(1)) : Vector<T>::load_unaligned(scale + j);
    const Vector<T> plus =
        shift == nullptr ? Vector<T>(T(0)) : Vector<T>::load_unaligned(shift + j);
    activate<A>(xsimd::fma(v, times, plus)).store_unaligned(row + j);
  }
  for (; j < columns; ++j) {
    T v = row[j];
    if (scale != nullptr) v *= scale[j];
    if (shift != nullptr) v += shift[j];
    row[j] = activate<A>(v);
  }
}

template <class T>
struct AffineEpilogue {
  const T* scale = nullptr;
  const T* shift = nullptr;
  Activation activation = Activation::identity;

  bool does_nothing() const {
    return scale == nullptr && shift == nullptr && activation == Activation::identity;
  }
  /// Whether RegisterEpilogue can stand for it.
  bool fits_registers() const { return ClampedLine<T>::holds(activation); }
  /// Finishes `columns` elements, the first of column n, in each of the rows.
  void operator()(T* const* row, std::int64_t rows, std::int64_t offset, std::int64_t n,
                  std::int64_t columns) const {
    dispatch_activation(activation, [&](auto a) {
      for (std::int64_t i = 0; i < rows; ++i)
        apply_affine<a()>(row[i] + offset, scale == nullptr ? nullptr : scale + n,
                          shift == nullptr ? nullptr : shift + n, columns);
    });
  }
};

/// An AffineEpilogue for sums that are in registers still; V is a vector or a scalar.
template <class T>
struct RegisterEpilogue {
  const T* scale;
  const T* shift;
  ClampedLine<T> line;

  /// For the columns from n on.
  RegisterEpilogue(const AffineEpilogue<T>& e, std::int64_t n)
      : scale(e.scale == nullptr ? nullptr : e.scale + n),
        shift(e.shift == nullptr ? nullptr : e.shift + n),
        line(e.activation) {}

  /// Finishes sums of the same columns, the first of them n.
  template <class V, std::int64_t N>
  [[gnu::always_inline]] void operator()(V (&sum)[N], std::int64_t n) const {
    const V times = scale == nullptr ? V(T(1)) : load_lanes<V>(scale + n);
    const V plus = shift == nullptr ? V(T(0)) : load_lanes<V>(shift + n);
    const V slope(line.slope), offset(line.offset), low(line.low), high(line.high);
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < N; ++i) {
      const V x = multiply_add<V, T>(sum[i], times, plus);
      // The sum comes second: see activate().
      const V y = lower<V>(high, upper<V>(low, multiply_add<V, T>(x, slope, offset)));
      sum[i] = line.gated ? x * y : y;
    }
  }

 private:
  template <class V>
  static V upper(const V& a, const V& b) {
    if constexpr (std::is_same_v<V, T>)
      return a > b ? a : b;
    else
      return xsimd::max(a, b);
  }
  template <class V>
  static V lower(const V& a, const V& b) {
    if constexpr (std::is_same_v<V, T>)
      return a < b ? a : b;
    else
      return xsimd::min(a, b);
  }
};

// ---- the tile -----------------------------------------------------------------------------------

/// What a tile reads of B: a packed sliver ...
template <class T, std::int64_t V>
struct PackedSliver {
  const T* from;
  Vector<T> load(std::int64_t v) const {
    return Vector<T>::load_aligned(from + v * vector_size<T>);
  }
  void advance() { from += V * vector_size<T>; }
};
/// ... or rows of B where they lie, which it packs on the way for the tiles below.
template <class T, std::int64_t V>
struct SliverToPack {
  const T* from;
  std::int64_t ldb;
  T* to;
  Vector<T> load(std::int64_t v) const {
    __builtin_prefetch(from + 16 * ldb + v * vector_size<T>);
    const auto element = Vector<T>::load_unaligned(from + v * vector_size<T>);
    element.store_aligned(to + v * vector_size<T>);
    return element;
  }
  void advance() {
    from += ldb;
    to += V * vector_size<T>;
  }
};

/// c[H, V vectors] (+)= panel of A times sliver of B. The loops over H and V unroll completely, so
/// that the sums live in registers.
template <class T, std::int64_t H, std::int64_t V, PanelLayout layout, class Sliver>
void multiply_tile(std::int64_t depth, Panel<T> panel, Sliver b, T* c, std::int64_t ldc,
                   bool accumulate) {
  constexpr std::int64_t width = vector_size<T>;
  constexpr bool columns = layout == PanelLayout::columns,
                 strided = !columns && layout != PanelLayout::rows;
  const std::int64_t row_step = columns ? 1 : strided ? panel.step : GemmTile<T>::stride;
  const std::int64_t depth_step = columns ? panel.step : 1;
  // Strided rows: every third has a pointer, the next two are one and two distances from it, which
  // is what addresses of x86 can say.
  constexpr std::int64_t rows_per_pointer = strided ? 3 : H;
  const T* a[divide_up(H, rows_per_pointer)];
#pragma GCC unroll 16
  for (std::int64_t i = 0; i < H; i += rows_per_pointer)
    a[i / rows_per_pointer] = panel.data + i * row_step;
  Vector<T> sum[H][V];
#pragma GCC unroll 16
  for (std::int64_t i = 0; i < H; ++i) {
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < V; ++v) {
      __builtin_prefetch(c + i * ldc + v * width, 1);
      sum[i][v] = Vector<T>(T(0));
    }
  }
  auto step = [&]() __attribute__((always_inline)) {
    Vector<T> right[V];
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < V; ++v) right[v] = b.load(v);
    b.advance();
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) {
      const Vector<T> left(a[i / rows_per_pointer][i % rows_per_pointer * row_step]);
#pragma GCC unroll 16
      for (std::int64_t v = 0; v < V; ++v) sum[i][v] = xsimd::fma(left, right[v], sum[i][v]);
    }
    for (const T*& pointer : a) pointer += depth_step;
  };
  for (std::int64_t p = depth / 2; p > 0; --p) {  // two at a time: 3-5% faster than one or four
    step();
    step();
  }
  if (depth % 2 != 0) step();
#pragma GCC unroll 16
  for (std::int64_t i = 0; i < H; ++i) {
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < V; ++v) {
      T* to = c + i * ldc + v * width;
      if (accumulate) sum[i][v] += Vector<T>::load_unaligned(to);
      sum[i][v].store_unaligned(to);
    }
  }
}

/// Applies the epilogue of columns n, ... to c[H, columns], whole vectors, that the tile has just
/// left in L1. In the tile itself its constants would take the registers of the sums.
template <class T, std::int64_t H>
[[gnu::noinline]] void finish_tile(const RegisterEpilogue<T>& epilogue, std::int64_t n, T* c,
                                   std::int64_t ldc, std::int64_t columns) {
  for (std::int64_t j = 0; j < columns; j += vector_size<T>) {
    Vector<T> column[H];
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) column[i] = Vector<T>::load_unaligned(c + i * ldc + j);
    epilogue(column, n + j);
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) column[i].store_unaligned(c + i * ldc + j);
  }
}

/// Calls f(H, V) as compile-time constants.
template <class T, class F>
inline void with_tile_size(std::int64_t height, bool two_vectors, F&& f) {
  constexpr const auto& heights = GemmTile<T>::heights;
  unroll<3>([&](auto h) {
    constexpr std::int64_t rows = heights[h];
    if (height != rows) return;
    if (two_vectors)
      f(std::integral_constant<std::int64_t, rows>{}, std::integral_constant<std::int64_t, 2>{});
    else
      f(std::integral_constant<std::int64_t, rows>{}, std::integral_constant<std::int64_t, 1>{});
  });
}

/// The rows of C that a panel meets: where they start and, if that is constant, their distance.
template <class T>
struct PanelRows {
  T* start[GemmTile<T>::rows];
  std::int64_t count;
  std::int64_t distance;  ///< 0: they lie anywhere

  template <class Destination>
  PanelRows(const Destination& c, std::int64_t m, std::int64_t rows)
      : count(rows), distance(c.distance()) {
    for (std::int64_t i = 0; i < rows; ++i) start[i] = c.row(m + i);
  }
};

/// Where slivers come from that are not packed yet: rows k, ... of a source of B.
template <class SourceB>
struct Unpacked {
  const SourceB* source = nullptr;  ///< null: they are packed
  std::int64_t k = 0;
};

/// Columns [n, n+columns) of some rows of C get a packed panel times slivers; then, unless
/// `epilogue` is null, it is applied to every tile. With an `unpacked` source each sliver is packed
/// just before its use or, if its rows can be read as they are, while they are used.
template <class T, PanelLayout layout, class SourceB>
void multiply_panel(const PanelRows<T>& rows, std::int64_t n, std::int64_t columns,
                    std::int64_t depth, Panel<T> panel, T* slivers, Unpacked<SourceB> unpacked,
                    bool accumulate, const AffineEpilogue<T>* epilogue) {
  using Tile = GemmTile<T>;
  const std::int64_t height = Tile::height(rows.count);
  std::optional<RegisterEpilogue<T>> quick;
  if (epilogue != nullptr && epilogue->fits_registers()) quick.emplace(*epilogue, n);
  for (std::int64_t j = 0; j < columns; j += Tile::columns) {
    const std::int64_t used = std::min(Tile::columns, columns - j);
    T* sliver = slivers + j * depth;
    const bool whole = used % Tile::width == 0;
    constexpr bool readable =  // strided rows only meet packed slivers
        std::is_same_v<SourceB, RowsOfB<T>> && layout != PanelLayout::strided_rows;
    const bool pack_on_the_way = readable && unpacked.source != nullptr && whole;
    if (unpacked.source != nullptr && !pack_on_the_way)
      unpacked.source->pack(unpacked.k, depth, n + j, used, sliver);
    alignas(64) T tile[Tile::rows * Tile::columns];
    const bool direct = rows.distance > 0 && rows.count == height && whole;
    T* c = direct ? rows.start[0] + n + j : tile;
    const std::int64_t ldc = direct ? rows.distance : Tile::columns;
    with_tile_size<T>(height, used > Tile::width, [&](auto h, auto v) {
      if constexpr (readable)
        if (pack_on_the_way)
          return multiply_tile<T, h, v, layout>(
              depth, panel,
              SliverToPack<T, v>{unpacked.source->at(unpacked.k, n + j), unpacked.source->ldb,
                                 sliver},
              c, ldc, direct && accumulate);
      multiply_tile<T, h, v, layout>(depth, panel, PackedSliver<T, v>{sliver}, c, ldc,
                                     direct && accumulate);
    });
    // What the tile holds is the whole sum, and whole vectors do not pass the end of the scales.
    const bool finish = quick && whole && (direct || !accumulate);
    if (finish)
      with_tile_size<T>(height, false,
                        [&](auto h, auto) { finish_tile<T, h>(*quick, j, c, ldc, used); });
    for (std::int64_t i = 0; i < rows.count && !direct; ++i) {
      T* to = rows.start[i] + n + j;
      const T* from = tile + i * Tile::columns;
      if (accumulate)
        for (std::int64_t q = 0; q < used; ++q) to[q] += from[q];
      else
        copy(from, used, to);
    }
    if (epilogue != nullptr && !finish) (*epilogue)(rows.start, rows.count, n + j, n + j, used);
  }
}

// ---- loops over one chunk -----------------------------------------------------------------------

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

/// Elements of 64-byte aligned scratch that gemm_serial needs: panels of A and a block of B.
template <class T>
constexpr std::int64_t gemm_scratch_size() {
  return GemmTile<T>::group_size + GemmTile<T>::depth * GemmTile<T>::block;
}

/// C[m0:m1, 0:n] (+)= A[m0:m1, k0:k1] B[k0:k1, 0:n] on the calling thread.
template <class T, class SourceA, class SourceB, class Destination>
void gemm_chunk(const SourceA& a, const SourceB& b, const Destination& c, std::int64_t m0,
                std::int64_t m1, std::int64_t n, std::int64_t k0, std::int64_t k1, bool accumulate,
                T* scratch) {
  using Tile = GemmTile<T>;
  T* block = scratch + Tile::group_size;
  const DepthCut<T> cut(k1 - k0);
  for (std::int64_t j = 0; j < n; j += Tile::block) {
    const std::int64_t columns = std::min(Tile::block, n - j);
    for (std::int64_t part = 0; part < cut.parts; ++part) {
      const std::int64_t k = k0 + cut.begin(part), depth = cut.size(part);
      for (std::int64_t m = m0, rows = 0; m < m1; m += rows) {
        rows = std::min(a.group_rows(m), m1 - m);
        for_each_panel(
            a, m, rows, k, depth, scratch, [&](std::int64_t i, std::int64_t used, Panel<T> panel) {
              const Unpacked<SourceB> unpacked{i == m0 ? &b : nullptr, k};
              multiply_panel<T, SourceA::layout>({c, i, used}, j, columns, depth, panel, block,
                                                 unpacked, accumulate || part > 0, nullptr);
            });
      }
    }
  }
}

// ---- loop orders --------------------------------------------------------------------------------

/// Parts of a product that are packed at once are at most this large.
inline constexpr std::int64_t gemm_packed_limit = std::int64_t{1} << 22;

/// B packed once; then blocks of rows x columns in parallel.
template <class T, class SourceA, class SourceB, class Destination>
void gemm_tall(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
               const SourceB& b, const Destination& c, const AffineEpilogue<T>* epilogue,
               bool accumulate) {
  using Tile = GemmTile<T>;
  const DepthCut<T> cut(k);
  const std::int64_t padded_n = round_up(n, Tile::columns);
  const std::int64_t group =
      std::clamp<std::int64_t>(gemm_packed_limit / (padded_n * cut.part), 1, cut.parts);
  // Large blocks of rows reuse what they load of B; enough blocks keep all threads busy.
  const std::int64_t heights = divide_up(m, Tile::rows), blocks = divide_up(n, Tile::block);
  const std::int64_t block_rows =
      Tile::rows * std::clamp<std::int64_t>(heights * blocks / 24,
                                            std::min<std::int64_t>(8, divide_up(heights, 8)), 32);
  auto packed = ctx.make<T>({group * cut.part * padded_n}, "packed B");
  auto panels = ctx.make<T>({ctx.threads() * Tile::group_size}, "panels of A");
  for (std::int64_t first = 0; first < cut.parts; first += group) {
    const std::int64_t last = std::min(first + group, cut.parts);
    auto packed_at = [=, to = packed.data](std::int64_t part, std::int64_t j) {
      return to + (cut.begin(part) - cut.begin(first)) * padded_n + j * cut.size(part);
    };
    ctx.parallel_for((last - first) * blocks, [&](std::int64_t i) {
      const std::int64_t part = first + i / blocks, j = i % blocks * Tile::block;
      b.pack(cut.begin(part), cut.size(part), j, std::min(Tile::block, n - j), packed_at(part, j));
    });
    ctx.parallel_for(divide_up(m, block_rows) * blocks, [&](std::int64_t i, int thread) {
      const std::int64_t begin = i / blocks * block_rows, end = std::min(m, begin + block_rows);
      const std::int64_t j = i % blocks * Tile::block, columns = std::min(Tile::block, n - j);
      for (std::int64_t part = first; part < last; ++part) {
        const std::int64_t depth = cut.size(part);
        const auto* finish = part + 1 == cut.parts ? epilogue : nullptr;
        for (std::int64_t r = begin; r < end; r += Tile::group_rows)
          for_each_panel(a, r, std::min(Tile::group_rows, end - r), cut.begin(part), depth,
                         panels.data + thread * Tile::group_size,
                         [&](std::int64_t row, std::int64_t rows, Panel<T> panel) {
                           multiply_panel<T, SourceA::layout>(
                               {c, row, rows}, j, columns, depth, panel, packed_at(part, j),
                               Unpacked<SourceB>{}, accumulate || part > 0, finish);
                         });
      }
    });
  }
}

/// A packed once, chunks of columns in parallel; each packs its slivers of B just before use.
template <class T, class SourceA, class SourceB, class Destination>
void gemm_wide(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const SourceA& a,
               const SourceB& b, const Destination& c, const AffineEpilogue<T>* epilogue,
               bool accumulate) {
  using Tile = GemmTile<T>;
  const DepthCut<T> cut(k);
  const std::int64_t groups = divide_up(m, Tile::group_rows);
  const std::int64_t depth_group =
      std::clamp<std::int64_t>(gemm_packed_limit / (groups * Tile::group_size), 1, cut.parts);
  // Small products are not worth a second thread.
  const std::int64_t slivers = divide_up(n, Tile::columns);
  const std::int64_t enough =
      divide_up(std::int64_t{100000}, std::max<std::int64_t>(1, m * k * Tile::columns));
  const std::int64_t chunk =
      Tile::columns *
      std::clamp<std::int64_t>(std::max(slivers / 8, enough), 1, Tile::block / Tile::columns);
  auto packed = ctx.make<T>({depth_group * groups * Tile::group_size}, "packed A");
  auto blocks = ctx.make<T>({ctx.threads() * Tile::depth * chunk}, "block of B");
  for (std::int64_t first = 0; first < cut.parts; first += depth_group) {
    const std::int64_t last = std::min(first + depth_group, cut.parts);
    auto group_at = [=, to = packed.data](std::int64_t part, std::int64_t row) {
      return to + ((part - first) * groups + row / Tile::group_rows) * Tile::group_size;
    };
    auto pack = [&](std::int64_t i) {
      const std::int64_t part = first + i / groups, row = i % groups * Tile::group_rows;
      a.pack(row, std::min(Tile::group_rows, m - row), cut.begin(part), cut.size(part),
             group_at(part, row));
    };
    const std::int64_t tasks = (last - first) * groups;
    if (n <= chunk)
      ctx.parallel_for(1, [&](std::int64_t) {
        for (std::int64_t i = 0; i < tasks; ++i) pack(i);
      });
    else
      ctx.parallel_for(tasks, pack);
    ctx.parallel_for(divide_up(n, chunk), [&](std::int64_t i, int thread) {
      T* block = blocks.data + thread * Tile::depth * chunk;
      const std::int64_t j = i * chunk, columns = std::min(chunk, n - j);
      for (std::int64_t part = first; part < last; ++part) {
        for (std::int64_t r = 0; r < m; r += Tile::rows) {
          const std::int64_t rows = std::min(Tile::rows, m - r);
          const T* panel = group_at(part, r) + r % Tile::group_rows / Tile::rows * Tile::panel_size;
          multiply_panel<T, SourceA::layout>(
              {c, r, rows}, j, columns, cut.size(part),
              {panel, Panel<T>::packed_step(SourceA::layout, rows)}, block,
              Unpacked<SourceB>{r == 0 ? &b : nullptr, cut.begin(part)}, accumulate || part > 0,
              part + 1 == cut.parts ? epilogue : nullptr);
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
                  scratch.data + thread * gemm_scratch_size<T>());
  });
  add_partials(ctx, chunks, m, n, partial.data, c, ldc, accumulate);
}

/// H rows of C, `V` vectors of columns from column n on: B is read where it lies.
template <class T, std::int64_t H, std::int64_t V>
void multiply_flat(std::int64_t k, const RowsOfA<T>& a, const RowsOfB<T>& b, T* const* rows,
                   std::int64_t n, bool accumulate) {
  constexpr std::int64_t width = vector_size<T>;
  Vector<T> sum[H][V];
  for (std::int64_t i = 0; i < H; ++i)
    for (std::int64_t v = 0; v < V; ++v)
      sum[i][v] = accumulate ? Vector<T>::load_unaligned(rows[i] + n + v * width) : Vector<T>(T(0));
  const T* right = b.b + n;
  for (std::int64_t p = 0; p < k; ++p, right += b.ldb) {
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < V; ++v) {
      const auto element = Vector<T>::load_unaligned(right + v * width);
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < H; ++i)
        sum[i][v] = xsimd::fma(Vector<T>(a.a[i * a.lda + p]), element, sum[i][v]);
    }
  }
  for (std::int64_t i = 0; i < H; ++i)
    for (std::int64_t v = 0; v < V; ++v) sum[i][v].store_unaligned(rows[i] + n + v * width);
}

/// Columns [begin, end) of H rows: in blocks of eight vectors, in vectors, one by one.
template <class T, std::int64_t H>
void multiply_flat_columns(std::int64_t k, const RowsOfA<T>& a, const RowsOfB<T>& b, T* const* rows,
                           std::int64_t begin, std::int64_t end, bool accumulate) {
  constexpr std::int64_t width = vector_size<T>, vectors = 8 / H < 4 ? 4 : 8 / H;
  std::int64_t n = begin;
  for (; n + vectors * width <= end; n += vectors * width)
    multiply_flat<T, H, vectors>(k, a, b, rows, n, accumulate);
  for (; n + width <= end; n += width) multiply_flat<T, H, 1>(k, a, b, rows, n, accumulate);
  for (; n < end; ++n)
    for (std::int64_t i = 0; i < H; ++i) {
      T sum = accumulate ? rows[i][n] : T(0);
      for (std::int64_t p = 0; p < k; ++p) sum += a.a[i * a.lda + p] * b.b[p * b.ldb + n];
      rows[i][n] = sum;
    }
}

/// Rows of C that the flat order takes at most.
inline constexpr std::int64_t gemm_flat_rows = 4;

/// Bound by reading B once: k n elements for 2 m k n operations.
template <class T, class Destination>
void gemm_flat(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const RowsOfA<T>& a,
               const RowsOfB<T>& b, const Destination& c, const AffineEpilogue<T>* epilogue,
               bool accumulate) {
  // Whole blocks of columns; small products are not worth a second thread.
  constexpr std::int64_t block = 8 * vector_size<T>;
  const std::int64_t enough = divide_up(std::int64_t{65536}, std::max<std::int64_t>(1, k * block));
  ctx.parallel_ranges(n, block * enough, [&](std::int64_t begin, std::int64_t end) {
    T* rows[gemm_flat_rows];
    for (std::int64_t i = 0; i < m; ++i) rows[i] = c.row(i);
    unroll<gemm_flat_rows>([&](auto i) {
      if (m == i + 1) multiply_flat_columns<T, i + 1>(k, a, b, rows, begin, end, accumulate);
    });
    if (epilogue != nullptr) (*epilogue)(rows, m, begin, begin, end - begin);
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
  if constexpr (std::is_same_v<SourceA, RowsOfA<T>>)
    if (ThinRowsOfA<T>::fits(a))
      return gemm_tall<T>(ctx, m, n, k, ThinRowsOfA<T>{a}, b, c, epilogue, accumulate);
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

// ---- entry points -------------------------------------------------------------------------------

/// c = op(a) op(b) (+ c): op(a) [m,k], op(b) [k,n], c [m,n], rows lda, ldb, ldc elements apart.
template <class T>
void gemm(Context& ctx, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
          const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
          bool accumulate) {
  if (m == 0 || n == 0) return;
  with_sources(ta, tb, a, lda, b, ldb, [&](const auto& source_a, const auto& source_b) {
    if (k >= 4096 && k >= 16 * std::max(m, n) && m * n <= (1 << 17))
      gemm_deep(ctx, m, n, k, source_a, source_b, c, ldc, accumulate);
    else
      gemm_by_rows<T>(ctx, m, n, k, source_a, source_b, MatrixC<T>{c, ldc}, nullptr, accumulate);
  });
}

/// The same on the calling thread alone, for use inside a chunk of parallel_for; `scratch` holds
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
