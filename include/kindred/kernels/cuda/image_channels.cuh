#pragma once
// Loops over images [B,P,C] (P = pixels) beside one value per image and channel [B,C].

#include <cstdint>

#include <kindred/kernels/cuda/launch.cuh>

namespace kindred::cuda {

template <int width, class F, class S, class... T>
__global__ void __launch_bounds__(elementwise_threads)
    transform_images_kernel(std::int64_t image, std::int64_t channels, const F f, const S* s,
                            T*... arrays) {
  const std::int64_t i = flat_index() * width;
  if (i >= image) return;
  // 32 bits: a 64-bit remainder would take longer than the memory.
  const unsigned c = static_cast<unsigned>(i) % static_cast<unsigned>(channels);
  const std::int64_t b = blockIdx.y, at = b * image + i;
  const auto apply = [&](const auto& factors, auto... packs) {
    for (int j = 0; j < width; ++j) f(factors.value[j], packs.value[j]...);
    (store_pack<width>(arrays + at, packs), ...);
  };
  apply(load_pack<width>(s + b * channels + c), load_pack<width>(arrays + at)...);
}

/// f(s[b,c], array[b,p,c]...) for all b, p, c; see transform for what f takes.
template <class F, class S, class... T>
void transform_images(Context& ctx, const char* name, std::int64_t batch, std::int64_t pixels,
                      std::int64_t channels, const F& f, const S* s, T*... arrays) {
  const std::int64_t image = pixels * channels;
  if (image > 0x7FFFFFFF)
    throw ShapeError(
        text(name, ": an image of ", image, " elements; at most 2^31 - 1 are possible"));
  const auto grid = [&](int width) {
    return dim3(grid_extent(divide_up<std::int64_t>(image, elementwise_threads * width)),
                grid_extent(batch, grid_limit_yz));
  };
  constexpr int width = pack_width<S>;
  if (channels % width == 0 && aligned_for_packs(s, arrays...))
    ctx.launch(name, grid(width), block<elementwise_threads>,
               transform_images_kernel<width, F, S, T...>, image, channels, f, s, arrays...);
  else
    ctx.launch(name, grid(1), block<elementwise_threads>, transform_images_kernel<1, F, S, T...>,
               image, channels, f, s, arrays...);
}

/// A block sums 32 channels of an image; its rows of threads share the pixels.
inline constexpr int pixel_rows = 8;

template <class Term, class T>
__global__ void __launch_bounds__(32 * pixel_rows)
    sum_over_pixels_kernel(std::int64_t pixels, std::int64_t channels, const Term term, const T* s,
                           T factor, T* sum) {
  __shared__ T partial[pixel_rows][32];
  const std::int64_t b = blockIdx.y;
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x;
  T own = 0;
  if (c < channels) {
    const T of_channel = s != nullptr ? s[b * channels + c] : T(1);
    for (std::int64_t p = threadIdx.y; p < pixels; p += pixel_rows)
      own += term((b * pixels + p) * channels + c, of_channel);
  }
  partial[threadIdx.y][threadIdx.x] = own;
  __syncthreads();
  if (threadIdx.y != 0 || c >= channels) return;
  for (int row = 1; row < pixel_rows; ++row) own += partial[row][threadIdx.x];
  sum[b * channels + c] = factor * own;
}

/// sum[b,c] = factor sum_p term(index of [b,p,c], s[b,c]); s may be null and then counts as 1.
template <class Term, class T>
void sum_over_pixels(Context& ctx, const char* name, std::int64_t batch, std::int64_t pixels,
                     std::int64_t channels, const Term& term, const T* s, T factor, T* sum) {
  const dim3 grid(grid_extent(divide_up<std::int64_t>(channels, 32)),
                  grid_extent(batch, grid_limit_yz));
  ctx.launch(name, grid, block<32, pixel_rows>, sum_over_pixels_kernel<Term, T>, pixels, channels,
             term, s, factor, sum);
}

}  // namespace kindred::cuda
