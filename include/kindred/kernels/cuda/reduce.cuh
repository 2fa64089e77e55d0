#pragma once
// Reductions within a warp and a block, in a tree that is fixed by the number of threads.

#include <limits>

#include <kindred/kernels/cuda/launch.cuh>

namespace kindred::cuda {

inline constexpr unsigned all_lanes = 0xFFFFFFFFu;

/// Combine as a function object, so that one tree serves all reductions.
struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
/// NaN wins, as it must not be lost.
struct Maximum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b || a != a ? a : b;
  }
};
struct Minimum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b || a != a ? a : b;
  }
};

/// The values of all 32 lanes combined, in every lane. All lanes must call it.
template <class T, class Combine>
__device__ T warp_reduce(T value, Combine combine) {
  // The lower lane's value comes first, so that all lanes compute the same bits.
  const unsigned lane = threadIdx.x % 32;
  for (int bits = 1; bits < 32; bits *= 2) {
    const T other = __shfl_xor_sync(all_lanes, value, bits);
    value = lane & static_cast<unsigned>(bits) ? combine(other, value) : combine(value, other);
  }
  return value;
}
template <class T>
__device__ T warp_sum(T value) {
  return warp_reduce(value, Sum{});
}
template <class T>
__device__ T warp_max(T value) {
  return warp_reduce(value, Maximum{});
}

/// The values of all threads of a block of `threads` x 1 x 1 threads combined, in every thread. All
/// threads must call it; it may be called again at once.
template <int threads, class T, class Combine>
__device__ T block_reduce(T value, Combine combine) {
  static_assert(threads % 32 == 0 && threads <= 1024);
  constexpr int warps = threads / 32;
  value = warp_reduce(value, combine);
  if constexpr (warps > 1) {
    __shared__ T partial[warps];
    __syncthreads();  // an earlier call may still be read
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int w = 1; w < warps; ++w) value = combine(value, partial[w]);
  }
  return value;
}
template <int threads, class T>
__device__ T block_sum(T value) {
  return block_reduce<threads>(value, Sum{});
}
template <int threads, class T>
__device__ T block_max(T value) {
  return block_reduce<threads>(value, Maximum{});
}
template <int threads, class T>
__device__ T block_min(T value) {
  return block_reduce<threads>(value, Minimum{});
}

}  // namespace kindred::cuda
