#pragma once
// Of cuBLAS what the context and the products of this library use, on the processor: so that the
// code around it runs in tests. It refuses what cuBLAS refuses: pairs of types that it has not, and
// rows that overlap.

#include <bit>
#include <cmath>

#include <cuda_runtime.h>

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_NOT_SUPPORTED = 15
};
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16BF = 14 };
enum cublasComputeType_t {
  CUBLAS_COMPUTE_32F,
  CUBLAS_COMPUTE_32F_FAST_16BF,
  CUBLAS_COMPUTE_32F_FAST_TF32,
  CUBLAS_COMPUTE_64F
};
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };

namespace emulation {

struct Blas {
  Stream* stream = nullptr;
};

/// v with the last `bits` bits of its mantissa rounded away, to the nearest, of two to the even
/// one.
inline float without_bits(float v, int bits) {
  if (bits == 0 || !std::isfinite(v)) return v;
  const auto word = std::bit_cast<unsigned>(v), unit = 1u << bits;
  return std::bit_cast<float>((word + unit / 2 - 1 + (word >> bits & 1u)) & ~(unit - 1));
}

/// A column-major matrix of one of the types.
struct Matrix {
  void* data;
  cudaDataType_t type;
  long long distance;
  double get(long long i, long long j) const {
    const long long at = i + j * distance;
    if (type == CUDA_R_64F) return static_cast<const double*>(data)[at];
    if (type == CUDA_R_32F) return static_cast<double>(static_cast<const float*>(data)[at]);
    const unsigned upper = static_cast<const unsigned short*>(data)[at];
    return static_cast<double>(std::bit_cast<float>(upper << 16));
  }
  void set(long long i, long long j, double v) const {
    const long long at = i + j * distance;
    if (type == CUDA_R_64F)
      static_cast<double*>(data)[at] = v;
    else if (type == CUDA_R_32F)
      static_cast<float*>(data)[at] = static_cast<float>(v);
    else
      static_cast<unsigned short*>(data)[at] = static_cast<unsigned short>(
          std::bit_cast<unsigned>(without_bits(static_cast<float>(v), 16)) >> 16);
  }
};

inline bool has_types(cudaDataType_t factors, cudaDataType_t product, cublasComputeType_t compute) {
  if (factors == CUDA_R_64F) return product == CUDA_R_64F && compute == CUBLAS_COMPUTE_64F;
  if (factors == CUDA_R_32F) return product == CUDA_R_32F && compute != CUBLAS_COMPUTE_64F;
  return product != CUDA_R_64F && compute == CUBLAS_COMPUTE_32F;
}

}  // namespace emulation

using cublasHandle_t = emulation::Blas*;

inline const char* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
         : status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                                 : "CUBLAS_STATUS_NOT_SUPPORTED";
}
inline cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  emulation::Runtime::get().forbid_in_graph("cublasCreate while a graph is recorded");
  *handle = new emulation::Blas;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  emulation::Runtime::get().drain();
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetWorkspace(cublasHandle_t, void*, std::size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

/// C = alpha op(A) op(B) + beta C.
inline cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t of_a,
                                   cublasOperation_t of_b, int m, int n, int k, const void* alpha,
                                   const void* a, cudaDataType_t a_type, int lda, const void* b,
                                   cudaDataType_t b_type, int ldb, const void* beta, void* c,
                                   cudaDataType_t c_type, int ldc, cublasComputeType_t compute,
                                   cublasGemmAlgo_t) {
  using emulation::Matrix;
  if (lda < std::max(1, of_a == CUBLAS_OP_N ? m : k) ||
      ldb < std::max(1, of_b == CUBLAS_OP_N ? k : n) || ldc < std::max(1, m))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (a_type != b_type || !emulation::has_types(a_type, c_type, compute))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const auto number = [compute](const void* p) {
    return compute == CUBLAS_COMPUTE_64F ? *static_cast<const double*>(p)
                                         : static_cast<double>(*static_cast<const float*>(p));
  };
  const double factor = number(alpha), kept = number(beta);
  const Matrix A{const_cast<void*>(a), a_type, lda}, B{const_cast<void*>(b), b_type, ldb},
      C{c, c_type, ldc};
  const int dropped = compute == CUBLAS_COMPUTE_32F_FAST_16BF   ? 16
                      : compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? 13
                                                                : 0;
  const auto rounded = [dropped](double v) {
    return dropped == 0
               ? v
               : static_cast<double>(emulation::without_bits(static_cast<float>(v), dropped));
  };
  emulation::Runtime::get().submit(
      [=] {
        for (int j = 0; j < n; ++j)
          for (int i = 0; i < m; ++i) {
            double sum = 0;
            for (int p = 0; p < k; ++p)
              sum += rounded(of_a == CUBLAS_OP_N ? A.get(i, p) : A.get(p, i)) *
                     rounded(of_b == CUBLAS_OP_N ? B.get(p, j) : B.get(j, p));
            C.set(i, j, factor * sum + (kept == 0 ? 0 : kept * C.get(i, j)));
          }
      },
      handle->stream);
  return CUBLAS_STATUS_SUCCESS;
}
