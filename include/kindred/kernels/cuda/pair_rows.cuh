#pragma once
// A row is the work of one block: of a warp where rows are short or there are enough of them to
// fill the device, else of 256 threads.

#include <cstdint>
#include <limits>

#include <kindred/kernels/cuda/reduce.cuh>
#include <kindred/kernels/pair_rows.hpp>

namespace kindred::cuda {

/// The group of kernels::pair_rows with the `threads` threads of a block. Element j is always
/// thread j % threads', and what the threads have is combined in a fixed tree.
template <int threads>
struct BlockGroup {
  template <class F>
  __device__ auto sum(std::int64_t n, F&& f) const {
    using V = decltype(f(n));
    V part = V(0);
    for (std::int64_t j = threadIdx.x; j < n; j += threads) part += f(j);
    return block_sum<threads>(part);
  }
  template <class F>
  __device__ auto max(std::int64_t n, F&& f) const {
    using V = decltype(f(n));
    V best = -std::numeric_limits<V>::infinity();
    for (std::int64_t j = threadIdx.x; j < n; j += threads) best = Maximum{}(best, f(j));
    return block_max<threads>(best);
  }
  template <class F>
  __device__ auto min(std::int64_t n, F&& f) const {
    return -max(n, [&](std::int64_t j) { return -f(j); });
  }
  template <class Keep, class F>
  __device__ std::int64_t argmax(std::int64_t n, Keep&& keep, F&& f) const {
    using V = decltype(f(n));
    constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
    std::int64_t at = none;
    V best = -std::numeric_limits<V>::infinity();
    for (std::int64_t j = threadIdx.x; j < n; j += threads) {
      if (!keep(j)) continue;
      const V v = f(j);
      if (at == none || v > best || (v != v && best == best)) {
        best = v;
        at = j;
      }
    }
    const V most = block_max<threads>(best);
    // The first of a thread is the lowest of its equals.
    const bool holds = best == most || (best != best && most != most);
    const std::int64_t first = block_min<threads>(holds ? at : none);
    return first == none ? -1 : first;
  }
  template <class Keep, class F>
  __device__ std::int64_t argmin(std::int64_t n, Keep&& keep, F&& f) const {
    return argmax(n, keep, [&](std::int64_t j) { return -f(j); });
  }
  template <class Keep>
  __device__ std::int64_t count(std::int64_t n, Keep&& keep) const {
    return sum(n, [&](std::int64_t j) { return std::int64_t{keep(j) ? 1 : 0}; });
  }
  template <class F>
  __device__ void for_each(std::int64_t n, F&& f) const {
    __syncthreads();  // another thread may still read what f writes
    for (std::int64_t j = threadIdx.x; j < n; j += threads) f(j);
    __syncthreads();
  }
  template <class F>
  __device__ void once(F&& f) const {
    __syncthreads();
    if (threadIdx.x == 0) f();
    __syncthreads();
  }
};

template <int threads, class Row>
__global__ void __launch_bounds__(threads) pair_rows_kernel(const Row row) {
  row(BlockGroup<threads>{}, static_cast<std::int64_t>(blockIdx.x));
}

template <class Row>
void for_pair_rows(Context& ctx, std::int64_t rows, std::int64_t columns, const Row& row) {
  constexpr int one_warp = 32, many = 256;
  const unsigned grid = grid_extent(rows);
  if (columns <= 128 || rows >= 4096)
    ctx.launch("pair_rows", grid, block<one_warp>, pair_rows_kernel<one_warp, Row>, row);
  else
    ctx.launch("pair_rows", grid, block<many>, pair_rows_kernel<many, Row>, row);
}

template <class Body>
__global__ void __launch_bounds__(elementwise_threads)
    for_each_pair_kernel(std::int64_t columns, unsigned blocks, const Body body) {
  // One division of 32 bits for a thread; one of 64 would take longer than the memory.
  const std::int64_t i = blockIdx.x / blocks;
  const std::int64_t j = std::int64_t{blockIdx.x % blocks} * elementwise_threads + threadIdx.x;
  if (j < columns) body(i, j);
}

/// Calls body(i, j) on the device for every element of a matrix; `body` is a struct with a
/// __device__ operator().
template <class Body>
void for_each_pair(Context& ctx, const char* name, std::int64_t rows, std::int64_t columns,
                   const Body& body) {
  const std::int64_t blocks = divide_up<std::int64_t>(columns, elementwise_threads);
  ctx.launch(name, grid_extent(rows * blocks), block<elementwise_threads>,
             for_each_pair_kernel<Body>, columns, grid_extent(blocks), body);
}

}  // namespace kindred::cuda
