#pragma once
// The sum over an array, in two kernels: private partial sums of fixed chunks, then their sum.

#include <cstdint>

#include <kindred/kernels/cuda/reduce.cuh>

namespace kindred::cuda {

inline constexpr int sum_threads = 256;
/// Elements that one block sums.
inline constexpr std::int64_t sum_chunk = sum_threads * 32;

template <class Term, class T>
__global__ void __launch_bounds__(sum_threads)
    sum_chunks_kernel(std::int64_t n, const T* x, const Term term, double* partial) {
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * sum_chunk;
  const std::int64_t end = begin + sum_chunk < n ? begin + sum_chunk : n;
  T own = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += sum_threads) own += term(x[i]);
  const double sum = block_sum<sum_threads>(static_cast<double>(own));
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <class Finish, class T>
__global__ void __launch_bounds__(sum_threads)
    sum_partials_kernel(std::int64_t n, const double* partial, const Finish finish, T* out) {
  double own = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += sum_threads) own += partial[i];
  const double sum = block_sum<sum_threads>(own);
  if (threadIdx.x == 0) *out = finish(sum);
}

/// *out = finish(sum of term(x[i])): per thread in T, in double above.
template <class Term, class Finish, class T>
void sum_of_terms(Context& ctx, const char* name, std::int64_t n, const T* x, const Term& term,
                  const Finish& finish, T* out) {
  const std::int64_t chunks = divide_up(n, sum_chunk);
  auto partial = ctx.make<double>({chunks}, "partial sums");
  ctx.launch(name, grid_extent(chunks), block<sum_threads>, sum_chunks_kernel<Term, T>, n, x, term,
             partial.data);
  ctx.launch(name, 1, block<sum_threads>, sum_partials_kernel<Finish, T>, chunks, partial.data,
             finish, out);
}

}  // namespace kindred::cuda
