#pragma once
// Bound by memory: a byte is read and a number written. A block takes the table into shared memory
// once for 8192 values.

#include <cstdint>

#include <kindred/kernels/cuda/launch.cuh>
#include <kindred/kernels/normalize_images.hpp>

namespace kindred::cuda {

inline constexpr int normalize_images_threads = 256, normalize_images_rounds = 8;

template <int width, class T>
__global__ void __launch_bounds__(normalize_images_threads)
    normalize_images_kernel(std::int64_t n, const std::uint8_t* pixels, const PixelTable table,
                            T* images) {
  constexpr int threads = normalize_images_threads, values = 256 * 3;
  __shared__ float value[values];
  for (int i = static_cast<int>(threadIdx.x); i < values; i += threads) value[i] = table.value[i];
  __syncthreads();
  const std::int64_t chunk = std::int64_t{normalize_images_rounds} * threads * width;
  const std::int64_t begin = blockIdx.x * chunk, end = begin + chunk < n ? begin + chunk : n;
  for (std::int64_t i = begin + threadIdx.x * width; i < end; i += threads * width) {
    const auto in = load_pack<width>(pixels + i);
    Pack<T, width> out;
    int channel = static_cast<int>(remainder(i, 3));
    for (int j = 0; j < width; ++j) {
      out.value[j] = static_cast<T>(value[3 * in.value[j] + channel]);
      channel = channel == 2 ? 0 : channel + 1;
    }
    store_pack<width>(images + i, out);
  }
}

template <class T>
void normalize_images(Context& ctx, std::int64_t n, const std::uint8_t* pixels,
                      const PixelTable& table, T* images) {
  constexpr int width = pack_width<T>;
  constexpr std::int64_t per_block = normalize_images_rounds * normalize_images_threads;
  static_assert(sizeof(PixelTable) + 64 <= 4096, "beyond what a kernel takes as arguments");
  if (n % width == 0 && aligned_for_packs(pixels, images))
    ctx.launch("normalize_images", grid_extent(divide_up(n, per_block * width)),
               block<normalize_images_threads>, normalize_images_kernel<width, T>, n, pixels, table,
               images);
  else
    ctx.launch("normalize_images", grid_extent(divide_up(n, per_block)),
               block<normalize_images_threads>, normalize_images_kernel<1, T>, n, pixels, table,
               images);
}

}  // namespace kindred::cuda
