#pragma once
// Depthwise and pointwise convolution by groups of output rows: a thread filters some rows into
// memory that stays in its L2 cache, and multiplies them at once. Of the 2 P C + 2 P O + C O
// numbers that two kernels move (P pixels; read and write the filtered map, too), P C (the input) +
// P O + C O remain, for the same 2 P C (kh kw + O) operations, and one barrier instead of two.

#include <algorithm>
#include <cstdint>

#include <kindred/kernels/cpu/depthwise_conv2d_bf16.hpp>
#include <kindred/kernels/cpu/gemm_bf16.hpp>

namespace kindred::cpu {

/// Output rows that are filtered before they are multiplied. What a group reads, filters and writes
/// is at most about 128 KiB, so that it stays in the L2 cache beside what the next group will read
/// and, mostly, the weights. Of these sizes the one that leaves the fewest threads idle and the
/// register tiles fullest, the largest of equals. No sum passes the border of a group, so that it
/// may depend on the number of threads.
template <class T>
std::int64_t separable_rows(const Conv2dExtents& e, std::int64_t out, int threads) {
  const std::int64_t rows = e.batch * e.out_height;
  const std::int64_t row_size = e.stride * e.width * e.channels + e.out_width * (e.channels + out);
  const std::int64_t most =
      std::min(rows, (std::int64_t{1} << 17) / (row_size * static_cast<std::int64_t>(sizeof(T))));
  // Pixels that the busiest thread computes, those which fill its last tile included.
  const auto busiest = [&](std::int64_t group) {
    const std::int64_t pixels = group * e.out_width, rest = pixels % GemmTile<T>::rows;
    return divide_up(divide_up(rows, group), std::int64_t{threads}) *
           (pixels - rest + (rest == 0 ? 0 : GemmTile<T>::height(rest)));
  };
  std::int64_t best = 1;
  for (std::int64_t group = 2; group <= most; ++group)
    if (busiest(group) <= busiest(best)) best = group;
  return best;
}

/// Input rows, counted through all images, of which output row r is the last to be read that needs
/// them: those before have been read when it is done.
inline std::int64_t input_rows_read(const Conv2dExtents& e, std::int64_t r) {
  const std::int64_t end = r % e.out_height * e.stride - e.padding + e.kernel_h;
  return r / e.out_height * e.height + std::clamp<std::int64_t>(end, 0, e.height);
}

/// `packed` are the weights of the pointwise convolution. While a thread multiplies, memory would
/// be idle; so the tiles ask for the input rows of the next group, and for the network's next
/// weights, which follow in memory (see PreparedWeights): one image would wait for them in every
/// layer.
template <class T>
void separable_conv2d_forward(Context& ctx, const Conv2dExtents& e, std::int64_t out, const T* x,
                              const T* w, const T* scale, const T* shift, Activation activation,
                              const T* packed, const T* out_scale, const T* out_shift,
                              Activation out_activation, T* y) {
  using Tile = GemmTile<T>;
  const std::int64_t rows = e.batch * e.out_height;
  if (rows == 0 || e.out_width == 0 || e.channels == 0 || out == 0) return;
  const std::int64_t group = separable_rows<T>(e, out, ctx.threads()), width = e.out_width;
  // Rows of a panel in different sets of the L1 cache; whole panels are read, the last one, too.
  const std::int64_t distance = round_up(e.channels, std::int64_t{16}) + 16;
  const std::int64_t size = round_up(group * width, Tile::rows) * distance;
  auto filtered = ctx.make<T>({ctx.threads() * size}, "filtered rows");
  const AffineEpilogue<T> between{scale, shift, activation};
  const AffineEpilogue<T> after{out_scale, out_shift, out_activation};
  const PackedB<T> b(const_cast<T*>(packed), e.channels, out);  // a product only reads it
  const MatrixC<T> c{y, out};

  const auto filter = [&](std::int64_t begin, std::int64_t end, T* to) {
    with_depthwise_sizes<T>(e.channels, e.kernel_w, e.stride, [&](auto v, auto taps, auto step) {
      using V = typename decltype(v)::type;
      for (std::int64_t r = begin; r < end; ++r, to += width * distance)
        depthwise_finished_row<T, V, taps(), step()>(
            depthwise_row(e, r / e.out_height, r % e.out_height, x, w), width, to, distance,
            between);
    });
  };
  // Every thread asks for all of them, one slice in each of its tasks.
  const std::int64_t tasks = divide_up(rows, group),
                     share = divide_up(tasks, std::int64_t{ctx.threads()});
  const std::int64_t most = (std::int64_t{1} << 18) / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t slice = divide_up(std::min(2 * b.size(), most), share);
  ctx.parallel_for(tasks, [&](std::int64_t i, int thread) {
    const std::int64_t begin = i * group, end = std::min(rows, begin + group);
    const std::int64_t pixels = (end - begin) * width;
    T* a = filtered.data + thread * size;
    auto next_weights =
        LinesAhead::of_matrix(packed + b.size() + i % share * slice, 1, slice, slice);
    const std::int64_t read = input_rows_read(e, end - 1), row_size = e.width * e.channels;
    const std::int64_t size_ahead =
        (input_rows_read(e, std::min(rows, end + group) - 1) - read) * row_size;
    auto next_input = LinesAhead::of_matrix(x + read * row_size, 1, size_ahead, size_ahead);
    filter(begin, end, a);
    for (std::int64_t j = 0; j < out; j += Tile::block)
      for (std::int64_t part = 0; part < b.cut.parts; ++part)
        for (std::int64_t m = 0; m < pixels; m += Tile::rows) {
          LinesAhead& ahead = next_input.finished() ? next_weights : next_input;
          multiply_panel<T, PanelLayout::rows>(
              {c, begin * width + m, std::min(Tile::rows, pixels - m)}, j,
              std::min(Tile::block, out - j), b.cut.size(part),
              Panel<T>{a + m * distance + b.cut.begin(part), distance}, b.at(part, j),
              Unpacked<PackedB<T>>{}, part > 0, part + 1 == b.cut.parts ? &after : nullptr, &ahead,
              &ahead);
        }
  });
}

/// The same with x and `packed` BF16, and y of T or BFloat16: input rows are converted as
/// RoundedRows has it, filtered and finished in T, and rounded for the product.
template <class T, class Y>
void separable_conv2d_forward_rounded(Context& ctx, const Conv2dExtents& e, std::int64_t out,
                                      const BFloat16* x, const T* w, const T* scale, const T* shift,
                                      Activation activation, const BFloat16* packed,
                                      const T* out_scale, const T* out_shift,
                                      Activation out_activation, Y* y) {
  const std::int64_t rows = e.batch * e.out_height, width = e.out_width;
  if (rows == 0 || width == 0 || e.channels == 0 || out == 0) return;
  const RoundedRows<T> source(e);
  const PackedPairs b{const_cast<BFloat16*>(packed), e.channels, out};  // a product only reads it
  const AffineEpilogue<T> between{scale, shift, activation};
  const AffineEpilogue<T> after{out_scale, out_shift, out_activation};
  // At least four groups for the threads to share.
  const std::int64_t group = std::min(source.group(), divide_up(rows, std::int64_t{4}));
  const std::int64_t padded = 2 * b.pairs(), row_size = width * e.channels;
  const std::int64_t unrounded_size = round_up(source.size(), std::int64_t{16}) + row_size;
  const std::int64_t size = round_up(group * width, PairTile::rows) * padded;
  auto unrounded = ctx.make<T>({ctx.threads() * unrounded_size}, "unrounded rows");
  auto filtered = ctx.make<BFloat16>({ctx.threads() * size}, "filtered rows");

  const auto filter = [&](std::int64_t begin, std::int64_t end, T* in, BFloat16* to) {
    T* row_out = in + unrounded_size - row_size;
    with_depthwise_sizes<T>(e.channels, e.kernel_w, e.stride, [&](auto v, auto taps, auto step) {
      using V = typename decltype(v)::type;
      source.each(x, w, begin, end, in, [&](std::int64_t, const auto& row) {
        depthwise_finished_row<T, V, taps(), step()>(row, width, row_out, e.channels, between);
        pad_rows(row_out, width, e.channels, to);
        to += width * padded;
      });
    });
  };
  const PairProduct<Y> product{y, out, false, &after};
  const std::int64_t block = PairRowsCut::cached_columns(b.pairs());
  ctx.parallel_for(divide_up(rows, group), [&](std::int64_t i, int thread) {
    const std::int64_t begin = i * group, end = std::min(rows, begin + group);
    const std::int64_t pixels = (end - begin) * width;
    BFloat16* a = filtered.data + thread * size;
    filter(begin, end, unrounded.data + thread * unrounded_size, a);
    for (std::int64_t j = 0; j < out; j += block)
      for (std::int64_t m = 0; m < pixels; m += PairTile::rows)
        multiply_pair_panel<false>({a + m * padded, padded}, b.at(j), b.pairs(), begin * width + m,
                                   std::min(PairTile::rows, pixels - m), j,
                                   std::min(block, out - j), product);
  });
}

}  // namespace kindred::cpu
