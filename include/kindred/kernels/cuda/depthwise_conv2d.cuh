#pragma once
// Depthwise convolutions, direct: neighbouring threads work on neighbouring channels, of BF16 maps
// on two each. A thread of the forward computes a short run of outputs, so that it reads what their
// windows share only once.

#include <algorithm>
#include <cstdint>

#include <kindred/kernels/conv2d_geometry.hpp>
#include <kindred/kernels/cuda/epilogue.cuh>
#include <kindred/kernels/cuda/tile_product.cuh>

namespace kindred::cuda {

inline constexpr int depthwise_threads = 128;
/// Outputs of one thread, neighbours in a row.
inline constexpr int depthwise_run = 4;

/// size and stride are those of the kernel; 0: as the extents say. `lanes` channels a thread.
template <int size, int stride, int lanes, class X, class T, class Y>
__global__ void __launch_bounds__(depthwise_threads)
    depthwise_forward_kernel(const Conv2dExtents e, std::int64_t threads, const X* x, const T* w,
                             const Epilogue<T> epilogue, Y* y) {
  using Lanes = Pack<T, lanes>;
  constexpr int run = size > 0 ? depthwise_run : 1;
  const std::int64_t i = flat_index();
  if (i >= threads) return;
  const int kernel_h = size > 0 ? size : static_cast<int>(e.kernel_h);
  const int kernel_w = size > 0 ? size : static_cast<int>(e.kernel_w);
  const int step = stride > 0 ? stride : static_cast<int>(e.stride);
  const int channels = static_cast<int>(e.channels);
  const unsigned runs = static_cast<unsigned>((e.out_width + run - 1) / run);
  const int c = static_cast<int>(remainder(i, channels / lanes)) * lanes;
  const unsigned of_run = static_cast<unsigned>(quotient(i, channels / lanes));
  const int q = static_cast<int>(of_run % runs) * run;
  const int p = static_cast<int>(of_run / runs % static_cast<unsigned>(e.out_height));
  const std::int64_t b = of_run / runs / static_cast<unsigned>(e.out_height);
  const int left = q * step - static_cast<int>(e.padding);
  Lanes sum[run] = {};
  const auto add = [](Lanes& to, const Lanes& in, const Lanes& weight) {
#pragma unroll
    for (int j = 0; j < lanes; ++j) to.value[j] += in.value[j] * weight.value[j];
  };
  for (int h = 0; h < kernel_h; ++h) {
    const int row = p * step - static_cast<int>(e.padding) + h;
    if (row < 0 || row >= e.height) continue;
    const X* line = x + (b * e.height + row) * e.width * channels + c;
    if constexpr (size > 0) {
      constexpr int reach = (run - 1) * stride + size;
      Lanes in[reach];
#pragma unroll
      for (int v = 0; v < reach; ++v)
        in[v] = left + v >= 0 && left + v < e.width
                    ? load_widened<lanes>(line + std::int64_t{left + v} * channels)
                    : Lanes{};
#pragma unroll
      for (int v = 0; v < size; ++v) {
        const Lanes weight = load_pack<lanes>(w + (h * size + v) * channels + c);
#pragma unroll
        for (int r = 0; r < run; ++r) add(sum[r], in[r * stride + v], weight);
      }
    } else {
      for (int v = 0; v < kernel_w; ++v)
        if (left + v >= 0 && left + v < e.width)
          add(sum[0], load_widened<lanes>(line + std::int64_t{left + v} * channels),
              load_pack<lanes>(w + (h * kernel_w + v) * channels + c));
    }
  }
  Y* out = y + ((b * e.out_height + p) * e.out_width + q) * channels + c;
#pragma unroll
  for (int r = 0; r < run; ++r) {
    if (q + r >= e.out_width) continue;
#pragma unroll
    for (int j = 0; j < lanes; ++j) sum[r].value[j] = epilogue(c + j, sum[r].value[j]);
    store_rounded<lanes>(out + r * channels, sum[r]);
  }
}

/// Calls f with the size and the stride of the kernel as constants, if they are common ones and
/// `fits`, and with 0 otherwise.
template <class F>
void dispatch_depthwise(const Conv2dExtents& e, bool fits, F&& f) {
  using std::integral_constant;
  const auto with_stride = [&](auto size) {
    if (e.stride == 1) return f(size, integral_constant<int, 1>{});
    f(size, integral_constant<int, 2>{});
  };
  if (fits && e.kernel_h == e.kernel_w && e.stride <= 2) {
    if (e.kernel_h == 3) return with_stride(integral_constant<int, 3>{});
    if (e.kernel_h == 5) return with_stride(integral_constant<int, 5>{});
  }
  f(integral_constant<int, 0>{}, integral_constant<int, 0>{});
}
/// Whether all channels can be taken `lanes` at a time.
template <int lanes, class... P>
bool fits_lanes(const Conv2dExtents& e, const P*... p) {
  return lanes == 1 || (e.channels % lanes == 0 && aligned_for_packs(p...));
}

/// x and y in T or BF16.
template <class X, class T, class Y>
void depthwise_forward(Context& ctx, const Conv2dExtents& e, const X* x, const T* w,
                       const Epilogue<T>& epilogue, Y* y) {
  // Networks have x and y alike, and an even number of channels; others take the general kernel.
  constexpr bool alike = std::is_same_v<X, Y>;
  const bool fits = alike && fits_lanes<channel_lanes<X>>(e, x, w, y);
  dispatch_depthwise(e, fits, [&](auto size, auto stride) {
    constexpr int K = decltype(size)::value, S = decltype(stride)::value;
    if constexpr (alike || K == 0) {
      constexpr int run = K > 0 ? depthwise_run : 1, lanes = K > 0 ? channel_lanes<X> : 1;
      const std::int64_t threads =
          e.batch * e.out_height * divide_up<std::int64_t>(e.out_width, run) * (e.channels / lanes);
      ctx.launch("conv2d_forward", grid_extent(divide_up<std::int64_t>(threads, depthwise_threads)),
                 block<depthwise_threads>, depthwise_forward_kernel<K, S, lanes, X, T, Y>, e,
                 threads, x, w, epilogue, y);
    }
  });
}

template <int size, int stride, class T>
__global__ void __launch_bounds__(depthwise_threads)
    depthwise_backward_input_kernel(const Conv2dExtents e, std::int64_t threads, const T* dy,
                                    const T* w, T* dx) {
  const std::int64_t i = flat_index();
  if (i >= threads) return;
  const int kernel_h = size > 0 ? size : static_cast<int>(e.kernel_h);
  const int kernel_w = size > 0 ? size : static_cast<int>(e.kernel_w);
  const int step = stride > 0 ? stride : static_cast<int>(e.stride);
  const int channels = static_cast<int>(e.channels);
  const int c = static_cast<int>(remainder(i, channels));
  const unsigned pixel = static_cast<unsigned>(quotient(i, channels));
  const unsigned height = static_cast<unsigned>(e.height), width = static_cast<unsigned>(e.width);
  const int below = static_cast<int>(pixel / width % height + e.padding);
  const int right = static_cast<int>(pixel % width + e.padding);
  const std::int64_t b = pixel / width / height;
  T sum = 0;
#pragma unroll
  for (int h = 0; h < kernel_h; ++h) {
    const int p = below - h;
    if (p < 0 || p % step != 0 || p / step >= e.out_height) continue;
    const T* line = dy + (b * e.out_height + p / step) * e.out_width * channels + c;
#pragma unroll
    for (int v = 0; v < kernel_w; ++v) {
      const int q = right - v;
      if (q < 0 || q % step != 0 || q / step >= e.out_width) continue;
      sum += line[std::int64_t{q / step} * channels] * w[(h * kernel_w + v) * channels + c];
    }
  }
  dx[i] = sum;
}

template <class T>
void depthwise_backward_input(Context& ctx, const Conv2dExtents& e, const T* dy, const T* w,
                              T* dx) {
  const std::int64_t threads = e.batch * e.height * e.width * e.channels;
  dispatch_depthwise(e, true, [&](auto size, auto stride) {
    ctx.launch("conv2d_backward_input",
               grid_extent(divide_up<std::int64_t>(threads, depthwise_threads)),
               block<depthwise_threads>,
               depthwise_backward_input_kernel<decltype(size)::value, decltype(stride)::value, T>,
               e, threads, dy, w, dx);
  });
}

/// A block sums 32 times `lanes` channels over a chunk of output rows, which its rows of threads
/// share.
inline constexpr int depthwise_rows = 8;

/// partial [chunks, taps, channels]; with size 0 a block does one tap, blockIdx.z, else all of
/// them.
template <int size, int stride, int lanes, class X, class T>
__global__ void __launch_bounds__(32 * depthwise_rows)
    depthwise_backward_weight_kernel(const Conv2dExtents e, std::int64_t length, const X* x,
                                     const T* dy, T* partial) {
  using Lanes = Pack<T, lanes>;
  constexpr int taps = size > 0 ? size * size : 1;
  __shared__ Lanes part[depthwise_rows][32];
  const int kernel_w = size > 0 ? size : static_cast<int>(e.kernel_w);
  const int step = stride > 0 ? stride : static_cast<int>(e.stride);
  const std::int64_t c = (static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x) * lanes;
  const std::int64_t rows = e.batch * e.out_height, begin = blockIdx.y * length;
  const std::int64_t end = c < e.channels ? (begin + length < rows ? begin + length : rows) : begin;
  Lanes sum[taps] = {};
  for (std::int64_t row = begin; row < end; ++row) {
    const unsigned of_row = static_cast<unsigned>(row);
    const std::int64_t b = of_row / static_cast<unsigned>(e.out_height);
    const int p = static_cast<int>(of_row % static_cast<unsigned>(e.out_height));
    for (int q = static_cast<int>(threadIdx.y); q < e.out_width; q += depthwise_rows) {
      const Lanes g = load_pack<lanes>(dy + (row * e.out_width + q) * e.channels + c);
#pragma unroll
      for (int t = 0; t < taps; ++t) {
        const int tap = size > 0 ? t : static_cast<int>(blockIdx.z);
        const int h = p * step - static_cast<int>(e.padding) + tap / kernel_w;
        const int v = q * step - static_cast<int>(e.padding) + tap % kernel_w;
        if (h < 0 || v < 0 || h >= e.height || v >= e.width) continue;
        const Lanes in =
            load_widened<lanes>(x + ((b * e.height + h) * e.width + v) * e.channels + c);
#pragma unroll
        for (int j = 0; j < lanes; ++j) sum[t].value[j] += g.value[j] * in.value[j];
      }
    }
  }
  const std::int64_t all_taps = size > 0 ? taps : e.kernel_h * e.kernel_w;
#pragma unroll
  for (int t = 0; t < taps; ++t) {
    __syncthreads();
    part[threadIdx.y][threadIdx.x] = sum[t];
    __syncthreads();
    if (threadIdx.y != 0 || c >= e.channels) continue;
    Lanes total = part[0][threadIdx.x];
    for (int row = 1; row < depthwise_rows; ++row)
#pragma unroll
      for (int j = 0; j < lanes; ++j) total.value[j] += part[row][threadIdx.x].value[j];
    const std::int64_t tap = size > 0 ? t : blockIdx.z;
    store_pack<lanes>(partial + (blockIdx.y * all_taps + tap) * e.channels + c, total);
  }
}

/// dw[i] += what the tree of the chunks gives.
template <class T>
struct AddToWeights {
  T* dw;
  __device__ void operator()(std::int64_t, std::int64_t j, T sum) const { dw[j] += sum; }
};

/// x in T or BF16.
template <class X, class T>
void depthwise_backward_weight(Context& ctx, const Conv2dExtents& e, const X* x, const T* dy,
                               T* dw) {
  const std::int64_t rows = e.batch * e.out_height, taps = e.kernel_h * e.kernel_w;
  const std::int64_t chunks = std::clamp<std::int64_t>(rows / 4, 1, 256);
  const std::int64_t size = taps * e.channels;
  auto partial = ctx.make<T>({chunks, size}, "depthwise weight gradients");
  dispatch_depthwise(e, fits_lanes<channel_lanes<X>>(e, x, dy), [&](auto constant, auto stride) {
    // Two channels of 25 taps would leave registers for a single block.
    constexpr int K = decltype(constant)::value, lanes = K == 3 ? channel_lanes<X> : 1;
    const dim3 grid(grid_extent(divide_up<std::int64_t>(e.channels, 32 * lanes)),
                    static_cast<unsigned>(chunks), K > 0 ? 1 : grid_extent(taps, grid_limit_yz));
    ctx.launch("conv2d_backward_weight", grid, block<32, depthwise_rows>,
               depthwise_backward_weight_kernel<K, decltype(stride)::value, lanes, X, T>, e,
               divide_up(rows, chunks), x, dy, partial.data);
  });
  for_each(ctx, "conv2d_backward_weight", size,
           AddSplits<T, AddToWeights<T>>{partial.data, 1, size, chunks, {dw}});
}

}  // namespace kindred::cuda
