#pragma once
// Convolutions of images with very few channels, as the first layer of a network has. Gathering
// patches would cost more than multiplying them; here the elements that a row of the kernel meets
// lie one after the other, and neighbouring outputs see them at a constant distance, so the tiles
// read them where they are, from rows copied once with their zero padding.
//
// 2 P I O kh kw operations in each direction (P output pixels, I input channels); the image and
// the map of P O numbers come from memory or go there once.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <kindred/kernels/conv2d_geometry.hpp>
#include <kindred/kernels/cpu/gemm.hpp>

namespace kindred::cpu {

/// Elements between the patches of neighbouring outputs, and elements of one row of a patch. The
/// kernels here exist for RGB at strides 1 and 2 and for kernels of 3 and 7.
inline std::int64_t stem_step(const Conv2dExtents& e) { return e.stride * e.channels; }
inline std::int64_t stem_run(const Conv2dExtents& e) { return e.kernel_w * e.channels; }
inline bool has_stem_forward(const Conv2dExtents& e, std::int64_t tile_rows) {
  return e.groups == 1 && e.channels <= 4 && (stem_step(e) == 3 || stem_step(e) == 6) &&
         e.out_width >= tile_rows;
}
inline bool has_stem_backward_weight(const Conv2dExtents& e) {
  return e.groups == 1 && e.channels <= 4 && (stem_run(e) == 9 || stem_run(e) == 21);
}

/// The rows of x that one row of outputs sees, with zeros where they leave the image.
template <class T>
struct StemRows {
  const Conv2dExtents& e;
  std::int64_t length() const {
    return round_up(((e.out_width - 1) * e.stride + e.kernel_w) * e.channels, vector_size<T>);
  }
  std::int64_t size() const { return e.kernel_h * length(); }

  /// Copies the rows for output row i of image b.
  void load(const T* x, std::int64_t b, std::int64_t i, T* rows) const {
    const std::int64_t left = e.padding * e.channels, width = e.width * e.channels;
    for (std::int64_t p = 0; p < e.kernel_h; ++p, rows += length()) {
      const std::int64_t h = i * e.stride - e.padding + p;
      if (h < 0 || h >= e.height) {
        fill_zero(rows, length());
        continue;
      }
      const std::int64_t from = std::min(left, length());
      const std::int64_t to = std::min(left + width, length());
      fill_zero(rows, from);
      copy(x + (b * e.height + h) * width, to - from, rows + from);
      fill_zero(rows + to, length() - to);
    }
  }
};

/// H neighbouring outputs of V vectors of channels: out[i, o] = sum over p, q of
/// rows[p, i STEP + q] w[p, q, o]; w is a packed sliver. Then the epilogue of channels o, ...
/// unless it is null.
template <class T, std::int64_t H, std::int64_t V, std::int64_t STEP>
void stem_tile(std::int64_t kernel_h, std::int64_t run, const T* rows, std::int64_t row_length,
               const T* w, T* out, std::int64_t out_step, const RegisterEpilogue<T>* epilogue,
               std::int64_t o) {
  constexpr std::int64_t width = vector_size<T>;
  Vector<T> sum[V][H];
#pragma GCC unroll 16
  for (std::int64_t v = 0; v < V; ++v) {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) sum[v][i] = Vector<T>(T(0));
  }
  for (std::int64_t p = 0; p < kernel_h; ++p, rows += row_length) {
    for (std::int64_t q = 0; q < run; ++q, w += V * width) {
      Vector<T> right[V];
#pragma GCC unroll 16
      for (std::int64_t v = 0; v < V; ++v) right[v] = Vector<T>::load_aligned(w + v * width);
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < H; ++i) {
        const Vector<T> left(rows[i * STEP + q]);
#pragma GCC unroll 16
        for (std::int64_t v = 0; v < V; ++v) sum[v][i] = xsimd::fma(left, right[v], sum[v][i]);
      }
    }
  }
#pragma GCC unroll 16
  for (std::int64_t v = 0; v < V; ++v) {
    if (epilogue != nullptr) (*epilogue)(sum[v], o + v * width);
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < H; ++i) sum[v][i].store_unaligned(out + i * out_step + v * width);
  }
}

/// How the output channels are cut into slivers of whole vectors: the last one begins earlier where
/// it would not be full, and computes some channels again. Fewer channels than a vector have one
/// sliver filled up with zeros.
template <class T>
struct StemSlivers {
  using Tile = GemmTile<T>;
  std::int64_t channels;
  std::int64_t step() const { return channels < Tile::columns ? Tile::width : Tile::columns; }
  std::int64_t count() const { return divide_up(channels, step()); }
  /// Width of sliver i, as the packing has it.
  std::int64_t width(std::int64_t i) const {
    return sliver_width(std::min(step(), channels - i * step()), Tile::width);
  }
  /// Its first channel.
  std::int64_t begin(std::int64_t i) const {
    return std::min(i * step(), std::max<std::int64_t>(0, channels - width(i)));
  }
  std::int64_t used(std::int64_t i) const { return std::min(width(i), channels); }

  std::int64_t size(std::int64_t depth) const { return count() * step() * depth; }
  /// Packs w [depth, channels]; sliver i goes to `to` + i step() depth.
  void pack(const T* w, std::int64_t depth, T* to) const {
    for (std::int64_t i = 0; i < count(); ++i)
      pack_rows_of_b(w + begin(i), channels, depth, used(i), to + i * step() * depth);
  }
};

/// One row of outputs [out_width, O] from the copied rows and the packed weights.
template <class T, std::int64_t STEP>
void stem_forward_row(const Conv2dExtents& e, const T* rows, std::int64_t row_length,
                      const T* packed, const AffineEpilogue<T>& epilogue, T* out) {
  using Tile = GemmTile<T>;
  constexpr std::int64_t H = Tile::rows;
  const std::int64_t run = stem_run(e), depth = e.kernel_h * run, n = e.out_channels;
  const StemSlivers<T> slivers{n};
  const RegisterEpilogue<T> quick(epilogue, 0);
  const bool whole = n >= Tile::width;
  const bool finish = whole && !epilogue.does_nothing() && epilogue.fits_registers();
  for (std::int64_t begin = 0; begin < e.out_width; begin += H) {
    const std::int64_t j = std::min(begin, e.out_width - H);  // the last tile may overlap
    for (std::int64_t i = 0; i < slivers.count(); ++i) {
      const std::int64_t o = slivers.begin(i), used = slivers.used(i);
      const T* sliver = packed + i * slivers.step() * depth;
      auto compute = [&](T* to, std::int64_t to_step) {
        const T* from = rows + j * STEP;
        const RegisterEpilogue<T>* in_registers = finish ? &quick : nullptr;
        if (used > Tile::width)
          stem_tile<T, H, 2, STEP>(e.kernel_h, run, from, row_length, sliver, to, to_step,
                                   in_registers, o);
        else
          stem_tile<T, H, 1, STEP>(e.kernel_h, run, from, row_length, sliver, to, to_step,
                                   in_registers, o);
      };
      if (whole) {
        compute(out + j * n + o, n);
      } else {
        alignas(64) T tile[H * Tile::columns];
        compute(tile, Tile::columns);
        for (std::int64_t p = 0; p < H; ++p)
          copy(tile + p * Tile::columns, used, out + (j + p) * n + o);
      }
      if (finish || epilogue.does_nothing()) continue;
      for (std::int64_t p = 0; p < H; ++p) {
        T* pixel = out + (j + p) * n;
        epilogue(&pixel, 1, o, o, used);
      }
    }
  }
}

/// Rows of outputs in one chunk of work.
inline constexpr std::int64_t stem_rows_per_chunk = 8;

/// y = activation(scale conv(x, w) + shift), for has_stem_forward(e). Y is T or BFloat16.
template <class T, class Y>
void stem_conv2d_forward(Context& ctx, const Conv2dExtents& e, const T* x, const T* w,
                         const AffineEpilogue<T>& epilogue, Y* y) {
  constexpr bool rounds = !std::is_same_v<Y, T>;
  const StemRows<T> source{e};
  const std::int64_t depth = e.kernel_h * stem_run(e), n = e.out_channels;
  const StemSlivers<T> slivers{n};
  auto packed = ctx.make<T>({slivers.size(depth)}, "packed weights");
  auto rows_of = ctx.make<T>({ctx.threads() * source.size()}, "rows of images");
  ctx.parallel_for(1, [&](std::int64_t) { slivers.pack(w, depth, packed.data); });
  const std::int64_t rows = e.batch * e.out_height, row_size = e.out_width * n;
  auto unrounded = ctx.make<T>({rounds ? ctx.threads() * row_size : 0}, "rows of outputs");
  ctx.parallel_for(divide_up(rows, stem_rows_per_chunk), [&](std::int64_t chunk, int thread) {
    T* padded = rows_of.data + thread * source.size();
    const std::int64_t begin = chunk * stem_rows_per_chunk;
    for (std::int64_t r = begin; r < std::min(rows, begin + stem_rows_per_chunk); ++r) {
      T* out;
      if constexpr (rounds)
        out = unrounded.data + thread * row_size;
      else
        out = y + r * row_size;
      source.load(x, r / e.out_height, r % e.out_height, padded);
      if (stem_step(e) == 3)
        stem_forward_row<T, 3>(e, padded, source.length(), packed.data, epilogue, out);
      else
        stem_forward_row<T, 6>(e, padded, source.length(), packed.data, epilogue, out);
      if constexpr (rounds) convert<T>(out, row_size, y + r * row_size);
    }
  });
}

/// dw[q, o] += sum over j of row[j step + q] dy[j, o] for one row of a patch (RUN elements) and
/// LANES channels: a whole vector or half of one, since widths of networks are multiples of 8.
template <class T, std::int64_t RUN, std::int64_t LANES>
void stem_weight_row(std::int64_t outputs, const T* row, std::int64_t step, const T* dy,
                     std::int64_t n, T* dw) {
  using Register [[gnu::vector_size(sizeof(T) * LANES)]] = T;
  Register sum[RUN];
#pragma GCC unroll 32
  for (std::int64_t q = 0; q < RUN; ++q) std::memcpy(&sum[q], dw + q * n, sizeof(Register));
  for (std::int64_t j = 0; j < outputs; ++j, row += step, dy += n) {
    Register upstream;
    std::memcpy(&upstream, dy, sizeof(Register));
#pragma GCC unroll 32
    for (std::int64_t q = 0; q < RUN; ++q) sum[q] += row[q] * upstream;
  }
#pragma GCC unroll 32
  for (std::int64_t q = 0; q < RUN; ++q) std::memcpy(dw + q * n, &sum[q], sizeof(Register));
}

/// The channels that do not fill half a vector.
template <class T>
void stem_weight_rest(std::int64_t outputs, const T* row, std::int64_t step, std::int64_t run,
                      const T* dy, std::int64_t n, std::int64_t first, T* dw) {
  for (std::int64_t j = 0; j < outputs; ++j, row += step, dy += n)
    for (std::int64_t q = 0; q < run; ++q)
      for (std::int64_t o = first; o < n; ++o) dw[q * n + o] += row[q] * dy[o];
}

/// dw += the gradient, for has_stem_backward_weight(e): chunks of output rows, added in order.
template <class T>
void stem_conv2d_backward_weight(Context& ctx, const Conv2dExtents& e, const T* x, const T* dy,
                                 T* dw) {
  const StemRows<T> source{e};
  const std::int64_t run = stem_run(e), step = stem_step(e), n = e.out_channels;
  const std::int64_t size = e.kernel_h * run * n, rows = e.batch * e.out_height;
  const std::int64_t chunks = std::clamp<std::int64_t>(rows / stem_rows_per_chunk, 1, 32);
  const std::int64_t length = divide_up(rows, chunks);
  auto partial = ctx.make<T>({chunks * size}, "partial weight gradients");
  auto rows_of = ctx.make<T>({ctx.threads() * source.size()}, "rows of images");
  ctx.parallel_for(chunks, [&](std::int64_t chunk, int thread) {
    T* padded = rows_of.data + thread * source.size();
    T* sum = partial.data + chunk * size;
    fill_zero(sum, size);
    for (std::int64_t r = chunk * length; r < std::min(rows, (chunk + 1) * length); ++r) {
      const T* upstream = dy + r * e.out_width * n;
      source.load(x, r / e.out_height, r % e.out_height, padded);
      for (std::int64_t p = 0; p < e.kernel_h; ++p) {
        const T* row = padded + p * source.length();
        T* to = sum + p * run * n;
        std::int64_t o = 0;
        auto add_lanes = [&](auto lanes) {
          for (; o + lanes <= n; o += lanes) {
            if (run == 9)
              stem_weight_row<T, 9, lanes>(e.out_width, row, step, upstream + o, n, to + o);
            else
              stem_weight_row<T, 21, lanes>(e.out_width, row, step, upstream + o, n, to + o);
          }
        };
        add_lanes(std::integral_constant<std::int64_t, vector_size<T>>{});
        add_lanes(std::integral_constant<std::int64_t, vector_size<T> / 2>{});
        if (o < n) stem_weight_rest(e.out_width, row, step, run, upstream, n, o, to);
      }
    }
  });
  add_partials(ctx, chunks, e.kernel_h * run, n, partial.data, dw, n, true);
}

}  // namespace kindred::cpu
