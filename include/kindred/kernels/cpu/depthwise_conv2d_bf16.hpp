#pragma once
// Depthwise convolutions of maps stored as BF16. A thread brings the input rows of some output rows
// into its cache as T and runs the kernels of depthwise_conv2d.hpp there, so that memory moves 2
// bytes an element, and an element is converted once, not for each tap that reads it.

#include <algorithm>
#include <cstdint>

#include <kindred/kernels/cpu/depthwise_conv2d.hpp>

namespace kindred::cpu {

/// The input rows that a group of neighbouring output rows of one image see, in T.
template <class T>
class RoundedRows {
 public:
  explicit RoundedRows(const Conv2dExtents& e) : e_(e), row_(e.width * e.channels) {
    // Within half of the L2 cache, and long enough that few rows are converted for two groups.
    const std::int64_t cached = (std::int64_t{1} << 16) / std::max<std::int64_t>(row_, 1);
    group_ = std::clamp<std::int64_t>((cached - e.kernel_h) / e.stride + 1,
                                      std::min<std::int64_t>(8, e.out_height), e.out_height);
  }
  /// Output rows of a group, and elements of its input.
  std::int64_t group() const { return group_; }
  std::int64_t size() const {
    return std::min(e_.height, (group_ - 1) * e_.stride + e_.kernel_h) * row_;
  }
  /// Calls f(r, row) for the output rows [begin, end) of all images, whose number is at most that
  /// of a group; row is the DepthwiseRow of r with the weights w, in `scratch`.
  template <class F>
  void each(const BFloat16* x, const T* w, std::int64_t begin, std::int64_t end, T* scratch,
            F&& f) const {
    while (begin < end) {
      const std::int64_t b = begin / e_.out_height, i = begin % e_.out_height;
      const std::int64_t count = std::min(end - begin, e_.out_height - i);
      const std::int64_t first = std::clamp<std::int64_t>(i * e_.stride - e_.padding, 0, e_.height);
      const std::int64_t last = std::clamp<std::int64_t>(
          (i + count - 1) * e_.stride - e_.padding + e_.kernel_h, first, e_.height);
      convert<T>(x + (b * e_.height + first) * row_, (last - first) * row_, scratch);
      for (std::int64_t r = 0; r < count; ++r) {
        auto row = depthwise_row(e_, 0, i + r, static_cast<const T*>(scratch), w);
        row.in -= first * row_;
        f(begin + r, row);
      }
      begin += count;
    }
  }

 private:
  const Conv2dExtents& e_;
  std::int64_t row_, group_;
};

/// y = activation(scale conv(x, w) + shift), rounded.
template <class T>
void depthwise_conv2d_forward_rounded(Context& ctx, const Conv2dExtents& e, const BFloat16* x,
                                      const T* w, const AffineEpilogue<T>& epilogue, BFloat16* y) {
  const RoundedRows<T> source(e);
  const std::int64_t row_size = e.out_width * e.channels;
  const std::int64_t groups = divide_up(e.out_height, source.group());
  const std::int64_t size = round_up(source.size(), vector_size<T>) + row_size;
  auto scratch = ctx.make<T>({ctx.threads() * size}, "unrounded rows");
  ctx.parallel_for(e.batch * groups, [&](std::int64_t chunk, int thread) {
    T* from = scratch.data + thread * size;
    T* out = from + size - row_size;
    const std::int64_t image = chunk / groups * e.out_height,
                       first = chunk % groups * source.group();
    const std::int64_t last = std::min(e.out_height, first + source.group());
    with_depthwise_sizes<T>(e.channels, e.kernel_w, e.stride, [&](auto v, auto taps, auto step) {
      using V = typename decltype(v)::type;
      source.each(x, w, image + first, image + last, from, [&](std::int64_t r, const auto& row) {
        depthwise_finished_row<T, V, taps(), step()>(row, e.out_width, out, e.channels, epilogue);
        convert<T>(out, row_size, y + r * row_size);
      });
    });
  });
}

/// dw[p,q,0,c] += sum over b, i, j of x dy: chunks of output rows, added in order.
template <class T>
void depthwise_conv2d_backward_weight(Context& ctx, const Conv2dExtents& e, const BFloat16* x,
                                      const T* dy, T* dw) {
  const RoundedRows<T> source(e);
  const std::int64_t row_size = e.out_width * e.channels, rows = e.batch * e.out_height;
  const std::int64_t size = e.kernel_h * e.kernel_w * e.channels;
  const std::int64_t chunks = depthwise_weight_chunks(rows, row_size);
  const std::int64_t length = divide_up(rows, chunks);
  auto partial = ctx.make<T>({chunks * size}, "partial weight gradients");
  auto scratch = ctx.make<T>({ctx.threads() * source.size()}, "unrounded rows");
  ctx.parallel_for(chunks, [&](std::int64_t chunk, int thread) {
    T* sum = partial.data + chunk * size;
    fill_zero(sum, size);
    const std::int64_t end = std::min(rows, (chunk + 1) * length);
    with_depthwise_sizes<T>(e.channels, e.kernel_w, e.stride, [&](auto v, auto taps, auto step) {
      using V = typename decltype(v)::type;
      for (std::int64_t r = chunk * length; r < end; r += source.group())
        source.each(x, sum, r, std::min(end, r + source.group()),
                    scratch.data + thread * source.size(), [&](std::int64_t at, const auto& row) {
                      depthwise_weight_row<T, V, taps(), step()>(
                          row, e.out_width, dy + at * row_size, sum + (row.w - sum));
                    });
    });
  });
  add_partials(ctx, chunks, e.kernel_h * e.kernel_w, e.channels, partial.data, dw, e.channels,
               true);
}

}  // namespace kindred::cpu
