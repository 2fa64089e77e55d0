#pragma once
// The innermost step of matrix products: a panel of A times a sliver of B in registers, and what
// happens to the result before it leaves the cache. See gemm.hpp for the whole.

#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#include <kindred/kernels/cpu/gemm_packing.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

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

/// c[H, V vectors] (+)= panel of A times sliver of B, then finished by the epilogue of columns n,
/// ... unless that is null. The loops over H and V unroll completely, so that the sums live in
/// registers.
template <class T, std::int64_t H, std::int64_t V, PanelLayout layout, class Sliver>
void multiply_tile(std::int64_t depth, Panel<T> panel, Sliver b, T* c, std::int64_t ldc,
                   bool accumulate, const RegisterEpilogue<T>* epilogue, std::int64_t n,
                   LinesAhead& lines_ahead) {
  constexpr std::int64_t width = vector_size<T>;
  constexpr bool columns = layout == PanelLayout::columns;
  const std::int64_t row_step = columns ? 1 : panel.step;
  const std::int64_t depth_step = columns ? panel.step : 1;
  // Every third row has a pointer, the next two are one and two distances from it, which is what
  // addresses of x86 can say.
  constexpr std::int64_t rows_per_pointer = columns ? H : 3;
  const T* a[divide_up(H, rows_per_pointer)];
#pragma GCC unroll 16
  for (std::int64_t i = 0; i < H; i += rows_per_pointer)
    a[i / rows_per_pointer] = panel.data + i * row_step;
  Vector<T> sum[V][H];
#pragma GCC unroll 16
  for (std::int64_t v = 0; v < V; ++v) {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) sum[v][i] = Vector<T>(T(0));
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
      for (std::int64_t v = 0; v < V; ++v) sum[v][i] = xsimd::fma(left, right[v], sum[v][i]);
    }
    for (const T*& pointer : a) pointer += depth_step;
  };
  // Two at a time: 3-5% faster than one or four. Memory that will be read, and the first H times a
  // row of C, are asked for meanwhile: all at once they would hold up the loads of A and B.
  const T* row = c;
  std::int64_t rows_left = H;
  LinesAhead ahead = lines_ahead;
  for (std::int64_t p = depth / 2; p > 0; --p) {
    __builtin_prefetch(row, 1);
    if constexpr (V > 1) __builtin_prefetch(row + V * width - 1, 1);
    row += --rows_left > 0 ? ldc : 0;
    ahead.fetch();
    step();
    step();
  }
  lines_ahead = ahead;
  if (depth % 2 != 0) step();
  auto load_sums = [&](std::int64_t v) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i)
      sum[v][i] = Vector<T>::load_unaligned(c + i * ldc + v * width);
  };
  auto store_sums = [&](std::int64_t v) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) sum[v][i].store_unaligned(c + i * ldc + v * width);
  };
  if (accumulate) {
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < V; ++v) {
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < H; ++i)
        sum[v][i] += Vector<T>::load_unaligned(c + i * ldc + v * width);
    }
  }
  if (epilogue == nullptr) {
#pragma GCC unroll 16
    for (std::int64_t v = 0; v < V; ++v) store_sums(v);
    return;
  }
  // One vector of every row after the other; meanwhile the others wait in L1, because the
  // constants of the epilogue would take their registers, also in the loop above.
#pragma GCC unroll 16
  for (std::int64_t v = 1; v < V; ++v) store_sums(v);
#pragma GCC unroll 16
  for (std::int64_t v = 0; v < V; ++v) {
    if (v > 0) load_sums(v);
    (*epilogue)(sum[v], n + v * width);
    store_sums(v);
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
  T* start[GemmTile<T>::rows];  ///< the first alone, if the distance says where the others are
  std::int64_t count;
  std::int64_t distance;  ///< 0: they lie anywhere

  template <class Destination>
  PanelRows(const Destination& c, std::int64_t m, std::int64_t rows)
      : count(rows), distance(c.distance()) {
    start[0] = c.row(m);
    for (std::int64_t i = 1; i < rows && distance == 0; ++i) start[i] = c.row(m + i);
  }
  T* row(std::int64_t i) const { return distance > 0 ? start[0] + i * distance : start[i]; }
};

/// Where slivers come from that are not packed yet: rows k, ... of a source of B.
template <class SourceB>
struct Unpacked {
  const SourceB* source = nullptr;  ///< null: they are packed
  std::int64_t k = 0;
};

/// Columns [n, n+columns) of some rows of C get a packed panel times slivers; then, unless
/// `epilogue` is null, it is applied to every tile. With an `unpacked` source each sliver is packed
/// just before its use or, if its rows can be read as they are, while they are used. Tiles ask for
/// the memory of `even` and `odd` by turns.
template <class T, PanelLayout layout, class SourceB>
void multiply_panel(const PanelRows<T>& rows, std::int64_t n, std::int64_t columns,
                    std::int64_t depth, Panel<T> panel, T* slivers, Unpacked<SourceB> unpacked,
                    bool accumulate, const AffineEpilogue<T>* epilogue, LinesAhead* even,
                    LinesAhead* odd) {
  using Tile = GemmTile<T>;
  const std::int64_t height = Tile::height(rows.count);
  std::optional<RegisterEpilogue<T>> quick;
  if (epilogue != nullptr && epilogue->fits_registers()) quick.emplace(*epilogue, n);
  for (std::int64_t j = 0; j < columns; j += Tile::columns) {
    const std::int64_t used = std::min(Tile::columns, columns - j);
    T* sliver = slivers + j * depth;
    LinesAhead& ahead = *(j / Tile::columns % 2 == 0 ? even : odd);
    const bool whole = used % Tile::width == 0;
    constexpr bool readable = std::is_same_v<SourceB, RowsOfB<T>>;
    const bool pack_on_the_way = readable && unpacked.source != nullptr && whole;
    if constexpr (!std::is_same_v<SourceB, PackedB<T>>)
      if (unpacked.source != nullptr && !pack_on_the_way)
        unpacked.source->pack(unpacked.k, depth, n + j, used, sliver);
    alignas(64) T tile[Tile::rows * Tile::columns];
    const bool direct = rows.distance > 0 && rows.count == height && whole;
    T* c = direct ? rows.start[0] + n + j : tile;
    const std::int64_t ldc = direct ? rows.distance : Tile::columns;
    // What the tile holds is the whole sum, and whole vectors do not pass the end of the scales.
    const bool finish = quick && whole && (direct || !accumulate);
    const RegisterEpilogue<T>* in_registers = finish ? &*quick : nullptr;
    with_tile_size<T>(height, used > Tile::width, [&](auto h, auto v) {
      if constexpr (readable)
        if (pack_on_the_way)
          return multiply_tile<T, h, v, layout>(
              depth, panel,
              SliverToPack<T, v>{unpacked.source->at(unpacked.k, n + j), unpacked.source->ldb,
                                 sliver},
              c, ldc, direct && accumulate, in_registers, j, ahead);
      multiply_tile<T, h, v, layout>(depth, panel, PackedSliver<T, v>{sliver}, c, ldc,
                                     direct && accumulate, in_registers, j, ahead);
    });
    for (std::int64_t i = 0; i < rows.count && !direct; ++i) {
      T* to = rows.row(i) + n + j;
      const T* from = tile + i * Tile::columns;
      if (accumulate)
        for (std::int64_t q = 0; q < used; ++q) to[q] += from[q];
      else
        copy(from, used, to);
    }
    for (std::int64_t i = 0; i < rows.count && epilogue != nullptr && !finish; ++i) {
      T* const row = rows.row(i);
      (*epilogue)(&row, 1, n + j, n + j, used);
    }
  }
}
/// The same with no memory to ask for.
template <class T, PanelLayout layout, class SourceB>
void multiply_panel(const PanelRows<T>& rows, std::int64_t n, std::int64_t columns,
                    std::int64_t depth, Panel<T> panel, T* slivers, Unpacked<SourceB> unpacked,
                    bool accumulate, const AffineEpilogue<T>* epilogue) {
  LinesAhead nothing(panel.data);
  multiply_panel<T, layout>(rows, n, columns, depth, panel, slivers, unpacked, accumulate, epilogue,
                            &nothing, &nothing);
}

}  // namespace kindred::cpu
