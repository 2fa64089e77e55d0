#pragma once
// Bound by three or four matrix products of 2 B D C operations: cosines (once, or once per pass if
// they are too many to keep), gradient of the features, gradient of the centres. Between the
// products of a tile stands one kernel per pass, and what they hand to each other stays in the L2
// cache.
//
// A tile holds the products x_i/|x_i| . w_j, [centres of the tile][batch]: W is the left factor,
// neighbouring threads have neighbouring rows of the batch, and a sum over classes stays within a
// thread, a sum over the batch within a warp. Division by |w_j| is left to whoever reads the tile.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <kindred/kernels/cuda/check_labels.cuh>
#include <kindred/kernels/cuda/elementwise.cuh>
#include <kindred/kernels/cuda/gemm.cuh>
#include <kindred/kernels/cuda/pair_rows.cuh>
#include <kindred/kernels/margin_softmax.hpp>

namespace kindred::cuda {

/// How classes are cut into tiles, and the classes of a tile into slots, each with running sums of
/// its own for every row. Depends on the shape alone.
struct MarginTiles {
  std::int64_t batch, dim, classes, sub_centers;
  std::int64_t tile;  ///< classes of a tile
  std::int64_t tiles, slots;
  static constexpr std::int64_t slot = 64;  ///< classes of a tile that share a sum

  /// The products of a tile, and its centres, take `bytes` at most (but a slot at least).
  MarginTiles(std::int64_t b, std::int64_t d, std::int64_t c, std::int64_t k, std::int64_t element,
              std::int64_t bytes)
      : batch(b), dim(d), classes(c), sub_centers(k) {
    // Slots are an extent of a grid, which is bounded.
    const std::int64_t fit =
        std::min(bytes / element / std::max(batch, dim) / sub_centers, slot * grid_limit_yz);
    tile = std::min(classes, std::max(slot, fit / slot * slot));
    tiles = divide_up(classes, tile);
    slots = divide_up(tile, slot);
  }
  std::int64_t begin(std::int64_t i) const { return i * tile; }
  std::int64_t size(std::int64_t i) const { return std::min(tile, classes - i * tile); }
};
/// Both halves of a tile, and the gradients that one of them receives, fit into a cache of 50 MB.
inline constexpr std::int64_t margin_tile_bytes = std::int64_t{16} << 20;

/// The normalised batch and the inverse norms of the centres.
template <class T>
struct MarginInputs {
  Tensor<T> unit;             ///< [B,D] u
  Tensor<T> inverse_norms;    ///< [B] 1/|x_i|, 0 for a zero row
  Tensor<T> inverse_centres;  ///< [C K] 1/|w_j|, 0 for a zero row; filled tile by tile

  MarginInputs(Context& ctx, const MarginTiles& t)
      : unit(ctx.make<T>({t.batch, t.dim}, "unit features")),
        inverse_norms(ctx.make<T>({t.batch}, "inverse feature norms")),
        inverse_centres(ctx.make<T>({t.classes * t.sub_centers}, "inverse centre norms")) {}
};

/// What is known of every row of the batch: `fields` arrays of B elements.
template <class T>
struct MarginRows {
  T* norm;            ///< |x_i|
  T* target;          ///< c_iy
  T* log_sum_exp;     ///< over all classes
  T* label_gradient;  ///< dL_i/dc_iy / s
  T* norm_gradient;   ///< dL_i/d|x_i| / s
  T* values;          ///< the policy's row_values, one array after the other
  std::int64_t batch;
  static constexpr std::int64_t fields = 5;

  MarginRows(T* data, std::int64_t size)
      : norm(data),
        target(data + size),
        log_sum_exp(data + 2 * size),
        label_gradient(data + 3 * size),
        norm_gradient(data + 4 * size),
        values(data + 5 * size),
        batch(size) {}
};

/// The policy's values of a row; never an array of nothing.
template <class Policy, class T>
struct MarginRowValues {
  T value[Policy::row_values + 1];
  __device__ MarginRowValues(const MarginRows<T>& rows, std::int64_t i) : value{} {
    for (int k = 0; k < Policy::row_values; ++k) value[k] = rows.values[k * rows.batch + i];
  }
};

inline constexpr int margin_row_threads = 128;

/// One row per block: its norm, its unit vector, and in double the cosine to its label.
template <class T>
__global__ void __launch_bounds__(margin_row_threads)
    margin_row_kernel(std::int64_t dim, std::int64_t classes, std::int64_t sub_centers, const T* x,
                      const T* w, const std::int64_t* labels, MarginRows<T> rows, T* inverse_norms,
                      T* unit) {
  constexpr int threads = margin_row_threads;
  const std::int64_t i = blockIdx.x;
  const T* in = x + i * dim;
  const auto dot = [dim](const T* a, const T* b) {
    double sum = 0;
    for (std::int64_t d = threadIdx.x; d < dim; d += threads)
      sum += static_cast<double>(a[d]) * b[d];
    return block_sum<threads>(sum);
  };
  const double norm = std::sqrt(dot(in, in));
  for (std::int64_t d = threadIdx.x; d < dim; d += threads)
    unit[i * dim + d] = norm == 0 ? T(0) : static_cast<T>(in[d] / norm);
  if (threadIdx.x == 0) inverse_norms[i] = norm == 0 ? T(0) : static_cast<T>(1 / norm);
  if (labels == nullptr) return;
  double best = -std::numeric_limits<double>::infinity();
  for (std::int64_t k = 0; k < sub_centers; ++k) {
    const T* centre = w + (class_index(labels[i], classes) * sub_centers + k) * dim;
    const double size = std::sqrt(dot(centre, centre)), along = dot(in, centre);
    const double c = norm == 0 || size == 0 ? 0.0 : along / norm / size;
    if (!(c <= best)) best = c;  // NaN wins
  }
  if (threadIdx.x == 0) {
    rows.norm[i] = static_cast<T>(norm);
    rows.target[i] = static_cast<T>(best);
  }
}

/// The statistics of a batch: a policy's function on plain memory, hence a single thread.
template <class Policy, class T>
__global__ void __launch_bounds__(1) margin_batch_kernel(const Policy policy, MarginRows<T> rows) {
  policy.begin_batch(MarginBatch<T>{rows.batch, rows.norm, rows.target});
}

template <class Policy, class T>
struct MarginBeginRow {
  Policy policy;
  MarginRows<T> rows;
  std::int64_t classes;
  const std::int64_t* labels;
  __device__ void operator()(std::int64_t i) const {
    T values[Policy::row_values + 1] = {};
    const std::int64_t label = class_index(labels[i], classes);
    policy.begin_row(MarginSample<T>{i, label, rows.norm[i], rows.target[i]}, values);
    for (int k = 0; k < Policy::row_values; ++k) rows.values[k * rows.batch + i] = values[k];
  }
};

template <class Policy, class T>
struct MarginRowPass {
  Policy policy;
  MarginRows<T> rows;
  int pass;
  __device__ void operator()(std::int64_t i) const {
    policy.row_pass(pass, MarginBatch<T>{rows.batch, rows.norm, rows.target}, i, rows.values,
                    rows.batch);
  }
};

/// Unit features, cosines to the labels, and what the policy makes of the batch and of each row.
template <class Policy, class T>
void margin_begin(Context& ctx, const MarginTiles& t, const Policy& policy, const T* x, const T* w,
                  const std::int64_t* labels, bool new_batch, const MarginInputs<T>& in,
                  const MarginRows<T>& rows) {
  const char* name = "margin softmax: rows";
  ctx.launch(name, grid_extent(t.batch), block<margin_row_threads>, margin_row_kernel<T>, t.dim,
             t.classes, t.sub_centers, x, w, labels, rows, in.inverse_norms.data, in.unit.data);
  // A policy that inherits begin_batch has nothing to note.
  constexpr bool inherited = std::is_same_v<decltype(&Policy::begin_batch),
                                            void (MarginPolicy<T>::*)(const MarginBatch<T>&) const>;
  if constexpr (!inherited) {
    if (new_batch) ctx.launch(name, 1, block<1>, margin_batch_kernel<Policy, T>, policy, rows);
  }
  if constexpr (Policy::row_values > 0)
    for_each(ctx, name, t.batch, MarginBeginRow<Policy, T>{policy, rows, t.classes, labels});
  for (int pass = 0; pass < policy.row_passes(); ++pass)
    for_each(ctx, name, t.batch, MarginRowPass<Policy, T>{policy, rows, pass});
}

inline constexpr int margin_threads = 256, margin_warps = margin_threads / 32;

/// 1/|w| of each of n centres, one per warp; 0 for a zero one.
template <class T>
__global__ void __launch_bounds__(margin_threads)
    inverse_norms_kernel(std::int64_t n, std::int64_t dim, const T* w, T* inverse) {
  const std::int64_t j = flat_index() / 32;
  if (j >= n) return;
  T sum = 0;
  for (std::int64_t d = threadIdx.x % 32; d < dim; d += 32) sum += w[j * dim + d] * w[j * dim + d];
  const T norm = std::sqrt(warp_sum(sum));
  if (threadIdx.x % 32 == 0) inverse[j] = norm == T(0) ? T(0) : T(1) / norm;
}

/// The products of n centres with all rows, and the centres' inverse norms if `norms`.
template <class T>
void margin_tile_products(Context& ctx, const MarginTiles& t, std::int64_t n, const T* w,
                          const T* unit, bool norms, T* inverse, T* products) {
  if (norms)
    ctx.launch("margin softmax: norms", grid_extent(divide_up<std::int64_t>(n, margin_warps)),
               block<margin_threads>, inverse_norms_kernel<T>, n, t.dim, w, inverse);
  gemm(ctx, Transpose::no, Transpose::yes, n, t.batch, t.dim, w, t.dim, unit, t.dim, products,
       t.batch, false);
}

/// A tile as its readers see it.
template <class T>
struct MarginTile {
  std::int64_t batch, sub_centers;
  std::int64_t first, size;  ///< classes
  T* products;               ///< [size K,B]
  const T* inverse;          ///< [size K]

  /// The cosine of row i to class j of the tile: the largest of its centres, the first of equals.
  __device__ T cosine(std::int64_t j, std::int64_t i, std::int64_t& winner) const {
    winner = j * sub_centers;
    T best = products[winner * batch + i] * inverse[winner];
    for (std::int64_t k = winner + 1; k < (j + 1) * sub_centers; ++k) {
      const T c = products[k * batch + i] * inverse[k];
      if (c > best) {
        best = c;
        winner = k;
      }
    }
    return best;
  }
};

inline constexpr int margin_slot_threads = 128;

/// Adds the classes of a slot, the label left out, to the running sums of every row: the largest z,
/// the sum of exp(z - largest), the sum of z; statistics [slots,3,B]. The running maximum (Milakov
/// and Gimelshein, "Online normalizer calculation for softmax", 2018) keeps every scale and number
/// of classes within range.
template <class Policy, class T>
__global__ void __launch_bounds__(margin_slot_threads)
    margin_statistics_kernel(const Policy policy, const MarginTile<T> tile,
                             const MarginRows<T> rows, const std::int64_t* labels, bool start,
                             T* statistics) {
  const std::int64_t i = flat_index();
  if (i >= tile.batch) return;
  const std::int64_t slot = blockIdx.y, label = labels[i] - tile.first;
  const MarginRowValues<Policy, T> row(rows, i);
  T* own = statistics + slot * 3 * tile.batch + i;
  // Finite where there is no class yet: differences must not be NaN.
  T largest = start ? T(-1e30) : own[0];
  T sum = start ? T(0) : own[tile.batch], total = start ? T(0) : own[2 * tile.batch];
  const std::int64_t begin = slot * MarginTiles::slot;
  const std::int64_t end =
      begin + MarginTiles::slot < tile.size ? begin + MarginTiles::slot : tile.size;
  constexpr int group = 8;  // logits that share one change of the maximum
  for (std::int64_t j0 = begin; j0 < end; j0 += group) {
    T z[group];
    T most = largest;
#pragma unroll
    for (int g = 0; g < group; ++g) {
      const std::int64_t j = j0 + g;
      z[g] = -std::numeric_limits<T>::infinity();
      if (j >= end || j == label) continue;
      std::int64_t winner;
      z[g] = policy.scale * policy.negative(tile.cosine(j, i, winner), row.value).value;
      if (z[g] > most) most = z[g];
      total += z[g];
    }
    sum *= std::exp(largest - most);
#pragma unroll
    for (int g = 0; g < group; ++g) sum += std::exp(z[g] - most);
    largest = most;
  }
  own[0] = largest;
  own[tile.batch] = sum;
  own[2 * tile.batch] = total;
}

/// Merges the slots of each row, one row per warp; writes its loss. With Ln the log-sum-exp of the
/// negatives and z the target logit, CE = softplus(Ln - z) and p_y - 1 = -sigmoid(Ln - z) keep
/// their digits where the row is nearly right.
template <class Policy, class T>
__global__ void __launch_bounds__(margin_threads, 2)  // without the 2, registers are spilled
    margin_finish_row_kernel(const Policy policy, std::int64_t classes, std::int64_t slots,
                             const T* statistics, double epsilon, const MarginRows<T> rows,
                             double* losses) {
  const std::int64_t i = flat_index() / 32;
  if (i >= rows.batch) return;
  const std::int64_t lane = threadIdx.x % 32;
  const auto at = [&](std::int64_t slot, int what) {
    return static_cast<double>(statistics[(slot * 3 + what) * rows.batch + i]);
  };
  double largest = -1e30, sum = 0, total = 0;
  for (std::int64_t s = lane; s < slots; s += 32) largest = Maximum{}(largest, at(s, 0));
  largest = warp_max(largest);
  for (std::int64_t s = lane; s < slots; s += 32) {
    sum += at(s, 1) * std::exp(at(s, 0) - largest);
    total += at(s, 2);
  }
  sum = warp_sum(sum);
  total = warp_sum(total);
  if (lane != 0) return;
  const MarginRowValues<Policy, T> row(rows, i);
  const MarginTarget<T> target = policy.target(rows.target[i], row.value);
  const double z = static_cast<double>(policy.scale) * target.value;
  const double count = static_cast<double>(classes);
  const double excess = classes == 1 ? -std::numeric_limits<double>::infinity()
                                     : largest + std::log(sum) - z;  // Ln - z
  const double tail = std::exp(-std::abs(excess));
  const double softplus = (excess < 0 ? 0.0 : excess) + std::log1p(tail);
  const double sigmoid = (excess > 0 ? 1.0 : tail) / (1 + tail);
  const double gradient = epsilon - sigmoid - epsilon / count;  // dL_i/dz_iy
  rows.log_sum_exp[i] = static_cast<T>(z + softplus);
  rows.label_gradient[i] = static_cast<T>(gradient * target.derivative);
  rows.norm_gradient[i] = static_cast<T>(gradient * target.by_norm);
  losses[i] = softplus + epsilon * z - epsilon / count * (total + z);
}

/// *mean = mean of n values.
template <class T>
__global__ void __launch_bounds__(margin_threads)
    margin_mean_kernel(std::int64_t n, const double* values, T* mean) {
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += margin_threads) sum += values[i];
  sum = block_sum<margin_threads>(sum);
  if (threadIdx.x == 0) *mean = static_cast<T>(sum / static_cast<double>(n));
}

/// dL/dc_ij of the cross-entropy.
template <class Policy, class T>
struct CrossEntropyGradient {
  Policy policy;
  MarginRows<T> rows;
  const std::int64_t* labels;
  T smooth;  ///< epsilon / C
  T factor;  ///< weight scale / B
  __device__ T operator()(std::int64_t i, std::int64_t j, T c) const {
    if (labels[i] == j) return factor * rows.label_gradient[i];
    const MarginRowValues<Policy, T> row(rows, i);
    const auto negative = policy.negative(c, row.value);
    const T p = std::exp(policy.scale * negative.value - rows.log_sum_exp[i]);
    return factor * ((p - smooth) * negative.derivative);
  }
};

/// dL/dc_ij from dL/dz_ij.
template <class Policy, class T>
struct LogitGradient {
  Policy policy;
  MarginRows<T> rows;
  const std::int64_t* labels;
  std::int64_t classes;
  const T* dlogits;  ///< [B,C]
  __device__ T operator()(std::int64_t i, std::int64_t j, T c) const {
    const T dz = dlogits[i * classes + j] * policy.scale;
    if (labels[i] == j) return dz * rows.label_gradient[i];
    const MarginRowValues<Policy, T> row(rows, i);
    return dz * policy.negative(c, row.value).derivative;
  }
};

/// dw_j -= (along / |w_j|) w_j by a warp; along = sum_i G_ij c_ij.
template <class T>
__device__ void subtract_along(std::int64_t dim, T along, T inverse, const T* w, T* dw) {
  const T factor = along * inverse;
  for (std::int64_t d = threadIdx.x % 32; d < dim; d += 32) dw[d] -= factor * w[d];
}

/// One class per warp. The products become G_ij = dL/dc_ij / |w_j|;
/// dw_j -= (sum_i G_ij c_ij) w_j/|w_j| if dw is given, whose other term sum_i G_ij u_i is left to a
/// product.
template <class Gradient, class T>
__global__ void __launch_bounds__(margin_threads)
    margin_gradient_kernel(const Gradient gradient, const MarginTile<T> tile, std::int64_t dim,
                           const T* w, T* dw) {
  const std::int64_t j = flat_index() / 32;
  if (j >= tile.size) return;
  const T inverse = tile.inverse[j];
  T* products = tile.products + j * tile.batch;
  T along = 0;
#pragma unroll 4
  for (std::int64_t i = threadIdx.x % 32; i < tile.batch; i += 32) {
    const T c = products[i] * inverse;
    const T g = gradient(i, tile.first + j, c) * inverse;
    along += g * c;
    products[i] = g;
  }
  along = warp_sum(along);
  if (dw != nullptr) subtract_along(dim, along, inverse, w + j * dim, dw + j * dim);
}

/// The same with sub-centres: G is 0 for all centres of a class but the nearest. `cosines` [size,B]
/// takes the cosines of the classes.
template <class Gradient, class T>
__global__ void __launch_bounds__(margin_threads)
    margin_sub_gradient_kernel(const Gradient gradient, const MarginTile<T> tile, std::int64_t dim,
                               const T* w, T* dw, T* cosines) {
  const std::int64_t j = flat_index() / 32, lane = threadIdx.x % 32;
  if (j >= tile.size) return;
  const std::int64_t begin = j * tile.sub_centers, end = begin + tile.sub_centers;
  T* own = cosines + j * tile.batch;
  for (std::int64_t i = lane; i < tile.batch; i += 32) {
    std::int64_t winner;
    own[i] = tile.cosine(j, i, winner);
    const T g = gradient(i, tile.first + j, own[i]);
    for (std::int64_t k = begin; k < end; ++k)
      tile.products[k * tile.batch + i] = k == winner ? g * tile.inverse[k] : T(0);
  }
  if (dw == nullptr) return;
  for (std::int64_t k = begin; k < end; ++k) {
    T along = 0;  // each lane reads what it wrote
    for (std::int64_t i = lane; i < tile.batch; i += 32)
      along += tile.products[k * tile.batch + i] * own[i];
    along = warp_sum(along);
    subtract_along(dim, along, tile.inverse[k], w + k * dim, dw + k * dim);
  }
}

/// From the products of a tile to its share of the gradients: v (+)= G^T w, dw += the tile's
/// gradient, each if it is given.
template <class Gradient, class T>
void margin_tile_gradient(Context& ctx, const MarginTiles& t, const Gradient& gradient,
                          const MarginTile<T>& tile, const T* unit, const T* w, T* cosines,
                          bool first, T* v, T* dw) {
  const std::int64_t n = tile.size * t.sub_centers;
  const char* name = "margin softmax: gradient";
  const unsigned grid = grid_extent(divide_up<std::int64_t>(tile.size, margin_warps));
  if (t.sub_centers == 1)
    ctx.launch(name, grid, block<margin_threads>, margin_gradient_kernel<Gradient, T>, gradient,
               tile, t.dim, w, dw);
  else
    ctx.launch(name, grid, block<margin_threads>, margin_sub_gradient_kernel<Gradient, T>, gradient,
               tile, t.dim, w, dw, cosines);
  const T* g = tile.products;
  if (v != nullptr)
    gemm(ctx, Transpose::yes, Transpose::no, t.batch, t.dim, n, g, t.batch, w, t.dim, v, t.dim,
         !first);
  if (dw != nullptr)
    gemm(ctx, Transpose::no, Transpose::no, n, t.dim, t.batch, g, t.batch, unit, t.dim, dw, t.dim,
         true);
}

/// dx_i (+)= (v_i - (v_i.u_i) u_i) / |x_i| + factor norm_gradient_i u_i, one row per block.
template <class T>
__global__ void __launch_bounds__(margin_row_threads)
    margin_finish_features_kernel(std::int64_t dim, const T* v, const T* unit,
                                  const T* inverse_norms, const T* norm_gradient, T factor,
                                  bool accumulate, T* dx) {
  const std::int64_t i = blockIdx.x;
  const T *sums = v + i * dim, *u = unit + i * dim;
  T* out = dx + i * dim;
  double dot = 0;
  for (std::int64_t d = threadIdx.x; d < dim; d += margin_row_threads)
    dot += static_cast<double>(sums[d]) * u[d];
  const T along = static_cast<T>(block_sum<margin_row_threads>(dot));
  const T by_norm = factor * norm_gradient[i];
  for (std::int64_t d = threadIdx.x; d < dim; d += margin_row_threads) {
    const T gradient = (sums[d] - along * u[d]) * inverse_norms[i] + by_norm * u[d];
    out[d] = accumulate ? out[d] + gradient : gradient;
  }
}

template <class T>
void margin_finish_features(Context& ctx, const MarginTiles& t, const MarginInputs<T>& in,
                            const T* v, const T* norm_gradient, T factor, bool accumulate, T* dx) {
  ctx.launch("margin softmax: features", grid_extent(t.batch), block<margin_row_threads>,
             margin_finish_features_kernel<T>, t.dim, v, in.unit.data, in.inverse_norms.data,
             norm_gradient, factor, accumulate, dx);
}

/// Whether the rows leave every gradient of a centre finite, and below which 1/|w| they do; see
/// margin_centres_finite of the CPU.
template <class T>
struct MarginUpdateBound {
  T allowed, longest;
};

template <class T>
__global__ void __launch_bounds__(margin_threads)
    margin_update_rows_kernel(const MarginRows<T> rows, double factor, double limit, const T* loss,
                              MarginUpdateBound<T>* bound) {
  double steepest = 1;
  for (std::int64_t i = threadIdx.x; i < rows.batch; i += margin_threads)
    steepest = Maximum{}(steepest, std::abs(static_cast<double>(rows.label_gradient[i])));
  steepest = block_max<margin_threads>(steepest);
  if (threadIdx.x != 0) return;
  const double sum = factor * static_cast<double>(rows.batch) * steepest;
  // v - v is 0 for a finite v and NaN for every other.
  bound->allowed = *loss - *loss == T(0) && steepest - steepest == 0 ? T(1) : T(0);
  bound->longest = static_cast<T>(std::sqrt(limit / sum));
}

/// A centre that is too short, or NaN, forbids the update; whichever thread says so, says the same.
template <class T>
struct MarginUpdateCentre {
  const T* inverse_centres;
  MarginUpdateBound<T>* bound;
  __device__ void operator()(std::int64_t j) const {
    if (!(inverse_centres[j] < bound->longest)) store_same(&bound->allowed, T(0));
  }
};

template <class T>
struct MarginUpdateTaken {
  const MarginUpdateBound<T>* bound;
  T* taken;
  __device__ void operator()(std::int64_t) const { *taken = bound->allowed; }
};

/// Decides whether the centres may be updated, before the first of them is; the answer stays on the
/// device, where every tile asks for it, and goes to `taken`.
template <class T>
void margin_decide_update(Context& ctx, const MarginTiles& t, const T* inverse_centres, T factor,
                          const MarginRows<T>& rows, const T* loss, MarginUpdateBound<T>* bound,
                          T* taken) {
  const char* name = "margin softmax: update";
  ctx.launch(name, 1, block<margin_threads>, margin_update_rows_kernel<T>, rows,
             std::abs(static_cast<double>(factor)), kernels::margin_update_limit<T>, loss, bound);
  for_each(ctx, name, t.classes * t.sub_centers, MarginUpdateCentre<T>{inverse_centres, bound});
  for_each(ctx, name, 1, MarginUpdateTaken<T>{bound, taken});
}

/// margin_softmax for a given cut into tiles; `store` keeps all products for the second pass.
template <class Policy, class T>
void margin_softmax_tiled(Context& ctx, const MarginTiles& t, bool store, const Policy& policy,
                          const T* x, const T* w, const std::int64_t* labels, T epsilon, T weight,
                          T* loss, T* dx, const kernels::CenterGradient<Context, T>& dw) {
  const std::int64_t K = t.sub_centers;
  const bool update = dw.update != nullptr;
  const MarginInputs<T> in(ctx, t);
  auto products = ctx.make<T>({(store ? t.classes : t.tile) * K, t.batch}, "margin products");
  auto cosines = ctx.make<T>({K > 1 ? t.tile : 0, t.batch}, "margin cosines");
  auto statistics = ctx.make<T>({t.slots, 3, t.batch}, "softmax statistics");
  auto losses = ctx.make<double>({t.batch}, "row losses");
  auto row_values =
      ctx.make<T>({MarginRows<T>::fields + Policy::row_values, t.batch}, "margin rows");
  auto v = ctx.make<T>({dx != nullptr ? t.batch : 0, t.dim}, "feature gradients");
  auto of_centres = ctx.make<T>({update ? t.tile * K : 0, t.dim}, "centre gradients of a tile");
  auto bound = ctx.make<MarginUpdateBound<T>>({1}, "bound of an update");
  const MarginRows<T> rows(row_values.data, t.batch);
  const auto tile_at = [&](std::int64_t i) {
    const std::int64_t centre = t.begin(i) * K;
    return MarginTile<T>{t.batch,
                         K,
                         t.begin(i),
                         t.size(i),
                         products.data + (store ? centre * t.batch : 0),
                         in.inverse_centres.data + centre};
  };
  check_labels(ctx, "margin_softmax", labels, t.batch, t.classes);
  margin_begin(ctx, t, policy, x, w, labels, true, in, rows);

  for (std::int64_t i = 0; i < t.tiles; ++i) {
    const MarginTile<T> tile = tile_at(i);
    const std::int64_t centre = tile.first * K;
    margin_tile_products(ctx, t, tile.size * K, w + centre * t.dim, in.unit.data, true,
                         in.inverse_centres.data + centre, tile.products);
    const dim3 grid(grid_extent(divide_up<std::int64_t>(t.batch, margin_slot_threads)),
                    grid_extent(divide_up(tile.size, MarginTiles::slot), grid_limit_yz));
    ctx.launch("margin softmax: statistics", grid, block<margin_slot_threads>,
               margin_statistics_kernel<Policy, T>, policy, tile, rows, labels, i == 0,
               statistics.data);
  }
  ctx.launch("margin softmax: loss", grid_extent(divide_up<std::int64_t>(t.batch, margin_warps)),
             block<margin_threads>, margin_finish_row_kernel<Policy, T>, policy, t.classes, t.slots,
             statistics.data, static_cast<double>(epsilon), rows, losses.data);
  ctx.launch("margin softmax: loss", 1, block<margin_threads>, margin_mean_kernel<T>, t.batch,
             losses.data, loss);
  if (dx == nullptr && !dw.wanted()) return;

  const T factor = weight / static_cast<T>(t.batch) * policy.scale;
  if (update)
    margin_decide_update(ctx, t, static_cast<const T*>(in.inverse_centres.data), factor, rows,
                         static_cast<const T*>(loss), bound.data, dw.taken);
  const CrossEntropyGradient<Policy, T> gradient{policy, rows, labels,
                                                 epsilon / static_cast<T>(t.classes), factor};
  // Backwards: the last tile of the first pass is still in the cache.
  for (std::int64_t i = t.tiles - 1; i >= 0; --i) {
    const MarginTile<T> tile = tile_at(i);
    const std::int64_t centre = tile.first * K;
    const T* at = w + centre * t.dim;
    if (!store && i + 1 < t.tiles)
      margin_tile_products(ctx, t, tile.size * K, at, in.unit.data, false,
                           in.inverse_centres.data + centre, tile.products);
    const std::int64_t size = tile.size * K * t.dim;
    T* to = dw.stored != nullptr ? dw.stored + centre * t.dim : nullptr;
    if (update) {
      to = of_centres.data;
      transform(ctx, "margin softmax: gradient", size, Fill<T>{T(0)}, to);
    }
    margin_tile_gradient(ctx, t, gradient, tile, in.unit.data, at, cosines.data, i + 1 == t.tiles,
                         dx != nullptr ? v.data : nullptr, to);
    // Nobody reads these rows of w any more.
    if (update) (*dw.update)(ctx, centre * t.dim, size, to, &bound.data->allowed);
  }
  if (dx != nullptr)
    margin_finish_features(ctx, t, in, static_cast<const T*>(v.data), rows.norm_gradient, factor,
                           true, dx);
}

template <class Policy, class T>
void margin_softmax(Context& ctx, const Policy& policy, std::int64_t batch, std::int64_t dim,
                    std::int64_t classes, const T* x, const T* w, const std::int64_t* labels,
                    T epsilon, T weight, T* loss, T* dx,
                    const kernels::CenterGradient<Context, T>& dw, std::int64_t store_limit) {
  const MarginTiles t(batch, dim, classes, policy.sub_centers(), sizeof(T), margin_tile_bytes);
  const bool store =
      classes * t.sub_centers <= store_limit / static_cast<std::int64_t>(sizeof(T)) / batch;
  margin_softmax_tiled(ctx, t, store && (dx != nullptr || dw.wanted()), policy, x, w, labels,
                       epsilon, weight, loss, dx, dw);
}

/// From the products of a block of classes [B,n K] to cosines [B,C], in place where K = 1.
template <class T>
struct MarginCosines {
  std::int64_t classes, sub_centers, first, size;
  const T *products, *inverse;
  T* cosines;
  __device__ void operator()(std::int64_t i, std::int64_t j) const {
    const T* p = products + (i * size + j) * sub_centers;
    T best = p[0] * inverse[j * sub_centers];
    for (std::int64_t k = 1; k < sub_centers; ++k) {
      const T c = p[k] * inverse[j * sub_centers + k];
      if (c > best) best = c;
    }
    cosines[i * classes + first + j] = best;
  }
};

/// Cosines of unit features; without sub-centres one product straight into the result.
template <class T>
void margin_cosines(Context& ctx, const MarginTiles& t, const MarginInputs<T>& in, const T* w,
                    T* cosines) {
  const std::int64_t K = t.sub_centers, part = K == 1 ? t.classes : t.tile;
  auto products = ctx.make<T>({K == 1 ? 0 : t.batch, t.tile * K}, "margin products");
  const T* unit = in.unit.data;
  for (std::int64_t first = 0; first < t.classes; first += part) {
    const std::int64_t size = std::min(part, t.classes - first), n = size * K;
    const T* at = w + first * K * t.dim;
    T *inverse = in.inverse_centres.data + first * K, *p = K == 1 ? cosines : products.data;
    ctx.launch("margin_logits", grid_extent(divide_up<std::int64_t>(n, margin_warps)),
               block<margin_threads>, inverse_norms_kernel<T>, n, t.dim, at, inverse);
    gemm(ctx, Transpose::no, Transpose::yes, t.batch, n, t.dim, unit, t.dim, at, t.dim, p, n,
         false);
    for_each_pair(ctx, "margin_logits", t.batch, size,
                  MarginCosines<T>{t.classes, K, first, size, p, inverse, cosines});
  }
}

template <class T>
void margin_logits(Context& ctx, std::int64_t batch, std::int64_t dim, std::int64_t classes,
                   std::int64_t sub_centers, const T* x, const T* w, T* cosines) {
  const MarginTiles t(batch, dim, classes, sub_centers, sizeof(T), margin_tile_bytes);
  const MarginInputs<T> in(ctx, t);
  ctx.launch("margin_logits", grid_extent(batch), block<margin_row_threads>, margin_row_kernel<T>,
             dim, classes, sub_centers, x, w, nullptr, MarginRows<T>(nullptr, 0),
             in.inverse_norms.data, in.unit.data);
  margin_cosines(ctx, t, in, w, cosines);
}

/// A cosine becomes a logit.
template <class Policy, class T>
struct MarginLogit {
  Policy policy;
  MarginRows<T> rows;
  const std::int64_t* labels;
  std::int64_t classes;
  T* logits;
  __device__ void operator()(std::int64_t i, std::int64_t j) const {
    const MarginRowValues<Policy, T> row(rows, i);
    T& z = logits[i * classes + j];
    z = policy.scale * (labels[i] == j ? policy.target(rows.target[i], row.value).value
                                       : policy.negative(z, row.value).value);
  }
};

template <class Policy, class T>
void margin_logits_forward(Context& ctx, const Policy& policy, std::int64_t batch, std::int64_t dim,
                           std::int64_t classes, const T* x, const T* w, const std::int64_t* labels,
                           T* logits) {
  const MarginTiles t(batch, dim, classes, policy.sub_centers(), sizeof(T), margin_tile_bytes);
  const MarginInputs<T> in(ctx, t);
  auto row_values = ctx.make<T>({MarginRows<T>::fields + Policy::row_values, batch}, "margin rows");
  const MarginRows<T> rows(row_values.data, batch);
  check_labels(ctx, "margin_logits_forward", labels, batch, classes);
  margin_begin(ctx, t, policy, x, w, labels, true, in, rows);
  margin_cosines(ctx, t, in, w, logits);
  for_each_pair(ctx, "margin_logits_forward", batch, classes,
                MarginLogit<Policy, T>{policy, rows, labels, classes, logits});
}

/// The label's derivatives of a row, for LogitGradient and for the gradient of the norm.
template <class Policy, class T>
struct MarginTargetGradient {
  Policy policy;
  MarginRows<T> rows;
  const std::int64_t* labels;
  std::int64_t classes;
  const T* dlogits;
  __device__ void operator()(std::int64_t i) const {
    const MarginRowValues<Policy, T> row(rows, i);
    const MarginTarget<T> target = policy.target(rows.target[i], row.value);
    const std::int64_t label = class_index(labels[i], classes);
    rows.label_gradient[i] = target.derivative;
    rows.norm_gradient[i] = dlogits[i * classes + label] * target.by_norm;
  }
};

/// margin_logits_backward for a given cut into tiles.
template <class Policy, class T>
void margin_logits_backward_tiled(Context& ctx, const MarginTiles& t, const Policy& policy,
                                  const T* dlogits, const T* x, const T* w,
                                  const std::int64_t* labels, T* dx, T* dw) {
  const std::int64_t K = t.sub_centers;
  const MarginInputs<T> in(ctx, t);
  auto products = ctx.make<T>({t.tile * K, t.batch}, "margin products");
  auto cosines = ctx.make<T>({K > 1 ? t.tile : 0, t.batch}, "margin cosines");
  auto row_values =
      ctx.make<T>({MarginRows<T>::fields + Policy::row_values, t.batch}, "margin rows");
  auto v = ctx.make<T>({t.batch, t.dim}, "feature gradients");
  const MarginRows<T> rows(row_values.data, t.batch);
  const char* name = "margin_logits_backward";
  check_labels(ctx, name, labels, t.batch, t.classes);
  margin_begin(ctx, t, policy, x, w, labels, false, in, rows);
  for_each(ctx, name, t.batch,
           MarginTargetGradient<Policy, T>{policy, rows, labels, t.classes, dlogits});
  const LogitGradient<Policy, T> gradient{policy, rows, labels, t.classes, dlogits};
  for (std::int64_t i = 0; i < t.tiles; ++i) {
    const std::int64_t centre = t.begin(i) * K;
    const T* at = w + centre * t.dim;
    T* inverse = in.inverse_centres.data + centre;
    const MarginTile<T> tile{t.batch, K, t.begin(i), t.size(i), products.data, inverse};
    margin_tile_products(ctx, t, tile.size * K, at, in.unit.data, true, inverse, tile.products);
    margin_tile_gradient(ctx, t, gradient, tile, in.unit.data, at, cosines.data, i == 0, v.data,
                         dw != nullptr ? dw + centre * t.dim : nullptr);
  }
  margin_finish_features(ctx, t, in, static_cast<const T*>(v.data), rows.norm_gradient,
                         policy.scale, false, dx);
}

template <class Policy, class T>
void margin_logits_backward(Context& ctx, const Policy& policy, std::int64_t batch,
                            std::int64_t dim, std::int64_t classes, const T* dlogits, const T* x,
                            const T* w, const std::int64_t* labels, T* dx, T* dw) {
  const MarginTiles t(batch, dim, classes, policy.sub_centers(), sizeof(T), margin_tile_bytes);
  margin_logits_backward_tiled(ctx, t, policy, dlogits, x, w, labels, dx, dw);
}

}  // namespace kindred::cuda
