#pragma once
// What follows a product, per column: y = act(scale c + shift).

#include <cstdint>

#include <kindred/kernels/activation.hpp>
#include <kindred/kernels/cuda/bfloat16.cuh>

namespace kindred::cuda {

/// scale and shift may be null.
template <class T>
struct Epilogue {
  const T *scale = nullptr, *shift = nullptr;
  Activation act = Activation::identity;
  bool does_nothing() const {
    return scale == nullptr && shift == nullptr && act == Activation::identity;
  }
  __device__ T operator()(std::int64_t column, T value) const {
    if (scale != nullptr) value *= scale[column];
    if (shift != nullptr) value += shift[column];
    return activate(act, value);
  }
};

/// To the columns of y from `first` on; y may be BF16.
template <class T, class Y>
struct StoreWithEpilogue {
  Epilogue<T> epilogue;
  Y* y;
  std::int64_t columns, first = 0;
  __device__ void operator()(std::int64_t i, std::int64_t j, T sum) const {
    y[i * columns + first + j] = stored_as<Y>(epilogue(first + j, sum));
  }
};

template <int width, class T, class Y>
__global__ void __launch_bounds__(elementwise_threads)
    apply_epilogue_kernel(std::int64_t n, std::int64_t columns, const Epilogue<T> epilogue, Y* y) {
  const std::int64_t i = flat_index() * width;
  if (i >= n) return;
  const std::int64_t column = remainder(i, columns);
  auto v = load_widened<width>(y + i);
#pragma unroll
  for (int j = 0; j < width; ++j) v.value[j] = epilogue(column + j, v.value[j]);
  store_rounded<width>(y + i, v);
}

/// In place on y [rows,columns], for a product that something else has computed. Bound by memory:
/// reads and writes y.
template <class T, class Y>
void apply_epilogue(Context& ctx, const char* name, std::int64_t rows, std::int64_t columns,
                    const Epilogue<T>& epilogue, Y* y) {
  const std::int64_t n = rows * columns;
  const auto apply = [&](auto constant) {
    constexpr int width = decltype(constant)::value;
    ctx.launch(name, grid_extent(divide_up<std::int64_t>(n, elementwise_threads * width)),
               block<elementwise_threads>, apply_epilogue_kernel<width, T, Y>, n, columns, epilogue,
               y);
  };
  if (columns % pack_width<Y> == 0 && aligned_for_packs(y))
    apply(std::integral_constant<int, pack_width<Y>>{});
  else
    apply(std::integral_constant<int, 1>{});
}

}  // namespace kindred::cuda
