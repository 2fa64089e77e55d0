#pragma once
// Depthwise convolutions, directly: vectors run over channels, a block of neighbouring outputs is
// held in registers, so that every pixel loaded serves all the outputs of the block that see it.
//
// All three directions are built on rows: a row of outputs is a sum over rows of inputs, and along
// a row output j sees the inputs j step + t, t < taps. The input gradient at stride s is s x s such
// convolutions of dy with every s-th tap of the kernel (see PhaseTaps).
//
// 2 P C kh kw operations in each direction (P output pixels) on P C + P' C numbers of the two maps,
// which come from memory once: 4.5 operations a number for 3 x 3 at stride 1, so memory bounds it.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <kindred/kernels/conv2d_geometry.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

/// Along one axis: the pixels at distance `stride` from `phase` on see every stride-th tap of the
/// kernel, and their gradient is a convolution of dy with these taps in reverse order.
struct PhaseTaps {
  std::int64_t pixels;  ///< of this phase
  std::int64_t first;   ///< lowest tap
  std::int64_t taps;
  std::int64_t offset;  ///< position in dy that the first pixel's first tap (reversed) meets
  PhaseTaps(std::int64_t phase, std::int64_t extent, std::int64_t kernel, std::int64_t stride,
            std::int64_t padding)
      : pixels(divide_up(extent - phase, stride)),
        first((phase + padding) % stride),
        taps(first < kernel ? divide_up(kernel - first, stride) : 0),
        offset((phase + padding - first) / stride - (taps - 1)) {}
  /// The tap of the kernel that belongs to position t of the reversed sub-kernel.
  std::int64_t tap(std::int64_t t, std::int64_t stride) const {
    return first + stride * (taps - 1 - t);
  }
};

/// Vectors for `channels` channels: whole registers where they fit, halves for narrow layers, else
/// single values. Calls f(std::type_identity<V>{}).
template <class T, class F>
inline void with_channel_vector(std::int64_t channels, F&& f) {
  using Half = xsimd::make_sized_batch_t<T, static_cast<std::size_t>(vector_size<T> / 2)>;
  if (channels >= vector_size<T>) return f(std::type_identity<Vector<T>>{});
  if constexpr (!std::is_void_v<Half> && vector_size<T> >= 4)
    if (channels >= vector_size<T> / 2) return f(std::type_identity<Half>{});
  f(std::type_identity<T>{});
}
template <class V, class T>
inline constexpr std::int64_t lanes = static_cast<std::int64_t>(sizeof(V) / sizeof(T));

/// One row of outputs and the rows of inputs it sees.
template <class T>
struct DepthwiseRow {
  std::int64_t channels;
  const T* in;                      ///< first input row that is inside of the image
  std::int64_t in_row, in_width;    ///< distance of input rows; pixels in one
  std::int64_t rows;                ///< input rows inside of the image
  const T* w;                       ///< weights of the first of them
  std::int64_t w_row, w_tap;        ///< distance of weights of rows and of taps
  std::int64_t taps, step, offset;  ///< output j sees the pixels j step + offset + t
};

/// The pixels that a block of outputs sees: pixel q is at first + q, inside for low <= q < high.
/// `interior` says at compile time that all are.
template <class T, bool interior>
struct BlockPixels {
  const T* first;
  std::int64_t channels, in_row, low, high;
  bool inside(std::int64_t q) const { return interior || (q >= low && q < high); }
  const T* at(std::int64_t r, std::int64_t q) const { return first + r * in_row + q * channels; }
};

/// BLOCK outputs starting at `out`, out_step elements apart: sums over rows and taps, finished by
/// `epilogue` unless it is null. TAPS = 0 takes the number of taps and the step at run time.
template <class T, class V, std::int64_t TAPS, std::int64_t STEP, std::int64_t BLOCK, class Pixels>
void depthwise_block(const DepthwiseRow<T>& row, const Pixels& pixels, T* out,
                     std::int64_t out_step, const RegisterEpilogue<T>* epilogue) {
  const std::int64_t channels = row.channels;
  for (std::int64_t at = 0; at < channels; at += lanes<V, T>) {
    const std::int64_t c = std::min(at, channels - lanes<V, T>);  // the last vector may overlap
    V sum[BLOCK];
#pragma GCC unroll 16
    for (std::int64_t j = 0; j < BLOCK; ++j) sum[j] = V(T(0));
    for (std::int64_t r = 0; r < row.rows; ++r) {
      const T* w = row.w + r * row.w_row + c;
      if constexpr (TAPS > 0) {
        V weight[TAPS];
#pragma GCC unroll 16
        for (std::int64_t t = 0; t < TAPS; ++t) weight[t] = load_lanes<V>(w + t * row.w_tap);
#pragma GCC unroll 32
        for (std::int64_t q = 0; q < (BLOCK - 1) * STEP + TAPS; ++q) {
          if (!pixels.inside(q)) continue;
          const V x = load_lanes<V>(pixels.at(r, q) + c);
#pragma GCC unroll 16
          for (std::int64_t j = 0; j < BLOCK; ++j)
            if (q >= j * STEP && q < j * STEP + TAPS)
              sum[j] = multiply_add<V, T>(x, weight[q - j * STEP], sum[j]);
        }
      } else {
        for (std::int64_t t = 0; t < row.taps; ++t) {
          const V weight = load_lanes<V>(w + t * row.w_tap);
#pragma GCC unroll 16
          for (std::int64_t j = 0; j < BLOCK; ++j)
            if (pixels.inside(j * row.step + t))
              sum[j] = multiply_add<V, T>(load_lanes<V>(pixels.at(r, j * row.step + t) + c), weight,
                                          sum[j]);
        }
      }
    }
    if (epilogue != nullptr) (*epilogue)(sum, c);
#pragma GCC unroll 16
    for (std::int64_t j = 0; j < BLOCK; ++j) store_lanes(out + j * out_step + c, sum[j]);
  }
}

/// v with zeros in its first n lanes.
template <class V, class T>
inline V without_first_lanes(const V& v, std::int64_t n) {
  if constexpr (std::is_same_v<V, T>) {
    return v;
  } else {
    alignas(64) T kept[lanes<V, T>];
    store_lanes(kept, v);
    for (std::int64_t i = 0; i < n; ++i) kept[i] = 0;
    return load_lanes<V>(static_cast<const T*>(kept));
  }
}

/// Weight gradients of a block of outputs: dw[r, t] += sum over j of x[r, j step + t] dy[j].
template <class T, class V, std::int64_t TAPS, std::int64_t STEP, std::int64_t BLOCK, class Pixels>
void depthwise_weight_block(const DepthwiseRow<T>& row, const Pixels& pixels, const T* dy, T* dw) {
  const std::int64_t channels = row.channels;
  for (std::int64_t at = 0; at < channels; at += lanes<V, T>) {
    const std::int64_t c = std::min(at, channels - lanes<V, T>);
    V upstream[BLOCK];
#pragma GCC unroll 16
    for (std::int64_t j = 0; j < BLOCK; ++j) {
      upstream[j] = load_lanes<V>(dy + j * channels + c);
      if (c < at) upstream[j] = without_first_lanes<V, T>(upstream[j], at - c);  // counted before
    }
    for (std::int64_t r = 0; r < row.rows; ++r) {
      T* to = dw + r * row.w_row + c;
      const T* from = to;
      if constexpr (TAPS > 0) {
        V sum[TAPS];
#pragma GCC unroll 16
        for (std::int64_t t = 0; t < TAPS; ++t) sum[t] = load_lanes<V>(from + t * row.w_tap);
#pragma GCC unroll 16
        for (std::int64_t q = 0; q < (BLOCK - 1) * STEP + TAPS; ++q) {
          if (!pixels.inside(q)) continue;
          const V x = load_lanes<V>(pixels.at(r, q) + c);
#pragma GCC unroll 16
          for (std::int64_t j = 0; j < BLOCK; ++j)
            if (q >= j * STEP && q < j * STEP + TAPS)
              sum[q - j * STEP] = multiply_add<V, T>(x, upstream[j], sum[q - j * STEP]);
        }
#pragma GCC unroll 16
        for (std::int64_t t = 0; t < TAPS; ++t) store_lanes(to + t * row.w_tap, sum[t]);
      } else {
        for (std::int64_t t = 0; t < row.taps; ++t) {
          V sum = load_lanes<V>(from + t * row.w_tap);
#pragma GCC unroll 16
          for (std::int64_t j = 0; j < BLOCK; ++j)
            if (pixels.inside(j * row.step + t))
              sum = multiply_add<V, T>(load_lanes<V>(pixels.at(r, j * row.step + t) + c),
                                       upstream[j], sum);
          store_lanes(to + t * row.w_tap, sum);
        }
      }
    }
  }
}

/// Calls f(pixels) for the block of outputs from j on.
template <std::int64_t BLOCK, class T, class F>
inline void with_block_pixels(const DepthwiseRow<T>& row, std::int64_t j, F&& f) {
  const std::int64_t first = j * row.step + row.offset;
  const std::int64_t count = (BLOCK - 1) * row.step + row.taps;
  const T* in = row.in + first * row.channels;
  if (first >= 0 && first + count <= row.in_width)
    f(BlockPixels<T, true>{in, row.channels, row.in_row, 0, count});
  else
    f(BlockPixels<T, false>{in, row.channels, row.in_row, -first, row.in_width - first});
}

/// Neighbouring outputs held in registers. Blocks of 7 divide the rows of networks for 224 x 224
/// images.
inline constexpr std::int64_t depthwise_block_size = 4;
template <class T>
inline constexpr std::int64_t depthwise_large_block = GemmTile<T>::many_registers ? 7 : 4;

/// Row of `outputs` outputs, out_step elements apart.
template <class T, class V, std::int64_t TAPS, std::int64_t STEP>
void depthwise_forward_row(const DepthwiseRow<T>& row, std::int64_t outputs, T* out,
                           std::int64_t out_step, const RegisterEpilogue<T>* epilogue = nullptr) {
  auto in_blocks = [&](auto size, auto taps, auto step) {
    for (std::int64_t j = 0; j < outputs; j += size) {
      const std::int64_t begin = std::min(j, outputs - size);  // the last block may overlap
      with_block_pixels<size>(row, begin, [&](const auto& pixels) {
        depthwise_block<T, V, taps, step, size>(row, pixels, out + begin * out_step, out_step,
                                                epilogue);
      });
    }
  };
  using Taps = std::integral_constant<std::int64_t, TAPS>;
  using Step = std::integral_constant<std::int64_t, STEP>;
  using Any = std::integral_constant<std::int64_t, 0>;
  if (TAPS > 0 && outputs % depthwise_large_block<T> == 0)
    in_blocks(std::integral_constant<std::int64_t, depthwise_large_block<T>>{}, Taps{}, Step{});
  else if (outputs >= depthwise_block_size)
    in_blocks(std::integral_constant<std::int64_t, depthwise_block_size>{}, Taps{}, Step{});
  else
    in_blocks(std::integral_constant<std::int64_t, 1>{}, Any{}, Any{});
}

/// The same with an epilogue behind it, in registers where that can be.
template <class T, class V, std::int64_t TAPS, std::int64_t STEP>
void depthwise_finished_row(const DepthwiseRow<T>& row, std::int64_t outputs, T* out,
                            std::int64_t out_step, const AffineEpilogue<T>& epilogue) {
  const RegisterEpilogue<T> in_registers(epilogue, 0);
  const bool fits = epilogue.fits_registers();
  depthwise_forward_row<T, V, TAPS, STEP>(
      row, outputs, out, out_step, fits && !epilogue.does_nothing() ? &in_registers : nullptr);
  for (std::int64_t j = 0; j < outputs && !fits; ++j) {
    T* pixel = out + j * out_step;
    epilogue(&pixel, 1, 0, 0, row.channels);
  }
}

/// Adds a row of outputs to the weight gradients dw, which lie as the weights of `row` do.
template <class T, class V, std::int64_t TAPS, std::int64_t STEP>
void depthwise_weight_row(const DepthwiseRow<T>& row, std::int64_t outputs, const T* dy, T* dw) {
  constexpr std::int64_t block = depthwise_block_size;
  std::int64_t j = 0;
  for (; j + block <= outputs; j += block)
    with_block_pixels<block>(row, j, [&](const auto& pixels) {
      depthwise_weight_block<T, V, TAPS, STEP, block>(row, pixels, dy + j * row.channels, dw);
    });
  for (; j < outputs; ++j)
    with_block_pixels<1>(row, j, [&](const auto& pixels) {
      depthwise_weight_block<T, V, 0, 0, 1>(row, pixels, dy + j * row.channels, dw);
    });
}

/// Calls f(V, TAPS, STEP) with the vector type for the channels and compile-time sizes, or 0 for
/// those that have no kernel of their own.
template <class T, class F>
inline void with_depthwise_sizes(std::int64_t channels, std::int64_t taps, std::int64_t step,
                                 F&& f) {
  auto call = [&]<std::int64_t TAPS, std::int64_t STEP>(auto v) {
    f(v, std::integral_constant<std::int64_t, TAPS>{},
      std::integral_constant<std::int64_t, STEP>{});
  };
  with_channel_vector<T>(channels, [&](auto v) {
    if constexpr (std::is_same_v<typename decltype(v)::type, Vector<T>>) {
      if (taps == 3 && step == 1) return call.template operator()<3, 1>(v);
      if (taps == 5 && step == 1) return call.template operator()<5, 1>(v);
      if (taps == 3 && step == 2) return call.template operator()<3, 2>(v);
      if (taps == 5 && step == 2) return call.template operator()<5, 2>(v);
    }
    call.template operator()<0, 0>(v);
  });
}

/// The input rows [first, first + taps) of an image that lie inside of it.
struct InsideRows {
  std::int64_t begin, end;  ///< as taps
  InsideRows(std::int64_t first, std::int64_t taps, std::int64_t height)
      : begin(std::clamp<std::int64_t>(-first, 0, taps)),
        end(std::clamp<std::int64_t>(height - first, begin, taps)) {}
};

/// Rows of outputs in one chunk of work.
inline std::int64_t depthwise_rows_per_chunk(std::int64_t rows, std::int64_t work_per_row) {
  const std::int64_t enough =
      divide_up(std::int64_t{1} << 16, std::max<std::int64_t>(work_per_row, 1));
  return std::clamp<std::int64_t>(enough, 1, std::max<std::int64_t>(rows, 1));
}

/// Chunks of output rows, whose weight gradients are summed up apart.
inline std::int64_t depthwise_weight_chunks(std::int64_t rows, std::int64_t row_size) {
  return std::clamp<std::int64_t>(rows * row_size / (1 << 16), 1,
                                  std::min<std::int64_t>(32, std::max<std::int64_t>(rows, 1)));
}

/// The row of x that output row i of image b sees.
template <class T>
DepthwiseRow<T> depthwise_row(const Conv2dExtents& e, std::int64_t b, std::int64_t i, const T* x,
                              const T* w) {
  const std::int64_t first = i * e.stride - e.padding;
  const InsideRows inside(first, e.kernel_h, e.height);
  return {.channels = e.channels,
          .in = x + (b * e.height + first + inside.begin) * e.width * e.channels,
          .in_row = e.width * e.channels,
          .in_width = e.width,
          .rows = inside.end - inside.begin,
          .w = w + inside.begin * e.kernel_w * e.channels,
          .w_row = e.kernel_w * e.channels,
          .w_tap = e.channels,
          .taps = e.kernel_w,
          .step = e.stride,
          .offset = -e.padding};
}

/// y[b,i,j,c] = activation(scale[c] sum x w[p,q,0,c] + shift[c]).
template <class T>
void depthwise_conv2d_forward(Context& ctx, const Conv2dExtents& e, const T* x, const T* w,
                              const AffineEpilogue<T>& epilogue, T* y) {
  if (e.channels == 0) return;
  const std::int64_t row_size = e.out_width * e.channels, rows = e.batch * e.out_height;
  const std::int64_t chunk = depthwise_rows_per_chunk(rows, row_size * e.kernel_h * e.kernel_w);
  ctx.parallel_ranges(rows, chunk, [&](std::int64_t begin, std::int64_t end) {
    with_depthwise_sizes<T>(e.channels, e.kernel_w, e.stride, [&](auto v, auto taps, auto step) {
      using V = typename decltype(v)::type;
      for (std::int64_t r = begin; r < end; ++r)
        depthwise_finished_row<T, V, taps(), step()>(
            depthwise_row(e, r / e.out_height, r % e.out_height, x, w), e.out_width,
            y + r * row_size, e.channels, epilogue);
    });
  });
}

/// dx[b,i,j,c] = sum dy w over the outputs that see the pixel.
template <class T>
void depthwise_conv2d_backward_input(Context& ctx, const Conv2dExtents& e, const T* dy, const T* w,
                                     T* dx) {
  if (e.channels == 0) return;
  const std::int64_t rows = e.batch * e.height, out_row = e.out_width * e.channels;
  const std::int64_t chunk = depthwise_rows_per_chunk(
      rows, e.width * e.channels * divide_up(e.kernel_h * e.kernel_w, e.stride * e.stride));
  auto row_of_phase = [&](std::int64_t b, std::int64_t i, std::int64_t phase) {
    const PhaseTaps vertical(i % e.stride, e.height, e.kernel_h, e.stride, e.padding);
    const PhaseTaps horizontal(phase, e.width, e.kernel_w, e.stride, e.padding);
    const std::int64_t first = i / e.stride + vertical.offset;
    const InsideRows inside(first, vertical.taps, e.out_height);
    const DepthwiseRow<T> row{
        .channels = e.channels,
        .in = dy + (b * e.out_height + first + inside.begin) * out_row,
        .in_row = out_row,
        .in_width = e.out_width,
        .rows = inside.end - inside.begin,
        .w = w + (vertical.tap(inside.begin, e.stride) * e.kernel_w + horizontal.tap(0, e.stride)) *
                     e.channels,
        .w_row = -e.stride * e.kernel_w * e.channels,
        .w_tap = -e.stride * e.channels,
        .taps = horizontal.taps,
        .step = 1,
        .offset = horizontal.offset};
    with_depthwise_sizes<T>(e.channels, horizontal.taps, 1, [&](auto v, auto taps, auto step) {
      using V = typename decltype(v)::type;
      depthwise_forward_row<T, V, taps(), step()>(
          row, horizontal.pixels, dx + ((b * e.height + i) * e.width + phase) * e.channels,
          e.stride * e.channels);
    });
  };
  ctx.parallel_ranges(rows, chunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      for (std::int64_t phase = 0; phase < std::min(e.stride, e.width); ++phase)
        row_of_phase(r / e.height, r % e.height, phase);
  });
}

/// dw[p,q,0,c] += sum over b, i, j of x dy: chunks of output rows, added in order.
template <class T>
void depthwise_conv2d_backward_weight(Context& ctx, const Conv2dExtents& e, const T* x, const T* dy,
                                      T* dw) {
  if (e.channels == 0) return;
  const std::int64_t row_size = e.out_width * e.channels, rows = e.batch * e.out_height;
  const std::int64_t size = e.kernel_h * e.kernel_w * e.channels;
  const std::int64_t chunks = depthwise_weight_chunks(rows, row_size);
  const std::int64_t length = divide_up(rows, chunks);
  auto partial = ctx.make<T>({chunks * size}, "partial weight gradients");
  ctx.parallel_for(chunks, [&](std::int64_t chunk) {
    T* sum = partial.data + chunk * size;
    fill_zero(sum, size);
    with_depthwise_sizes<T>(e.channels, e.kernel_w, e.stride, [&](auto v, auto taps, auto step) {
      using V = typename decltype(v)::type;
      for (std::int64_t r = chunk * length; r < std::min(rows, (chunk + 1) * length); ++r) {
        const auto row =
            depthwise_row(e, r / e.out_height, r % e.out_height, x, static_cast<const T*>(sum));
        depthwise_weight_row<T, V, taps(), step()>(row, e.out_width, dy + r * row_size,
                                                   sum + (row.w - sum));
      }
    });
  });
  add_partials(ctx, chunks, e.kernel_h * e.kernel_w, e.channels, partial.data, dw, e.channels,
               true);
}

}  // namespace kindred::cpu
