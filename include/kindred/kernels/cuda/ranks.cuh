#pragma once
// The ranks of given elements of every row of a matrix. A row is read once for every 1024 of them:
// each element is counted for the best of the given ones that it stands before.

#include <cstdint>
#include <limits>

#include <kindred/kernels/cuda/reduce.cuh>
#include <kindred/kernels/cuda/top_k.cuh>

namespace kindred::cuda {

/// The given columns of a row, and where their ranks go.
struct RankedColumns {
  std::int64_t begin;  ///< in `columns`
  std::int64_t count;
  std::int64_t result;  ///< in `ranks`
};

/// Ranks of keys[0, size), sorted, of which `count` are there; bins of `size` counters.
__device__ inline void count_ranks(const float* row, std::int64_t columns, const RankKey* keys,
                                   int count, unsigned* bins, std::int64_t* ranks) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += top_k_threads) bins[i] = 0;
  __syncthreads();
  for (std::int64_t j = threadIdx.x; j < columns; j += top_k_threads) {
    const RankKey key = rank_key(row[j], j);
    int first = 0, length = count;  // the first of the sorted keys that is larger
    while (length > 0) {
      const int half = length / 2;
      const bool larger = keys[first + half] > key;
      if (!larger) first += half + 1;
      length = larger ? half : length - half - 1;
    }
    if (first < count) atomicAdd(bins + first, 1u);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    std::int64_t before = 0;
    for (int i = 0; i < count; ++i) ranks[i] = 1 + (before += bins[i]);
  }
  __syncthreads();
}

template <int capacity>
__global__ void __launch_bounds__(top_k_threads)
    ranks_kernel(std::int64_t columns, const float* values, const RankedColumns* given,
                 const std::int64_t* list, std::int64_t* ranks, std::int64_t* compared) {
  constexpr RankKey none = std::numeric_limits<RankKey>::max();
  constexpr float excluded = -std::numeric_limits<float>::infinity();
  __shared__ RankKey keys[capacity];
  __shared__ unsigned bins[capacity];
  const float* row = values + blockIdx.x * columns;
  const RankedColumns own = given[blockIdx.x];
  std::int64_t there = 0;
  for (std::int64_t j = threadIdx.x; j < columns; j += top_k_threads) there += row[j] != excluded;
  there = block_sum<top_k_threads>(there);
  if (threadIdx.x == 0) compared[blockIdx.x] = there;
  for (std::int64_t done = 0; done < own.count; done += capacity) {
    const std::int64_t left = own.count - done;
    const int taken = left < capacity ? static_cast<int>(left) : capacity;
    int size = 1;
    while (size < taken) size *= 2;
    int present = 0;
    for (int i = static_cast<int>(threadIdx.x); i < size; i += top_k_threads) {
      RankKey key = none;
      if (i < taken) {
        const std::int64_t column = list[own.begin + done + i];
        if (row[column] != excluded) key = rank_key(row[column], column);
      }
      keys[i] = key;
      present += key != none;
    }
    const int count = block_sum<top_k_threads>(present);
    sort_keys(keys, size);
    std::int64_t* out = ranks + own.result + done;
    count_ranks(row, columns, keys, count, bins, out);
    for (int i = count + static_cast<int>(threadIdx.x); i < taken; i += top_k_threads) out[i] = 0;
  }
}

/// For row i of values [rows,columns] and j < given[i].count, in some order:
/// ranks[given[i].result + j] = 1 + how many elements of the row stand before the one of column
/// list[given[i].begin + j]: those that are larger, and of equal ones those of lower columns; 0 if
/// it is -infinity. compared[i] = how many elements of the row are not. No NaN; columns <= 2^32.
/// `capacity`, a power of two, changes nothing but the work.
template <int capacity = 1024>
void ranks(Context& ctx, std::int64_t rows, std::int64_t columns, const float* values,
           const RankedColumns* given, const std::int64_t* list, std::int64_t* ranks,
           std::int64_t* compared) {
  if (columns > std::int64_t{1} << 32)
    throw ShapeError(text("ranks: ", columns, " columns; at most 2^32 are possible"));
  ctx.launch("ranks", grid_extent(rows), block<top_k_threads>, ranks_kernel<capacity>, columns,
             values, given, list, ranks, compared);
}

}  // namespace kindred::cuda
