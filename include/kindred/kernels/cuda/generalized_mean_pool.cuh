#pragma once
// Bound by one logarithm and one exponential for each element, in both directions. Powers are taken
// of ratios to the largest element or to the mean, so that no p overflows. A block works on 32
// channels of an image; its rows of threads share the pixels.

#include <cmath>
#include <cstdint>

#include <kindred/kernels/cuda/image_channels.cuh>
#include <kindred/kernels/cuda/sum.cuh>

namespace kindred::cuda {

/// max(x, eps); NaN passes.
template <class T>
__device__ T raised_to(T x, T eps) {
  return x <= eps ? eps : x;
}

/// The values of the block's rows of threads combined in order, for each of its 32 columns.
template <class T, class Combine>
__device__ T combine_rows(T value, Combine combine) {
  __shared__ T partial[pixel_rows][32];
  __syncthreads();  // an earlier call may still be read
  partial[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  value = partial[0][threadIdx.x];
  for (int row = 1; row < pixel_rows; ++row) value = combine(value, partial[row][threadIdx.x]);
  return value;
}

template <class T>
__global__ void __launch_bounds__(32 * pixel_rows)
    generalized_mean_pool_forward_kernel(std::int64_t pixels, std::int64_t channels, const T* x,
                                         const T* power, T eps, T* y) {
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x;
  const std::int64_t b = blockIdx.y, rows = c < channels ? pixels : 0;
  const T *in = x + b * pixels * channels + c, p = *power;
  T largest = eps, sum = 0;
  for (std::int64_t i = threadIdx.y; i < rows; i += pixel_rows)
    largest = Maximum{}(largest, raised_to(in[i * channels], eps));
  largest = combine_rows(largest, Maximum{});
  for (std::int64_t i = threadIdx.y; i < rows; i += pixel_rows)
    sum += std::exp(p * std::log(raised_to(in[i * channels], eps) / largest));
  sum = combine_rows(sum, Sum{});
  if (threadIdx.y == 0 && c < channels)
    y[b * channels + c] = largest * std::exp(std::log(sum / static_cast<T>(pixels)) / p);
}

template <class T>
void generalized_mean_pool_forward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                   std::int64_t channels, const T* x, const T* p, T eps, T* y) {
  const dim3 grid(grid_extent(divide_up<std::int64_t>(channels, 32)),
                  grid_extent(batch, grid_limit_yz));
  ctx.launch("generalized_mean_pool_forward", grid, block<32, pixel_rows>,
             generalized_mean_pool_forward_kernel<T>, pixels, channels, x, p, eps, y);
}

/// by_power [B,C] gets what every mean adds to dp.
template <class T>
__global__ void __launch_bounds__(32 * pixel_rows)
    generalized_mean_pool_backward_kernel(std::int64_t pixels, std::int64_t channels, const T* dy,
                                          const T* x, const T* y, const T* power, T eps, T* dx,
                                          T* by_power) {
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x;
  const std::int64_t b = blockIdx.y, at = b * channels + c, image = b * pixels * channels + c;
  const bool inside = c < channels;
  const T p = *power, count = static_cast<T>(pixels);
  const T mean = inside ? y[at] : T(1), upstream = inside ? dy[at] : T(0), share = upstream / count;
  T entropy = 0;  // sum of r^p ln r
  for (std::int64_t i = threadIdx.y; i < (inside ? pixels : 0); i += pixel_rows) {
    const T v = x[image + i * channels], ratio = raised_to(v, eps) / mean;
    const T log_ratio = std::log(ratio), raised = std::exp(p * log_ratio);
    entropy += raised * log_ratio;
    dx[image + i * channels] = v <= eps ? T(0) : share * raised / ratio;
  }
  entropy = combine_rows(entropy, Sum{});
  if (threadIdx.y == 0 && inside) by_power[at] = upstream * mean / p * entropy / count;
}

template <class T>
struct Itself {
  __device__ T operator()(T v) const { return v; }
};
template <class T>
struct AddedTo {
  const T* out;
  __device__ T operator()(double sum) const { return *out + static_cast<T>(sum); }
};

template <class T>
void generalized_mean_pool_backward(Context& ctx, std::int64_t batch, std::int64_t pixels,
                                    std::int64_t channels, const T* dy, const T* x, const T* y,
                                    const T* p, T eps, T* dx, T* dp) {
  auto by_power = ctx.make<T>({batch, channels}, "generalised mean by power");
  const dim3 grid(grid_extent(divide_up<std::int64_t>(channels, 32)),
                  grid_extent(batch, grid_limit_yz));
  ctx.launch("generalized_mean_pool_backward", grid, block<32, pixel_rows>,
             generalized_mean_pool_backward_kernel<T>, pixels, channels, dy, x, y, p, eps, dx,
             by_power.data);
  sum_of_terms(ctx, "generalized_mean_pool_backward", by_power.size(),
               static_cast<const T*>(by_power.data), Itself<T>{}, AddedTo<T>{dp}, dp);
}

}  // namespace kindred::cuda
