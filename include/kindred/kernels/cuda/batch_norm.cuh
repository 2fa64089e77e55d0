#pragma once
// Bound by memory: the forward reads x twice and writes y, the backward reads dy and x twice and
// writes dx. x is [rows, channels] in T or BF16. Sums are taken of fixed chunks of rows, of
// differences from the first row, in T within a thread and in double above.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <kindred/kernels/activation.hpp>
#include <kindred/kernels/cuda/bfloat16.cuh>

namespace kindred::cuda {

/// A block works on 32 channels for each lane of a thread; its rows of threads share the rows of a
/// chunk.
inline constexpr int channel_rows = 8;

inline std::int64_t row_chunks(std::int64_t rows) {
  return std::clamp<std::int64_t>(rows / 256, 1, 1024);
}

/// Two sums per channel over the rows of a chunk: partial [chunks, 2, channels].
/// term.add(of_channels, index, first, second) adds `lanes` neighbouring elements to both.
template <int lanes, class T, class Term>
__global__ void __launch_bounds__(32 * channel_rows, 4 / lanes)
    channel_sums_kernel(std::int64_t rows, std::int64_t channels, std::int64_t length,
                        const Term term, double* partial) {
  __shared__ double sums[2][channel_rows][32 * lanes];
  const int column = static_cast<int>(threadIdx.x) * lanes;
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * (32 * lanes) + column;
  const std::int64_t begin = blockIdx.y * length;
  const std::int64_t end = begin + length < rows ? begin + length : rows;
  T first[lanes] = {}, second[lanes] = {};
  if (c < channels) {
    decltype(term.channel(c)) of_channels[lanes];
#pragma unroll
    for (int j = 0; j < lanes; ++j) of_channels[j] = term.channel(c + j);
    for (std::int64_t r = begin + threadIdx.y; r < end; r += channel_rows)
      term.add(of_channels, r * channels + c, first, second);
  }
#pragma unroll
  for (int j = 0; j < lanes; ++j) {
    sums[0][threadIdx.y][column + j] = first[j];
    sums[1][threadIdx.y][column + j] = second[j];
  }
  __syncthreads();
  if (threadIdx.y > 1 || c >= channels) return;
#pragma unroll
  for (int j = 0; j < lanes; ++j) {
    double sum = 0;
    for (int row = 0; row < channel_rows; ++row) sum += sums[threadIdx.y][row][column + j];
    partial[(blockIdx.y * 2 + threadIdx.y) * channels + c + j] = sum;
  }
}

/// Adds the chunks in a fixed tree and calls finish(c, first, second) for every channel.
template <class Finish>
__global__ void __launch_bounds__(32 * channel_rows)
    channel_finish_kernel(std::int64_t chunks, std::int64_t channels, const double* partial,
                          const Finish finish) {
  __shared__ double sums[2][channel_rows][32];
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x;
  double sum[2] = {0, 0};
  if (c < channels)
    for (std::int64_t i = threadIdx.y; i < chunks; i += channel_rows)
      for (int s = 0; s < 2; ++s) sum[s] += partial[(i * 2 + s) * channels + c];
  for (int s = 0; s < 2; ++s) sums[s][threadIdx.y][threadIdx.x] = sum[s];
  __syncthreads();
  if (threadIdx.y != 0 || c >= channels) return;
  for (int s = 0; s < 2; ++s)
    for (int row = 1; row < channel_rows; ++row) sum[s] += sums[s][row][threadIdx.x];
  finish(c, sum[0], sum[1]);
}

/// Both kernels; arrays of BF16 with an even number of channels are read two channels at a time.
template <class X, class T, class Term, class Finish>
void channel_sums(Context& ctx, const char* name, std::int64_t rows, std::int64_t channels,
                  const Term& term, const Finish& finish) {
  const std::int64_t chunks = row_chunks(rows);
  auto partial = ctx.make<double>({chunks, 2, channels}, "batch norm sums");
  const auto sum = [&](auto constant) {
    constexpr int lanes = decltype(constant)::value;
    const unsigned blocks = grid_extent(divide_up<std::int64_t>(channels, 32 * lanes));
    ctx.launch(name, dim3(blocks, static_cast<unsigned>(chunks)), block<32, channel_rows>,
               channel_sums_kernel<lanes, T, Term>, rows, channels, divide_up(rows, chunks), term,
               partial.data);
  };
  constexpr int lanes = channel_lanes<X>;
  if (channels % lanes == 0 && term.aligned())
    sum(std::integral_constant<int, lanes>{});
  else
    sum(std::integral_constant<int, 1>{});
  ctx.launch(name, grid_extent(divide_up<std::int64_t>(channels, 32)), block<32, channel_rows>,
             channel_finish_kernel<Finish>, chunks, channels, partial.data, finish);
}

/// Of the differences from the first row.
template <class X>
struct Moments {
  using T = ComputeOf<X>;
  const X* x;
  bool aligned() const { return aligned_for_packs(x); }
  __device__ T channel(std::int64_t c) const { return widened(x[c]); }
  template <int lanes>
  __device__ void add(const T (&shift)[lanes], std::int64_t i, T (&first)[lanes],
                      T (&second)[lanes]) const {
    const auto v = load_widened<lanes>(x + i);
#pragma unroll
    for (int j = 0; j < lanes; ++j) {
      const T d = v.value[j] - shift[j];
      first[j] += d;
      second[j] += d * d;
    }
  }
};

template <class X, class T>
struct FinishStatistics {
  std::int64_t rows;
  const X* x;
  T eps, momentum;
  T *mean, *inv_std, *running_mean, *running_var;
  __device__ void operator()(std::int64_t c, double first, double second) const {
    const double n = static_cast<double>(rows), offset = first / n;
    const double spread = second / n - offset * offset;
    const double variance = spread < 0 ? 0 : spread;  // rounding alone makes it negative; NaN stays
    mean[c] = static_cast<T>(static_cast<double>(widened(x[c])) + offset);
    inv_std[c] = static_cast<T>(1 / std::sqrt(variance + static_cast<double>(eps)));
    if (running_mean == nullptr) return;
    const T fresh = T(1) - momentum;
    running_mean[c] = momentum * running_mean[c] + fresh * mean[c];
    running_var[c] = momentum * running_var[c] + fresh * static_cast<T>(variance);
  }
};

/// y = act(k (x - mean) + beta) with k = gamma inv_std.
template <Activation act, int width, class X, class T, class Y>
__global__ void __launch_bounds__(elementwise_threads)
    batch_norm_apply_kernel(std::int64_t n, std::int64_t channels, const X* x, const T* mean,
                            const T* inv_std, const T* gamma, const T* beta, Y* y) {
  const std::int64_t i = flat_index() * width;
  if (i >= n) return;
  const std::int64_t c = remainder(i, channels);
  auto v = load_widened<width>(x + i);
  for (int j = 0; j < width; ++j)
    v.value[j] =
        activate(act, gamma[c + j] * inv_std[c + j] * (v.value[j] - mean[c + j]) + beta[c + j]);
  store_rounded<width>(y + i, v);
}

template <class X, class T, class Y>
void batch_norm_apply(Context& ctx, const char* name, std::int64_t rows, std::int64_t channels,
                      const X* x, const T* mean, const T* inv_std, const T* gamma, const T* beta,
                      Activation act, Y* y) {
  constexpr int width = std::min(pack_width<X>, pack_width<Y>);
  const std::int64_t n = rows * channels;
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    if (channels % width == 0 && aligned_for_packs(x, y))
      ctx.launch(name, grid_extent(divide_up<std::int64_t>(n, elementwise_threads * width)),
                 block<elementwise_threads>, batch_norm_apply_kernel<A, width, X, T, Y>, n,
                 channels, x, mean, inv_std, gamma, beta, y);
    else
      ctx.launch(name, grid_extent(divide_up<std::int64_t>(n, elementwise_threads)),
                 block<elementwise_threads>, batch_norm_apply_kernel<A, 1, X, T, Y>, n, channels, x,
                 mean, inv_std, gamma, beta, y);
  });
}

/// x in T or BF16, and y in BF16 only if x is.
template <class X, class T, class Y>
void batch_norm_forward(Context& ctx, std::int64_t rows, std::int64_t channels, const X* x,
                        const T* gamma, const T* beta, T eps, T momentum, Activation act, T* mean,
                        T* inv_std, T* running_mean, T* running_var, Y* y) {
  channel_sums<X, T>(
      ctx, "batch_norm_forward", rows, channels, Moments<X>{x},
      FinishStatistics<X, T>{rows, x, eps, momentum, mean, inv_std, running_mean, running_var});
  batch_norm_apply(ctx, "batch_norm_forward", rows, channels, x, static_cast<const T*>(mean),
                   static_cast<const T*>(inv_std), gamma, beta, act, y);
}

template <class T>
struct InverseStd {
  T eps;
  __device__ void operator()(T& inv_std, T var) const { inv_std = T(1) / std::sqrt(var + eps); }
};

template <class T>
void batch_norm_inverse_std(Context& ctx, std::int64_t channels, const T* var, T eps, T* inv_std) {
  transform(ctx, "batch_norm_inverse_std", channels, InverseStd<T>{eps}, inv_std, var);
}

template <class T>
struct ScaleShift {
  T eps;
  __device__ void operator()(T& scale, T& shift, T gamma, T beta, T mean, T var) const {
    scale = gamma / std::sqrt(var + eps);
    shift = beta - mean * scale;
  }
};

template <class T>
void batch_norm_scale_shift(Context& ctx, std::int64_t channels, const T* gamma, const T* beta,
                            const T* mean, const T* var, T eps, T* scale, T* shift) {
  transform(ctx, "batch_norm_scale_shift", channels, ScaleShift<T>{eps}, scale, shift, gamma, beta,
            mean, var);
}

template <class T>
void batch_norm_inference(Context& ctx, std::int64_t rows, std::int64_t channels, const T* x,
                          const T* gamma, const T* beta, const T* mean, const T* var, T eps,
                          Activation act, T* y) {
  auto inv_std = ctx.make<T>({channels}, "batch norm inverse std");
  batch_norm_inverse_std(ctx, channels, var, eps, inv_std.data);
  batch_norm_apply(ctx, "batch_norm_inference", rows, channels, x, mean,
                   static_cast<const T*>(inv_std.data), gamma, beta, act, y);
}

/// What the backward knows of a channel; d is the gradient before the activation.
template <class T>
struct NormChannel {
  T mean, k, beta;
  template <Activation act>
  __device__ T before_activation(T dy, T x) const {
    return dy * activate_derivative(act, k * (x - mean) + beta);
  }
};

/// Sums of d and of d (x - mean).
template <Activation act, class X, class T>
struct BackwardSums {
  const T* dy;
  const X* x;
  const T *mean, *inv_std, *gamma, *beta;
  bool aligned() const { return aligned_for_packs(dy, x); }
  __device__ NormChannel<T> channel(std::int64_t c) const {
    return {mean[c], gamma[c] * inv_std[c], beta[c]};
  }
  template <int lanes>
  __device__ void add(const NormChannel<T> (&c)[lanes], std::int64_t i, T (&first)[lanes],
                      T (&second)[lanes]) const {
    const auto g = load_pack<lanes>(dy + i);
    const auto v = load_widened<lanes>(x + i);
#pragma unroll
    for (int j = 0; j < lanes; ++j) {
      const T d = c[j].template before_activation<act>(g.value[j], v.value[j]);
      first[j] += d;
      second[j] += d * (v.value[j] - c[j].mean);
    }
  }
};

/// Parameter gradients, and what the mean and the variance take from every element:
/// dx = k d - of_mean - of_variance (x - mean).
template <class T>
struct FinishBackward {
  std::int64_t rows;
  bool training;
  const T *gamma, *inv_std;
  T *dgamma, *dbeta, *of_mean, *of_variance;
  __device__ void operator()(std::int64_t c, double sum_d, double sum_dx) const {
    const double inverse = inv_std[c], sum_du = sum_dx * inverse;
    const double share = training ? gamma[c] * inverse / static_cast<double>(rows) : 0;
    if (dgamma != nullptr) dgamma[c] += static_cast<T>(sum_du);
    if (dbeta != nullptr) dbeta[c] += static_cast<T>(sum_d);
    of_mean[c] = static_cast<T>(share * sum_d);
    of_variance[c] = static_cast<T>(share * inverse * sum_du);
  }
};

template <Activation act, int width, class X, class T, class DX>
__global__ void __launch_bounds__(elementwise_threads)
    batch_norm_backward_kernel(std::int64_t n, std::int64_t channels,
                               const BackwardSums<act, X, T> in, const T* of_mean,
                               const T* of_variance, DX* dx) {
  const std::int64_t i = flat_index() * width;
  if (i >= n) return;
  const std::int64_t c = remainder(i, channels);
  auto g = load_pack<width>(in.dy + i);
  const auto v = load_widened<width>(in.x + i);
  for (int j = 0; j < width; ++j) {
    const NormChannel<T> channel = in.channel(c + j);
    const T d = channel.template before_activation<act>(g.value[j], v.value[j]);
    g.value[j] = channel.k * d - of_mean[c + j] - of_variance[c + j] * (v.value[j] - channel.mean);
  }
  store_rounded<width>(dx + i, g);
}

/// x and dx in T or BF16.
template <class X, class T, class DX>
void batch_norm_backward(Context& ctx, std::int64_t rows, std::int64_t channels, const T* dy,
                         const X* x, const T* gamma, const T* beta, const T* mean, const T* inv_std,
                         Activation act, DX* dx, T* dgamma, T* dbeta, bool training) {
  auto shares = ctx.make<T>({2, channels}, "batch norm shares");
  T *of_mean = shares.data, *of_variance = shares.data + channels;
  const std::int64_t n = rows * channels;
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    const BackwardSums<A, X, T> sums{dy, x, mean, inv_std, gamma, beta};
    channel_sums<X, T>(
        ctx, "batch_norm_backward", rows, channels, sums,
        FinishBackward<T>{rows, training, gamma, inv_std, dgamma, dbeta, of_mean, of_variance});
    constexpr int width = pack_width<T>;
    if (channels % width == 0 && aligned_for_packs(dy, x, dx))
      ctx.launch("batch_norm_backward",
                 grid_extent(divide_up<std::int64_t>(n, elementwise_threads * width)),
                 block<elementwise_threads>, batch_norm_backward_kernel<A, width, X, T, DX>, n,
                 channels, sums, of_mean, of_variance, dx);
    else
      ctx.launch("batch_norm_backward",
                 grid_extent(divide_up<std::int64_t>(n, elementwise_threads)),
                 block<elementwise_threads>, batch_norm_backward_kernel<A, 1, X, T, DX>, n,
                 channels, sums, of_mean, of_variance, dx);
  });
}

}  // namespace kindred::cuda
