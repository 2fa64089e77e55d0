#pragma once
// What follows a product, per column: y = act(scale c + shift).

#include <cstdint>

#include <kindred/kernels/activation.hpp>
#include <kindred/kernels/cuda/launch.cuh>

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

template <class T>
struct StoreWithEpilogue {
  Epilogue<T> epilogue;
  T* y;
  std::int64_t columns;
  __device__ void operator()(std::int64_t i, std::int64_t j, T sum) const {
    y[i * columns + j] = epilogue(j, sum);
  }
};

/// In place, for a product that something else has computed.
template <class T>
struct ApplyEpilogue {
  Epilogue<T> epilogue;
  std::int64_t columns;
  T* y;
  __device__ void operator()(std::int64_t i) const { y[i] = epilogue(remainder(i, columns), y[i]); }
};

}  // namespace kindred::cuda
