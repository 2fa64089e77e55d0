#pragma once
// Dense and grouped convolutions as matrix products whose packing gathers the patches (implicit
// GEMM: no array of patches is ever stored). Depthwise ones have their own kernels.
//
// Each direction does 2 P I O kh kw / groups operations (P output pixels, I and O channels). The
// map that is gathered is read kh kw / stride^2 times, from cache but for the first; the other map
// and the weights are read or written as those of a product, see gemm.hpp.

#include <cstdint>

#include <kindred/kernels/conv2d_geometry.hpp>
#include <kindred/kernels/cpu/depthwise_conv2d.hpp>
#include <kindred/kernels/cpu/depthwise_conv2d_bf16.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/gemm_bf16.hpp>
#include <kindred/kernels/cpu/separable_conv2d.hpp>
#include <kindred/kernels/cpu/stem_conv2d.hpp>

namespace kindred::cpu {

/// Patches of an image batch: row m belongs to a point (b, i, j) of a grid, its origin in the image
/// is (i step + offset_h, j step + offset_w), its elements are [kernel_h, kernel_w, channels]. What
/// lies outside of the image is zero.
template <class T>
struct Patches {
  const T* image;
  std::int64_t height, width;   ///< of the image
  std::int64_t channels;        ///< that belong to a patch
  std::int64_t pixel;           ///< distance of pixels, >= channels
  std::int64_t grid_h, grid_w;  ///< points per image
  std::int64_t step, offset_h, offset_w;
  std::int64_t kernel_h, kernel_w;

  struct Point {
    std::int64_t b, i, j;
  };
  Point point(std::int64_t m) const {
    const std::int64_t i = m / grid_w;
    return {i / grid_h, i % grid_h, m % grid_w};
  }
  void advance(Point& p) const {
    if (++p.j < grid_w) return;
    p.j = 0;
    if (++p.i < grid_h) return;
    p.i = 0;
    ++p.b;
  }
  const T* image_of(const Point& p) const { return image + p.b * height * width * pixel; }

  /// Elements k, ..., k + count - 1 of the patch of p.
  void gather(const Point& p, std::int64_t k, std::int64_t count, T* to) const {
    if (count == 0) return;
    // Pixels of one kernel row that follow each other in memory are copied in one piece.
    const std::int64_t pixels = pixel == channels ? kernel_w : 1, length = pixels * channels;
    const std::int64_t tap = k < length ? 0 : k / length * pixels;  // first of the piece
    std::int64_t tap_h = tap < kernel_w ? 0 : tap / kernel_w, tap_w = tap - tap_h * kernel_w;
    std::int64_t begin = k - tap * channels;
    const T* base = image_of(p);
    while (count > 0) {
      const std::int64_t end = std::min(length, begin + count);
      gather_piece(base, p.i * step + offset_h + tap_h, p.j * step + offset_w + tap_w, pixels,
                   begin, end, to);
      to += end - begin;
      count -= end - begin;
      begin = 0;
      tap_w += pixels;
      if (tap_w == kernel_w) {
        tap_w = 0;
        ++tap_h;
      }
    }
  }
  /// Elements [begin, end) of the run of pixels that starts at pixel (h, w).
  void gather_piece(const T* base, std::int64_t h, std::int64_t w, std::int64_t pixels,
                    std::int64_t begin, std::int64_t end, T* to) const {
    if (h < 0 || h >= height) return fill_zero(to, end - begin);
    const T* from = base + (h * width + w) * pixel;
    if (w >= 0 && w + pixels <= width) return copy(from + begin, end - begin, to);
    const std::int64_t first = std::clamp(-w * channels, begin, end);
    const std::int64_t last = std::clamp((width - w) * channels, first, end);
    fill_zero(to, first - begin);
    copy(from + first, last - first, to + first - begin);
    fill_zero(to + last - begin, end - last);
  }
};

/// Source of A: one patch a row.
template <class T>
struct PatchRows {
  static constexpr auto layout = PanelLayout::rows;
  Patches<T> patches;
  std::int64_t group_rows(std::int64_t) const { return GemmTile<T>::group_rows; }
  void pack(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth, T* to) const {
    auto p = patches.point(m);
    pack_by_rows(rows, depth, to, [&](std::int64_t, T* row) {
      patches.gather(p, k, depth, row);
      patches.advance(p);
    });
  }
};

/// Source of A: the transpose, one patch a column. A group of panels stays within one pixel of the
/// patch, so that its columns are runs of channels.
template <class T>
struct PatchColumns {
  static constexpr auto layout = PanelLayout::columns;
  Patches<T> patches;
  std::int64_t group_rows(std::int64_t m) const {
    return std::min(GemmTile<T>::group_rows, patches.channels - m % patches.channels);
  }
  void pack(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth, T* to) const {
    const Patches<T>& s = patches;
    const std::int64_t tap = m / s.channels, c = m % s.channels;
    const std::int64_t dh = s.offset_h + tap / s.kernel_w, dw = s.offset_w + tap % s.kernel_w;
    auto p = s.point(k);
    pack_by_columns(rows, depth, to, [&](std::int64_t) -> const T* {
      const std::int64_t h = p.i * s.step + dh, w = p.j * s.step + dw;
      const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
      const T* source = inside ? s.image_of(p) + (h * s.width + w) * s.pixel + c : nullptr;
      s.advance(p);
      return source;
    });
  }
};

/// The same for few channels: a panel spans several pixels of the patch.
template <class T>
struct ThinPatchColumns {
  static constexpr auto layout = PanelLayout::columns;
  Patches<T> patches;
  std::int64_t group_rows(std::int64_t) const { return GemmTile<T>::group_rows; }
  void pack(std::int64_t m, std::int64_t rows, std::int64_t k, std::int64_t depth, T* to) const {
    T column[GemmTile<T>::group_rows];
    auto p = patches.point(k);
    pack_by_columns(rows, depth, to, [&](std::int64_t) -> const T* {
      patches.gather(p, m, rows, column);
      patches.advance(p);
      return column;
    });
  }
};

/// The patches of x that the outputs of group g see.
template <class T>
Patches<T> forward_patches(const Conv2dExtents& e, std::int64_t g, const T* x) {
  return {.image = x + g * e.group_channels(),
          .height = e.height,
          .width = e.width,
          .channels = e.group_channels(),
          .pixel = e.channels,
          .grid_h = e.out_height,
          .grid_w = e.out_width,
          .step = e.stride,
          .offset_h = -e.padding,
          .offset_w = -e.padding,
          .kernel_h = e.kernel_h,
          .kernel_w = e.kernel_w};
}

/// Elements that the packed weights of a convolution have; 0 for those that read them as they are.
template <class T>
std::int64_t conv2d_packed_size(const Context&, const Conv2dGeometry& g, const Shape& w) {
  const std::int64_t k = w[0] * w[1] * w[2];
  if (g.groups != 1 || w[2] <= 4) return 0;  // few channels: a stem
  return PackedB<T>(nullptr, k, w[3]).size();
}
/// Packs w [kh,kw,C,O] on the calling thread.
template <class T>
void conv2d_pack(const Context&, const Conv2dGeometry&, const Shape& w, const T* from, T* to) {
  pack_whole(RowsOfB<T>{from, w[3]}, w[3], PackedB<T>(to, w[0] * w[1] * w[2], w[3]));
}

/// conv2d_forward with the weights that conv2d_pack left.
template <class T>
void conv2d_forward_packed(Context& ctx, const Conv2dExtents& e, const T* x, const T* packed,
                           const T* scale, const T* shift, Activation activation, T* y) {
  const std::int64_t m = e.batch * e.out_height * e.out_width, n = e.out_channels;
  const std::int64_t k = e.kernel_h * e.kernel_w * e.channels;
  if (m == 0 || n == 0) return;
  const PackedB<T> b(const_cast<T*>(packed), k, n);  // a product only reads it
  const AffineEpilogue<T> epilogue{scale, shift, activation};
  const AffineEpilogue<T>* finish = epilogue.does_nothing() ? nullptr : &epilogue;
  if (e.pointwise())
    gemm_by_rows<T>(ctx, m, n, k, RowsOfA<T>{x, e.channels}, b, MatrixC<T>{y, n}, finish, false);
  else
    gemm_by_rows<T>(ctx, m, n, k, PatchRows<T>{forward_patches(e, 0, x)}, b, MatrixC<T>{y, n},
                    finish, false);
}

/// y = activation(scale conv(x, w) + shift); scale and shift may be null.
template <class T>
void conv2d_forward(Context& ctx, const Conv2dExtents& e, const T* x, const T* w, const T* scale,
                    const T* shift, Activation activation, T* y) {
  if (e.depthwise()) {
    depthwise_conv2d_forward(ctx, e, x, w, AffineEpilogue<T>{scale, shift, activation}, y);
    return;
  }
  if (has_stem_forward(e, GemmTile<T>::rows)) {
    stem_conv2d_forward(ctx, e, x, w, AffineEpilogue<T>{scale, shift, activation}, y);
    return;
  }
  const std::int64_t m = e.batch * e.out_height * e.out_width;
  const std::int64_t n = e.group_out_channels();
  const std::int64_t k = e.kernel_h * e.kernel_w * e.group_channels();
  if (m == 0 || n == 0) return;
  for (std::int64_t g = 0; g < e.groups; ++g) {
    const RowsOfB<T> b{w + g * n, e.out_channels};
    const MatrixC<T> c{y + g * n, e.out_channels};
    const AffineEpilogue<T> epilogue{scale == nullptr ? scale : scale + g * n,
                                     shift == nullptr ? shift : shift + g * n, activation};
    const AffineEpilogue<T>* finish = epilogue.does_nothing() ? nullptr : &epilogue;
    if (e.pointwise())
      gemm_by_rows<T>(ctx, m, n, k, RowsOfA<T>{x, e.channels}, b, c, finish, false);
    else
      gemm_by_rows<T>(ctx, m, n, k, PatchRows<T>{forward_patches(e, g, x)}, b, c, finish, false);
  }
}

/// Source of B for the input gradient: [taps of the phase, O] x C out of w [kh,kw,C,O].
template <class T>
struct ReversedTaps {
  const T* w;
  PhaseTaps vertical, horizontal;
  std::int64_t kernel_w, stride, channels, out_channels, ldb;
  void pack(std::int64_t k, std::int64_t depth, std::int64_t n, std::int64_t columns, T* to) const {
    using Tile = GemmTile<T>;
    for (std::int64_t j = 0; j < columns; j += Tile::columns) {
      const std::int64_t used = std::min(Tile::columns, columns - j);
      pack_sliver(k, depth, n + j, used, sliver_width(used, Tile::width), to + j * depth);
    }
  }
  void pack_sliver(std::int64_t k, std::int64_t depth, std::int64_t n, std::int64_t columns,
                   std::int64_t width, T* to) const {
    while (depth > 0) {
      const std::int64_t t = k / out_channels, o = k % out_channels;
      const std::int64_t count = std::min(depth, out_channels - o);
      const std::int64_t tap = vertical.tap(t / horizontal.taps, stride) * kernel_w +
                               horizontal.tap(t % horizontal.taps, stride);
      pack_sliver_of_columns(w + (tap * channels + n) * ldb + o, ldb, count, columns, width, to);
      to += count * width;
      k += count;
      depth -= count;
    }
  }
};

/// Destination: the pixels of one phase of dx.
template <class T>
struct PhasePixels {
  T* dx;  ///< first pixel of the phase
  std::int64_t grid_h, grid_w, height, width, stride, pixel;
  std::int64_t distance() const { return 0; }
  T* row(std::int64_t m) const {
    const std::int64_t i = m / grid_w;
    return dx + ((i / grid_h * height + i % grid_h * stride) * width + m % grid_w * stride) * pixel;
  }
};

/// The part of dx whose pixels have the given phases.
template <class T>
void conv2d_backward_input_phase(Context& ctx, const Conv2dExtents& e, std::int64_t g,
                                 std::int64_t phase_h, std::int64_t phase_w, const T* dy,
                                 const T* w, T* dx) {
  const PhaseTaps h(phase_h, e.height, e.kernel_h, e.stride, e.padding);
  const PhaseTaps v(phase_w, e.width, e.kernel_w, e.stride, e.padding);
  const std::int64_t n = e.group_channels(), o = e.group_out_channels();
  const std::int64_t m = e.batch * h.pixels * v.pixels, k = h.taps * v.taps * o;
  if (m == 0 || n == 0) return;
  const PatchRows<T> a{{.image = dy + g * o,
                        .height = e.out_height,
                        .width = e.out_width,
                        .channels = o,
                        .pixel = e.out_channels,
                        .grid_h = h.pixels,
                        .grid_w = v.pixels,
                        .step = 1,
                        .offset_h = h.offset,
                        .offset_w = v.offset,
                        .kernel_h = h.taps,
                        .kernel_w = v.taps}};
  const ReversedTaps<T> b{w + g * o, h, v, e.kernel_w, e.stride, n, o, e.out_channels};
  if (e.stride == 1) {
    gemm_by_rows<T>(ctx, m, n, k, a, b, MatrixC<T>{dx + g * n, e.channels}, nullptr, false);
  } else {
    const PhasePixels<T> c{dx + (phase_h * e.width + phase_w) * e.channels + g * n,
                           h.pixels,
                           v.pixels,
                           e.height,
                           e.width,
                           e.stride,
                           e.channels};
    gemm_by_rows<T>(ctx, m, n, k, a, b, c, nullptr, false);
  }
}

template <class T>
void conv2d_backward_input(Context& ctx, const Conv2dExtents& e, const T* dy, const T* w, T* dx) {
  if (e.depthwise()) {
    depthwise_conv2d_backward_input(ctx, e, dy, w, dx);
  } else if (e.pointwise()) {
    gemm(ctx, Transpose::no, Transpose::yes, e.batch * e.height * e.width, e.channels,
         e.out_channels, dy, e.out_channels, w, e.out_channels, dx, e.channels, false);
  } else {
    for (std::int64_t g = 0; g < e.groups; ++g)
      for (std::int64_t phase_h = 0; phase_h < std::min(e.stride, e.height); ++phase_h)
        for (std::int64_t phase_w = 0; phase_w < std::min(e.stride, e.width); ++phase_w)
          conv2d_backward_input_phase(ctx, e, g, phase_h, phase_w, dy, w, dx);
  }
}

/// dw[:, group] += patches^T dy: either chunks of pixels in parallel with partial results, or,
/// where dw is large, chunks of its rows.
template <class T, class SourceA>
void conv2d_backward_weight_group(Context& ctx, const Conv2dExtents& e, const SourceA& a,
                                  const T* dy, T* dw) {
  const std::int64_t channels = e.group_channels(), n = e.group_out_channels();
  const std::int64_t m = e.kernel_h * e.kernel_w * channels;
  const std::int64_t k = e.batch * e.out_height * e.out_width;
  const RowsOfB<T> b{dy, e.out_channels};
  const std::int64_t chunks = deep_chunks(m * n, k);
  auto scratch = ctx.make<T>({ctx.threads() * gemm_scratch_size<T>()}, "conv2d blocks");
  auto scratch_of = [&](int thread) { return scratch.data + thread * gemm_scratch_size<T>(); };
  if (m * n > (1 << 17) || chunks == 1) {
    const std::int64_t rows = std::clamp<std::int64_t>(channels, 64, 512);
    ctx.parallel_for(divide_up(m, rows), [&](std::int64_t chunk, int thread) {
      gemm_chunk<T>(a, b, MatrixC<T>{dw, e.out_channels}, chunk * rows,
                    std::min(m, (chunk + 1) * rows), n, 0, k, true, scratch_of(thread));
    });
    return;
  }
  const std::int64_t length = divide_up(k, chunks);
  auto partial = ctx.make<T>({chunks * m * n}, "partial weight gradients");
  ctx.parallel_for(chunks, [&](std::int64_t chunk, int thread) {
    gemm_chunk<T>(a, b, MatrixC<T>{partial.data + chunk * m * n, n}, 0, m, n,
                  std::min(k, chunk * length), std::min(k, (chunk + 1) * length), false,
                  scratch_of(thread), k - std::min(k, (chunk + 1) * length));
  });
  add_partials(ctx, chunks, m, n, partial.data, dw, e.out_channels, true);
}

template <class T>
void conv2d_backward_weight(Context& ctx, const Conv2dExtents& e, const T* x, const T* dy, T* dw) {
  if (e.depthwise()) {
    depthwise_conv2d_backward_weight(ctx, e, x, dy, dw);
    return;
  }
  if (has_stem_backward_weight(e)) {
    stem_conv2d_backward_weight(ctx, e, x, dy, dw);
    return;
  }
  if (e.channels == 0 || e.out_channels == 0) return;
  if (e.pointwise()) {
    gemm(ctx, Transpose::yes, Transpose::no, e.channels, e.out_channels,
         e.batch * e.height * e.width, x, e.channels, dy, e.out_channels, dw, e.out_channels, true);
    return;
  }
  for (std::int64_t g = 0; g < e.groups; ++g) {
    const Patches<T> patches = forward_patches(e, g, x);
    const T* dy_group = dy + g * e.group_out_channels();
    T* dw_group = dw + g * e.group_out_channels();
    if (e.group_channels() >= GemmTile<T>::heights[1])
      conv2d_backward_weight_group(ctx, e, PatchColumns<T>{patches}, dy_group, dw_group);
    else
      conv2d_backward_weight_group(ctx, e, ThinPatchColumns<T>{patches}, dy_group, dw_group);
  }
}

// ---- maps in BF16 -------------------------------------------------------------------------------
// Pointwise convolutions are products of factors rounded to BF16 if one of their maps is. Depthwise
// ones and stems convert between memory and cache, a few rows at a time; what other convolutions
// there are goes through a whole map of T.

/// A copy of x in T; if it is in T, x itself.
template <class T, class X>
const T* unrounded(Context& ctx, const X* x, [[maybe_unused]] const Tensor<T>& copy) {
  if constexpr (std::is_same_v<X, T>) {
    return x;
  } else {
    ctx.parallel_ranges(copy.size(), elementwise_chunk, [&](std::int64_t begin, std::int64_t end) {
      convert<T>(x + begin, end - begin, copy.data + begin);
    });
    return copy.data;
  }
}
/// Room for that.
template <class T, class X>
Tensor<T> room_unrounded(Context& ctx, std::int64_t size, const char* label) {
  return ctx.make<T>({std::is_same_v<X, T> ? 0 : size}, label);
}

/// Elements of the packed weights w [1,1,C,O] of a pointwise convolution, and they, packed on the
/// calling thread.
inline std::int64_t conv2d_rounded_size(const Context&, const Shape& w) {
  return PackedPairs{nullptr, w[2], w[3]}.size();
}
inline void conv2d_pack_rounded(const Context&, const Shape& w, const float* from, BFloat16* to) {
  const PackedPairs packed{to, w[2], w[3]};
  for (std::int64_t i = 0; i < packed.slivers(); ++i) packed.pack(from, Transpose::no, i);
}

/// y = activation(scale conv(x, w) + shift), for x or y of BFloat16, or with weights `packed` by
/// conv2d_pack_rounded. X and Y are T or BFloat16; scale, shift and packed may be null.
template <class T, class X, class Y>
void conv2d_forward_rounded(Context& ctx, const Conv2dExtents& e, const X* x, const T* w,
                            const T* scale, const T* shift, Activation activation,
                            const BFloat16* packed, Y* y) {
  const std::int64_t pixels = e.batch * e.out_height * e.out_width, n = e.out_channels;
  const AffineEpilogue<T> epilogue{scale, shift, activation};
  if (pixels == 0 || n == 0) return;
  if (e.pointwise()) {
    const AffineEpilogue<T>* finish = epilogue.does_nothing() ? nullptr : &epilogue;
    if (packed == nullptr)
      return gemm_bf16(ctx, pixels, n, e.channels, x, w, Transpose::no, y, finish);
    const PackedPairs b{const_cast<BFloat16*>(packed), e.channels, n};  // a product only reads it
    return gemm_bf16_packed(ctx, pixels, x, e.channels, b, y, finish);
  }
  if constexpr (!std::is_same_v<X, T> && !std::is_same_v<Y, T>)
    if (e.depthwise()) return depthwise_conv2d_forward_rounded(ctx, e, x, w, epilogue, y);
  if constexpr (std::is_same_v<X, T>)
    if (has_stem_forward(e, GemmTile<T>::rows))
      return stem_conv2d_forward(ctx, e, x, w, epilogue, y);
  const std::int64_t size = e.batch * e.height * e.width * e.channels;
  auto from = room_unrounded<T, X>(ctx, size, "unrounded x");
  auto to = room_unrounded<T, Y>(ctx, pixels * n, "unrounded y");
  const T* in = unrounded(ctx, x, from);
  if constexpr (std::is_same_v<Y, T>) {
    conv2d_forward(ctx, e, in, w, scale, shift, activation, y);
  } else {
    conv2d_forward(ctx, e, in, w, scale, shift, activation, to.data);
    ctx.parallel_ranges(to.size(), elementwise_chunk, [&](std::int64_t begin, std::int64_t end) {
      convert<T>(to.data + begin, end - begin, y + begin);
    });
  }
}

template <class T>
void conv2d_backward_input(Context& ctx, const Conv2dExtents& e, const BFloat16* dy, const T* w,
                           T* dx) {
  const std::int64_t pixels = e.batch * e.out_height * e.out_width;
  if (e.pointwise())
    return gemm_bf16(ctx, pixels, e.channels, e.out_channels, dy, w, Transpose::yes, dx);
  auto copy = room_unrounded<T, BFloat16>(ctx, pixels * e.out_channels, "unrounded dy");
  conv2d_backward_input(ctx, e, unrounded(ctx, dy, copy), w, dx);
}

/// X and Y are T or BFloat16, one of them BFloat16.
template <class T, class X, class Y>
requires(!std::is_same_v<X, T> ||
         !std::is_same_v<Y, T>) void conv2d_backward_weight(Context& ctx, const Conv2dExtents& e,
                                                            const X* x, const Y* dy, T* dw) {
  const std::int64_t pixels = e.batch * e.out_height * e.out_width;
  if (e.channels == 0 || e.out_channels == 0) return;
  if (e.pointwise())
    return gemm_bf16_transposed(ctx, e.channels, e.out_channels, pixels, x, dy, dw);
  if constexpr (std::is_same_v<Y, T>)
    if (e.depthwise()) return depthwise_conv2d_backward_weight(ctx, e, x, dy, dw);
  auto x_copy = room_unrounded<T, X>(ctx, e.batch * e.height * e.width * e.channels, "unrounded x");
  auto dy_copy = room_unrounded<T, Y>(ctx, pixels * e.out_channels, "unrounded dy");
  conv2d_backward_weight(ctx, e, unrounded(ctx, x, x_copy), unrounded(ctx, dy, dy_copy), dw);
}

}  // namespace kindred::cpu
