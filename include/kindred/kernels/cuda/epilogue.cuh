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

/// In place, for a product that something else has computed.
template <class T, class Y>
struct ApplyEpilogue {
  Epilogue<T> epilogue;
  std::int64_t columns;
  Y* y;
  __device__ void operator()(std::int64_t i) const {
    y[i] = stored_as<Y>(epilogue(remainder(i, columns), widened(y[i])));
  }
};

}  // namespace kindred::cuda
