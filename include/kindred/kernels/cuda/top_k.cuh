#pragma once
// The k largest of every row of a matrix, in order. A row is read about twice for every 128 of the
// k: once for the largest that each thread meets, of which the 128th bounds what can still be among
// the wanted ones, and once to collect what is within the bound.

#include <cstdint>
#include <limits>

#include <kindred/kernels/cuda/reduce.cuh>

namespace kindred::cuda {

/// Where an element stands in its row: smaller is earlier. The upper half is the value, descending,
/// the lower half the column, so that no two elements are equal.
using RankKey = unsigned long long;

__device__ inline RankKey rank_key(float value, std::int64_t column) {
  const unsigned bits = static_cast<unsigned>(__float_as_int(value + 0.f));  // -0 becomes 0
  const unsigned ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<RankKey>(~ascending) << 32 | static_cast<RankKey>(column);
}
__device__ inline float value_of(RankKey key) {
  const unsigned ascending = ~static_cast<unsigned>(key >> 32);
  const unsigned bits = ascending >> 31 ? ascending & 0x7FFFFFFFu : ~ascending;
  return __int_as_float(static_cast<int>(bits));
}

inline constexpr int top_k_threads = 256;

/// Sorts `size` keys, a power of two (Batcher's bitonic network). All threads must call it.
__device__ inline void sort_keys(RankKey* keys, int size) {
  for (int width = 2; width <= size; width *= 2)
    for (int step = width / 2; step > 0; step /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < size; i += top_k_threads) {
        const int other = i ^ step;
        if (other < i) continue;
        const RankKey a = keys[i], b = keys[other];
        if ((a > b) == ((i & width) == 0)) {
          keys[i] = b;
          keys[other] = a;
        }
      }
    }
  __syncthreads();
}

/// Writes to keys[0, n), sorted, the next n keys of the row from `lower` on, and returns n, which
/// is from 1 to `capacity`; `wanted` are enough. Which thread adds a key first varies; what is
/// collected does not.
template <int capacity>
__device__ int next_keys(const float* row, std::int64_t columns, RankKey lower, std::int64_t wanted,
                         RankKey* keys, int* taken) {
  constexpr RankKey none = std::numeric_limits<RankKey>::max();
  RankKey first = none;  // of this thread's columns
  for (std::int64_t j = threadIdx.x; j < columns; j += top_k_threads) {
    const RankKey key = rank_key(row[j], j);
    if (key >= lower && key < first) first = key;
  }
  __syncthreads();  // the caller may still read the last ones
  keys[threadIdx.x] = first;
  sort_keys(keys, top_k_threads);
  // Half as many as there are threads: about 1.4 times as many elements then lie within the bound.
  int share = wanted < top_k_threads / 2 ? static_cast<int>(wanted) : top_k_threads / 2;
  while (share > 1 && keys[share - 1] == none) share /= 2;
  for (;; share /= 2) {  // one thread may own most of the row's largest
    const RankKey bound = keys[share - 1];
    __shared__ RankKey found[capacity];
    __syncthreads();
    if (threadIdx.x == 0) *taken = 0;
    __syncthreads();
    for (std::int64_t j = threadIdx.x; j < columns; j += top_k_threads) {
      const RankKey key = rank_key(row[j], j);
      if (key < lower || key > bound) continue;
      const int at = atomicAdd(taken, 1);
      if (at < capacity) found[at] = key;
    }
    __syncthreads();
    const int count = *taken;
    if (count > capacity) continue;
    int size = 1;
    while (size < count) size *= 2;
    for (int i = static_cast<int>(threadIdx.x); i < size; i += top_k_threads)
      keys[i] = i < count ? found[i] : none;
    sort_keys(keys, size);
    return count;
  }
}

template <int capacity>
__global__ void __launch_bounds__(top_k_threads)
    top_k_kernel(std::int64_t columns, std::int64_t k, const float* values, std::int64_t* indices,
                 float* scores) {
  __shared__ RankKey keys[capacity < top_k_threads ? top_k_threads : capacity];
  __shared__ int taken;
  const std::int64_t row = blockIdx.x;
  RankKey lower = 0;
  for (std::int64_t done = 0; done < k;) {
    const int count =
        next_keys<capacity>(values + row * columns, columns, lower, k - done, keys, &taken);
    for (std::int64_t i = threadIdx.x; i < count && done + i < k; i += top_k_threads) {
      const float value = value_of(keys[i]);
      const bool there = value != -std::numeric_limits<float>::infinity();
      scores[row * k + done + i] = value;
      indices[row * k + done + i] =
          there ? static_cast<std::int64_t>(keys[i] & 0xFFFFFFFFull) : std::int64_t{-1};
    }
    done += count;
    lower = keys[count - 1] + 1;
  }
}

/// The k largest of each row of values [rows,columns], largest first, of equal ones the lower
/// column first: indices, scores [rows,k]; -1 for what is -infinity. 1 <= k <= columns <= 2^32; no
/// NaN. `capacity`, a power of two, is how many are collected at once at most; the result does not
/// depend on it.
template <int capacity = 1024>
void top_k(Context& ctx, std::int64_t rows, std::int64_t columns, std::int64_t k,
           const float* values, std::int64_t* indices, float* scores) {
  if (columns > std::int64_t{1} << 32)
    throw ShapeError(text("top_k: ", columns, " columns; at most 2^32 are possible"));
  ctx.launch("top_k", grid_extent(rows), block<top_k_threads>, top_k_kernel<capacity>, columns, k,
             values, indices, scores);
}

}  // namespace kindred::cuda
