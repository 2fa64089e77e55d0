#pragma once
// One row of logits per block, read twice: once for its maximum and its sum together, once for the
// gradient.

#include <cmath>
#include <cstdint>
#include <limits>

#include <kindred/kernels/check_labels.hpp>
#include <kindred/kernels/cuda/check_labels.cuh>
#include <kindred/kernels/cuda/reduce.cuh>

namespace kindred::cuda {

/// log sum_c exp(z[c]) of a row, in every thread of the block. Every thread keeps a running maximum
/// and the sum relative to it (Milakov and Gimelshein, "Online normalizer calculation for
/// softmax", 2018).
template <int threads, class T>
__device__ T block_log_sum_exp(std::int64_t n, const T* z) {
  T most = -std::numeric_limits<T>::infinity(), sum = 0;
  for (std::int64_t c = threadIdx.x; c < n; c += threads) {
    const T v = z[c];
    if (v > most) {
      sum = sum * std::exp(most - v) + T(1);
      most = v;
    } else {
      sum += std::exp(v - most);
    }
  }
  const T shift = block_max<threads>(most);
  // A thread without elements has the sum 0 and no maximum.
  const T part = sum == T(0) ? T(0) : sum * std::exp(most - shift);
  return shift + std::log(block_sum<threads>(part));
}

inline constexpr int cross_entropy_threads = 256;

template <class T>
__global__ void __launch_bounds__(cross_entropy_threads)
    cross_entropy_kernel(std::int64_t classes, const T* logits, const std::int64_t* labels,
                         T epsilon, T factor, T* losses, T* dlogits) {
  const std::int64_t b = blockIdx.x, label = class_index(labels[b], classes);
  const T* z = logits + b * classes;
  const T lse = block_log_sum_exp<cross_entropy_threads>(classes, z);
  const T smooth = epsilon / static_cast<T>(classes);
  T smooth_loss = 0;
  if (epsilon != T(0) || dlogits != nullptr)
    for (std::int64_t c = threadIdx.x; c < classes; c += cross_entropy_threads) {
      // sum_c t_c (lse - z_c), so that large logits cancel term by term.
      smooth_loss += lse - z[c];
      if (dlogits == nullptr) continue;
      const T target = smooth + (c == label ? T(1) - epsilon : T(0));
      dlogits[b * classes + c] += factor * (std::exp(z[c] - lse) - target);
    }
  smooth_loss = block_sum<cross_entropy_threads>(smooth_loss);
  if (threadIdx.x == 0) {
    losses[b] = (T(1) - epsilon) * (lse - z[label]);
    if (epsilon != T(0)) losses[b] += smooth * smooth_loss;
  }
}

/// *mean = mean of n values, summed in double.
template <class V, class T>
__global__ void __launch_bounds__(cross_entropy_threads)
    mean_kernel(std::int64_t n, const V* values, T* mean) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += cross_entropy_threads)
    sum += static_cast<double>(values[i]);
  sum = block_sum<cross_entropy_threads>(sum);
  if (threadIdx.x == 0) *mean = static_cast<T>(sum / static_cast<double>(n));
}

template <class T>
void softmax_cross_entropy(Context& ctx, std::int64_t batch, std::int64_t classes, const T* logits,
                           const std::int64_t* labels, T epsilon, T weight, T* loss, T* dlogits) {
  auto losses = ctx.template make<T>({batch}, "row losses");
  check_labels(ctx, "softmax_cross_entropy", labels, batch, classes);
  const T factor = weight / static_cast<T>(batch);
  ctx.launch("softmax_cross_entropy", grid_extent(batch), block<cross_entropy_threads>,
             cross_entropy_kernel<T>, classes, logits, labels, epsilon, factor, losses.data,
             dlogits);
  ctx.launch("softmax_cross_entropy", 1, block<cross_entropy_threads>, mean_kernel<T, T>, batch,
             losses.data, loss);
}

}  // namespace kindred::cuda
