#pragma once
// Grids, and loops over flat arrays.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <kindred/core/cuda_context.cuh>

namespace kindred::cuda {

/// ceil(a / b) for a >= 0, b > 0.
template <class I>
__host__ __device__ constexpr I divide_up(I a, I b) {
  return (a + b - 1) / b;
}

/// `blocks` as an extent of a grid; throws ShapeError beyond what a launch takes, which is less in
/// y and z than in x.
inline unsigned grid_extent(std::int64_t blocks, std::int64_t limit = 0x7FFFFFFF) {
  if (blocks > limit)
    throw ShapeError(text("a kernel would need ", blocks, " blocks; a launch takes ", limit));
  return static_cast<unsigned>(blocks);
}
inline constexpr std::int64_t grid_limit_yz = 65535;

/// The index of this thread among all threads of a one-dimensional grid.
__device__ inline std::int64_t flat_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

/// i / n and i % n for i >= 0, 0 < n < 2^32. Where i fits, in 32 bits: 64 bits take several times
/// longer.
__device__ inline std::int64_t quotient(std::int64_t i, std::int64_t n) {
  return i >> 32 == 0 ? static_cast<std::uint32_t>(i) / static_cast<std::uint32_t>(n) : i / n;
}
__device__ inline std::int64_t remainder(std::int64_t i, std::int64_t n) {
  return i >> 32 == 0 ? static_cast<std::uint32_t>(i) % static_cast<std::uint32_t>(n) : i % n;
}

/// *p = v, for any number of threads at once that all have the same v.
template <class T>
__device__ void store_same(T* p, T v) {
#ifdef __CUDA_ARCH__
  *p = v;
#else
  __atomic_store(p, &v, __ATOMIC_RELAXED);
#endif
}

/// Threads of a block of an elementwise kernel.
inline constexpr int elementwise_threads = 256;

template <class Body>
__global__ void __launch_bounds__(elementwise_threads)
    for_each_kernel(std::int64_t n, const Body body) {
  const std::int64_t i = flat_index();
  if (i < n) body(i);
}

/// Calls body(i) on the device for i in [0, n); `body` is a struct with a __device__ operator().
template <class Body>
void for_each(Context& ctx, const char* name, std::int64_t n, const Body& body) {
  const std::int64_t blocks = divide_up<std::int64_t>(n, elementwise_threads);
  ctx.launch(name, grid_extent(blocks), block<elementwise_threads>, for_each_kernel<Body>, n, body);
}

/// `width` neighbouring elements, moved by one instruction.
template <class T, int width>
struct alignas(sizeof(T) * width) Pack {
  T value[width];
};
/// Elements in the widest access, 16 bytes.
template <class T>
inline constexpr int pack_width = 16 / static_cast<int>(sizeof(T));

template <int width, class T>
__device__ Pack<std::remove_const_t<T>, width> load_pack(T* p) {
  return *reinterpret_cast<const Pack<std::remove_const_t<T>, width>*>(p);
}
/// Does nothing where p is an input.
template <int width, class T>
__device__ void store_pack([[maybe_unused]] T* p,
                           [[maybe_unused]] const Pack<std::remove_const_t<T>, width>& pack) {
  if constexpr (!std::is_const_v<T>) *reinterpret_cast<Pack<T, width>*>(p) = pack;
}
template <class... T>
bool aligned_for_packs(const T*... p) {
  return ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

/// f(array[i]...) for the `width` elements from i on.
template <int width, class F, class... T>
__device__ void transform_pack(std::int64_t i, const F& f, T*... arrays) {
  const auto apply = [&](auto... packs) {
    for (int j = 0; j < width; ++j) f(packs.value[j]...);
    (store_pack<width>(arrays + i, packs), ...);
  };
  apply(load_pack<width>(arrays + i)...);
}

template <int width, class F, class... T>
__global__ void __launch_bounds__(elementwise_threads)
    transform_kernel(std::int64_t n, const F f, T*... arrays) {
  std::int64_t i = flat_index() * width;
  if (i + width <= n)
    transform_pack<width>(i, f, arrays...);
  else
    for (; i < n; ++i) transform_pack<1>(i, f, arrays...);
}

/// Calls f(y, a, ...) on the device with the i-th element of every array, for i in [0, n). `f` is a
/// struct with a const __device__ operator() that takes a T& of each T* and a T of each const T*.
/// Arrays may be the same. An array that f only assigns is not read.
template <class F, class First, class... T>
void transform(Context& ctx, const char* name, std::int64_t n, const F& f, First* first,
               T*... rest) {
  constexpr int width = std::min({pack_width<First>, pack_width<T>...});
  const std::int64_t packs = divide_up<std::int64_t>(n, width);
  if (aligned_for_packs(first, rest...))
    ctx.launch(name, grid_extent(divide_up<std::int64_t>(packs, elementwise_threads)),
               block<elementwise_threads>, transform_kernel<width, F, First, T...>, n, f, first,
               rest...);
  else
    ctx.launch(name, grid_extent(divide_up<std::int64_t>(n, elementwise_threads)),
               block<elementwise_threads>, transform_kernel<1, F, First, T...>, n, f, first,
               rest...);
}

}  // namespace kindred::cuda
