#pragma once
// Matrix products: by cuBLAS where it is there, by tiles of our own otherwise, and for narrow
// products with an epilogue.

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kindred/kernels/cuda/epilogue.cuh>
#include <kindred/kernels/cuda/sum.cuh>
#include <kindred/kernels/cuda/tile_product.cuh>
#include <kindred/kernels/transpose.hpp>

namespace kindred::cuda {

template <class T>
struct StoreMatrix {
  T* c;
  std::int64_t stride;
  bool accumulate;
  __device__ void operator()(std::int64_t i, std::int64_t j, T sum) const {
    T& out = c[i * stride + j];
    out = accumulate ? out + sum : sum;
  }
};

#ifdef KINDRED_HAS_CUBLAS
inline cublasComputeType_t compute_type(const Context& ctx, float) {
  switch (ctx.math()) {
    case MathMode::tf32:
      return CUBLAS_COMPUTE_32F_FAST_TF32;
    case MathMode::bf16:
      return CUBLAS_COMPUTE_32F_FAST_16BF;
    case MathMode::fp32:
      break;
  }
  return CUBLAS_COMPUTE_32F;
}
inline cublasComputeType_t compute_type(const Context&, BFloat16) { return CUBLAS_COMPUTE_32F; }
inline cublasComputeType_t compute_type(const Context&, double) { return CUBLAS_COMPUTE_64F; }

template <class E>
inline constexpr cudaDataType_t data_type = std::is_same_v<E, BFloat16> ? CUDA_R_16BF
                                            : std::is_same_v<E, float>  ? CUDA_R_32F
                                                                        : CUDA_R_64F;

/// C = A B is, for cuBLAS, whose matrices are column-major, C' = B' A'. F and E: see its table of
/// types; both the same, or BF16 factors and a product in float.
template <class F, class E>
void cublas_product(Context& ctx, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n,
                    std::int64_t k, const F* a, std::int64_t lda, const F* b, std::int64_t ldb,
                    E* c, std::int64_t ldc, bool accumulate) {
  if (ctx.planning() || m == 0 || n == 0) return;
  const auto extent = [](std::int64_t e) {
    if (e > std::numeric_limits<int>::max())
      throw ShapeError(text("gemm: an extent of ", e, "; cuBLAS takes at most 2^31 - 1"));
    return static_cast<int>(e);
  };
  // Of an empty factor, too, cuBLAS wants a distance of 1 at least.
  const auto distance = [&](std::int64_t d) { return extent(std::max<std::int64_t>(d, 1)); };
  const auto operation = [](Transpose t) { return t == Transpose::no ? CUBLAS_OP_N : CUBLAS_OP_T; };
  const ComputeOf<F> one = 1, beta = accumulate ? 1 : 0;
  check(cublasGemmEx(ctx.cublas(), operation(tb), operation(ta), extent(n), extent(m), extent(k),
                     &one, b, data_type<F>, distance(ldb), a, data_type<F>, distance(lda), &beta, c,
                     data_type<E>, distance(ldc), compute_type(ctx, F()), CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}
#endif

/// C = op(A) op(B), or C += op(A) op(B): op(A) [m,k], op(B) [k,n], C [m,n]; lda, ldb and ldc are
/// the distances of rows in memory.
template <class T>
void gemm(Context& ctx, Transpose ta, Transpose tb, std::int64_t m, std::int64_t n, std::int64_t k,
          const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T* c, std::int64_t ldc,
          bool accumulate) {
#ifdef KINDRED_HAS_CUBLAS
  cublas_product(ctx, ta, tb, m, n, k, a, lda, b, ldb, c, ldc, accumulate);
#else
  const StoreMatrix<T> store{c, ldc, accumulate};
  const auto with_b = [&](const auto& operand_a) {
    if (tb == Transpose::no)
      tile_product<T>(ctx, "gemm", ctx.math(), m, n, k, operand_a, MatrixColumns<T>{b, ldb}, store);
    else
      tile_product<T>(ctx, "gemm", ctx.math(), m, n, k, operand_a, MatrixRows<T>{b, ldb}, store);
  };
  if (ta == Transpose::no)
    with_b(MatrixRows<T>{a, lda});
  else
    with_b(MatrixColumns<T>{a, lda});
#endif
}

/// C = op(A) op(B), or C += op(A) op(B), of whole matrices without gaps, of which some may be BF16.
/// If one is, both factors are rounded to it in every math mode, and the sum is in float; with
/// cuBLAS a factor in float costs a pass over it then.
template <Transpose ta, Transpose tb, class A, class B, class C>
void map_product(Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const A* a,
                 const B* b, C* c, bool accumulate) {
  constexpr bool plain_a = ta == Transpose::no, plain_b = tb == Transpose::no;
  const std::int64_t lda = plain_a ? k : m, ldb = plain_b ? n : k;
  if constexpr (!any_bfloat16<A, B, C>) {
    gemm(ctx, ta, tb, m, n, k, a, lda, b, ldb, c, n, accumulate);
  } else {
#ifdef KINDRED_HAS_CUBLAS
    Tensor<BFloat16> of_a, of_b;
    const BFloat16* const factor_a = converted(ctx, m * k, a, of_a);
    const BFloat16* const factor_b = converted(ctx, k * n, b, of_b);
    cublas_product(ctx, ta, tb, m, n, k, factor_a, lda, factor_b, ldb, c, n, accumulate);
#else
    using OperandA = std::conditional_t<plain_a, MatrixRows<A>, MatrixColumns<A>>;
    using OperandB = std::conditional_t<plain_b, MatrixColumns<B>, MatrixRows<B>>;
    tile_product<C>(ctx, "gemm", MathMode::bf16, m, n, k, OperandA{a, lda}, OperandB{b, ldb},
                    StoreMatrix<C>{c, n, accumulate});
#endif
  }
}

#ifdef KINDRED_HAS_CUBLAS
/// Whether sums of `depth` products and their epilogue take less time by tiles of our own than by
/// cuBLAS and a pass over the result, which reads and writes `bytes` an element. In units of what
/// tiles compute in the time of a byte (of such cards: 6 operations on an A100, 12 on an H100, if
/// they reach half the peak of FP32):
///   2 depth (1 - own rate / rate of cuBLAS) < 2 bytes * operations.
/// cuBLAS is twice as fast in FP32; by tensor cores its time does not count.
/// (cuBLASLt has epilogues with a bias, ReLU and GELU. Networks here have hard-swish behind most
/// products, which it has not, and training has batch statistics.)
inline bool fuses_in_tiles(MathMode mode, std::int64_t depth, std::int64_t bytes) {
  constexpr std::int64_t operations = 8;
  return depth < bytes * operations * (mode == MathMode::fp32 ? 2 : 1);
}
#endif

/// y = act(scale (x w) + shift) for x [rows,in], w [in,out], y [rows,out]; scale and shift of the
/// columns may be null. x and y may be BF16, see map_product. y is rounded after the epilogue;
/// where cuBLAS computes the product and the epilogue is a pass of its own, before it as well.
template <class X, class T, class Y>
void product_with_epilogue(Context& ctx, const char* name, std::int64_t rows, std::int64_t in,
                           std::int64_t out, const X* x, const T* w, const Epilogue<T>& epilogue,
                           Y* y) {
  const MathMode mode = any_bfloat16<X, Y> ? MathMode::bf16 : ctx.math();
#ifdef KINDRED_HAS_CUBLAS
  if (epilogue.does_nothing() || !fuses_in_tiles(mode, in, sizeof(Y))) {
    map_product<Transpose::no, Transpose::no>(ctx, rows, out, in, x, w, y, false);
    if (!epilogue.does_nothing()) apply_epilogue(ctx, name, rows, out, epilogue, y);
    return;
  }
#endif
  tile_product<T>(ctx, name, mode, rows, out, in, MatrixRows<X>{x, in}, MatrixColumns<T>{w, out},
                  StoreWithEpilogue<T, Y>{epilogue, y, out});
}

/// y = x w + bias: x [batch,in], w [in,out], y [batch,out]; bias may be null.
template <class T>
void linear_forward(Context& ctx, std::int64_t batch, std::int64_t in, std::int64_t out, const T* x,
                    const T* w, const T* bias, T* y) {
  product_with_epilogue(ctx, "linear_forward", batch, in, out, x, w, Epilogue<T>{nullptr, bias}, y);
}

/// A block sums 32 columns of a chunk of rows; its rows of threads share them.
inline constexpr int add_rows_threads = 8;

template <class T>
__global__ void __launch_bounds__(32 * add_rows_threads)
    add_rows_kernel(std::int64_t rows, std::int64_t columns, std::int64_t length, const T* x,
                    T* partial) {
  __shared__ T part[add_rows_threads][32];
  const std::int64_t j = static_cast<std::int64_t>(blockIdx.x) * 32 + threadIdx.x;
  const std::int64_t begin = blockIdx.y * length;
  const std::int64_t end = begin + length < rows ? begin + length : rows;
  T own = 0;
  if (j < columns)
    for (std::int64_t i = begin + threadIdx.y; i < end; i += add_rows_threads)
      own += x[i * columns + j];
  part[threadIdx.y][threadIdx.x] = own;
  __syncthreads();
  if (threadIdx.y != 0 || j >= columns) return;
  for (int row = 1; row < add_rows_threads; ++row) own += part[row][threadIdx.x];
  partial[blockIdx.y * columns + j] = own;
}

/// sum[j] += sum over i of x[i,j]: x [rows,columns].
template <class T>
void add_rows(Context& ctx, std::int64_t rows, std::int64_t columns, const T* x, T* sum) {
  const std::int64_t chunks = std::clamp<std::int64_t>(rows / 256, 1, 64);
  auto partial = ctx.make<T>({chunks, columns}, "partial sums");
  const dim3 grid(grid_extent(divide_up<std::int64_t>(columns, 32)), static_cast<unsigned>(chunks));
  ctx.launch("add_rows", grid, block<32, add_rows_threads>, add_rows_kernel<T>, rows, columns,
             divide_up(rows, chunks), x, partial.data);
  for_each(ctx, "add_rows", columns,
           AddSplits<T, StoreMatrix<T>>{partial.data, 1, columns, chunks, {sum, columns, true}});
}

}  // namespace kindred::cuda
