#pragma once
// The product of two operands that need not be matrices in memory:
//   c(i, j) = sum over p of a(i, p) b(j, p).
// An operand has lines, i or j, and a depth, p. It says how an element is read, so that
// convolutions multiply without an unfolded copy of the image, and in which direction neighbours
// lie, so that neighbouring threads read them. One block computes one tile of c; the tiles of both
// operands lie in shared memory, those of the next step in registers meanwhile. Sums are in the
// order of p.

#include <algorithm>
#include <cstdint>

#include <kindred/kernels/cuda/bfloat16.cuh>

namespace kindred::cuda {

/// A row-major matrix [lines, depth]; its elements may be BF16.
template <class T>
struct MatrixRows {
  static constexpr bool along_depth = true;  ///< neighbours in memory differ in p
  const T* data;
  std::int64_t stride;
  __device__ const T* line(std::int64_t i) const { return data + i * stride; }
  __device__ ComputeOf<T> at(const T* line, std::int64_t p) const { return widened(line[p]); }
};
/// A row-major matrix [depth, lines].
template <class T>
struct MatrixColumns {
  static constexpr bool along_depth = false;
  const T* data;
  std::int64_t stride;
  __device__ const T* line(std::int64_t i) const { return data + i; }
  __device__ ComputeOf<T> at(const T* line, std::int64_t p) const {
    return widened(line[p * stride]);
  }
};

/// v with the last `bits` bits of its mantissa rounded away, to the nearest, of two to the even
/// one; 0 bits leave it as it is.
__device__ inline float round_mantissa(float v, int bits) {
  if (bits == 0 || v - v != 0) return v;  // not finite
  const unsigned word = static_cast<unsigned>(__float_as_int(v)), unit = 1u << bits;
  const unsigned rounded = word + unit / 2 - 1 + (word >> bits & 1u);
  return __int_as_float(static_cast<int>(rounded & ~(unit - 1)));
}
__device__ inline double round_mantissa(double v, int) { return v; }
/// How many of the 23 bits a mode rounds away.
inline int dropped_bits(MathMode mode) {
  return mode == MathMode::bf16 ? 16 : mode == MathMode::tf32 ? 13 : 0;
}

inline constexpr int product_threads = 256;  ///< 16 x 16
/// Of a tile of 16 `per` lines: what fits into registers beside per x per sums.
template <int per>
inline constexpr int product_depth = per == 8 ? 8 : 16;

/// This thread's part of an operand's tile of `size` lines: what it loads and where that goes.
template <class T, class Operand, int size, int depth>
class TileLoader {
 public:
  __device__ TileLoader(const Operand& operand, std::int64_t first, std::int64_t lines)
      : operand_(operand), valid_(0) {
    for (int i = 0; i < own_lines; ++i) {
      const std::int64_t l = first + line_of(i);
      if (l < lines) valid_ |= 1u << i;
      line_[i] = operand.line(l < lines ? l : first);
    }
  }
  /// Reads the elements from depth p on, rounded; 0 from `end` on and beyond the last line.
  __device__ void load(int p, int end, int dropped) {
    for (int i = 0; i < count; ++i) {
      const int line = own_lines == 1 ? 0 : i;
      const int at = p + depth_of(i);
      value_[i] = at < end && (valid_ >> line & 1u)
                      ? round_mantissa(operand_.at(line_[line], at), dropped)
                      : T(0);
    }
  }
  __device__ void store(T (*tile)[size + 4]) const {
    for (int i = 0; i < count; ++i) tile[depth_of(i)][line_of(own_lines == 1 ? 0 : i)] = value_[i];
  }

 private:
  static constexpr int count = size * depth / product_threads;
  static constexpr int own_lines = Operand::along_depth ? count : 1;
  static_assert(product_threads % size == 0 && own_lines <= 32);
  using Line = decltype(std::declval<const Operand&>().line(0));

  __device__ static int line_of(int i) {
    const int t = static_cast<int>(threadIdx.x);
    return Operand::along_depth ? t / depth + i * (product_threads / depth) : t % size;
  }
  __device__ static int depth_of(int i) {
    const int t = static_cast<int>(threadIdx.x);
    return Operand::along_depth ? t % depth : t / size + i * (product_threads / size);
  }

  const Operand& operand_;
  unsigned valid_;
  Line line_[own_lines];
  T value_[count];
};

/// `per` x `per` sums for each thread: rows and columns in groups of 4, 64 apart.
template <int per, class T, class A, class B, class Store>
__global__ void __launch_bounds__(product_threads, per == 8 ? 1 : 2)
    tile_product_kernel(std::int64_t m, std::int64_t n, int k, int split_depth, int dropped,
                        const A a, const B b, const Store store) {
  constexpr int size = 16 * per, depth = product_depth<per>;
  __shared__ __align__(16) T tile_a[depth][size + 4];
  __shared__ __align__(16) T tile_b[depth][size + 4];
  const int row = static_cast<int>(threadIdx.x) / 16 * 4;
  const int column = static_cast<int>(threadIdx.x) % 16 * 4;
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * size;
  const std::int64_t first_column = static_cast<std::int64_t>(blockIdx.y) * size;
  const int begin = static_cast<int>(blockIdx.z) * split_depth;
  const int end = k - begin > split_depth ? begin + split_depth : k;
  T sum[per][per] = {};
  TileLoader<T, A, size, depth> load_a(a, first_row, m);
  TileLoader<T, B, size, depth> load_b(b, first_column, n);
  load_a.load(begin, end, dropped);
  load_b.load(begin, end, dropped);
  for (int p = begin; p < end; p += depth) {
    load_a.store(tile_a);
    load_b.store(tile_b);
    __syncthreads();
    if (p + depth < end) {
      load_a.load(p + depth, end, dropped);
      load_b.load(p + depth, end, dropped);
    }
#pragma unroll
    for (int d = 0; d < depth; ++d) {
      T u[per], v[per];
#pragma unroll
      for (int i = 0; i < per; ++i) {
        u[i] = tile_a[d][i / 4 * 64 + row + i % 4];
        v[i] = tile_b[d][i / 4 * 64 + column + i % 4];
      }
#pragma unroll
      for (int i = 0; i < per; ++i)
#pragma unroll
        for (int j = 0; j < per; ++j) sum[i][j] += u[i] * v[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < per; ++i)
#pragma unroll
    for (int j = 0; j < per; ++j) {
      const std::int64_t r = first_row + i / 4 * 64 + row + i % 4;
      const std::int64_t c = first_column + j / 4 * 64 + column + j % 4;
      if (r < m && c < n) store(r, c, sum[i][j]);
    }
}

/// Writes the sums of one split; a second kernel adds them up.
template <class T>
struct StorePartial {
  T* partial;
  std::int64_t m, n;
  __device__ void operator()(std::int64_t i, std::int64_t j, T sum) const {
    partial[(blockIdx.z * m + i) * n + j] = sum;
  }
};
template <class T, class Store>
struct AddSplits {
  const T* partial;
  std::int64_t m, n, splits;
  Store store;
  __device__ void operator()(std::int64_t e) const {
    T sum = partial[e];
    for (std::int64_t s = 1; s < splits; ++s) sum += partial[s * m * n + e];
    store(quotient(e, n), remainder(e, n), sum);
  }
};

template <int per, class T, class A, class B, class Store>
void launch_tile_product(Context& ctx, const char* name, std::int64_t m, std::int64_t n,
                         std::int64_t k, std::int64_t splits, MathMode mode, const A& a, const B& b,
                         const Store& store) {
  constexpr std::int64_t size = 16 * per;
  const std::int64_t depth =
      divide_up(divide_up(k, splits), std::int64_t{product_depth<per>}) * product_depth<per>;
  const dim3 grid(grid_extent(divide_up(m, size)), grid_extent(divide_up(n, size), grid_limit_yz),
                  static_cast<unsigned>(splits));
  ctx.launch(name, grid, block<product_threads>, tile_product_kernel<per, T, A, B, Store>, m, n,
             static_cast<int>(k), static_cast<int>(depth), dropped_bits(mode), a, b, store);
}

/// store(i, j, c(i, j)) for all i < m, j < n, of factors rounded as `mode` says. Where c has few
/// tiles and the sum is long, its depth is split over blocks: by the extents alone, so that the
/// bits are always the same.
template <class T, class A, class B, class Store>
void tile_product(Context& ctx, const char* name, MathMode mode, std::int64_t m, std::int64_t n,
                  std::int64_t k, const A& a, const B& b, const Store& store) {
  if (m == 0 || n == 0) return;
  if (k > 0x7FFFFF00) throw ShapeError(text(name, ": a sum over ", k, " products is too long"));
  const bool large = sizeof(T) == 4 && m >= 128 && n >= 128;
  const std::int64_t size = large ? 128 : 64;
  const std::int64_t tiles = divide_up(m, size) * divide_up(n, size);
  constexpr std::int64_t enough_tiles = 256, least_depth = 256;
  const std::int64_t splits =
      std::clamp<std::int64_t>(std::min(enough_tiles / tiles, k / least_depth), 1, 128);
  const auto launch = [&](const auto& to) {
    using To = std::decay_t<decltype(to)>;
    if constexpr (sizeof(T) == 4)
      if (large)
        return launch_tile_product<8, T, A, B, To>(ctx, name, m, n, k, splits, mode, a, b, to);
    launch_tile_product<4, T, A, B, To>(ctx, name, m, n, k, splits, mode, a, b, to);
  };
  if (splits == 1) return launch(store);
  auto partial = ctx.make<T>({splits, m, n}, "parts of a product");
  launch(StorePartial<T>{partial.data, m, n});
  for_each(ctx, name, m * n, AddSplits<T, Store>{partial.data, m, n, splits, store});
}

}  // namespace kindred::cuda
