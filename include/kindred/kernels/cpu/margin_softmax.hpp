#pragma once
// Bound by three or four matrix products of 2 B D C operations: cosines (once, or once per pass if
// they are too many to keep), gradient of the features, gradient of the centres.
//
// A tile of cosines is held transposed, [classes of the tile][batch]: then W is the left factor,
// which needs no transposition, and rows of the batch lie in vector lanes, so that every sum over
// classes stays in its lane. The batch is padded with zero rows to whole vectors.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>
#include <kindred/kernels/margin_softmax.hpp>

namespace kindred::cpu {

/// How classes are cut into tiles and tiles into chunks; depends on the shape alone.
template <class T>
struct MarginTiles {
  std::int64_t batch, dim, classes, sub_centers;
  std::int64_t padded;  ///< batch, rounded up to whole vectors
  std::int64_t tile;    ///< classes of a tile
  std::int64_t tiles, tiles_per_chunk, chunks;

  MarginTiles(std::int64_t b, std::int64_t d, std::int64_t c, std::int64_t k)
      : batch(b), dim(d), classes(c), sub_centers(k), padded(round_up(b, vector_size<T>)) {
    constexpr std::int64_t rows = GemmTile<T>::rows, cached = (std::int64_t{1} << 19) / sizeof(T);
    // The tile's centres take half a megabyte, and its cosines at most as much.
    const std::int64_t centres =
        std::clamp(cached / std::max(dim, padded) / rows, std::int64_t{1}, std::int64_t{36}) * rows;
    tile = std::max<std::int64_t>(1, centres / sub_centers);
    tiles = divide_up(classes, tile);
    // Every chunk has its own sum for dx; all of them together are kept below 8 MiB.
    const std::int64_t sums = std::clamp<std::int64_t>(
        (std::int64_t{8} << 20) / (batch * dim * static_cast<std::int64_t>(sizeof(T))), 8, 64);
    tiles_per_chunk = divide_up(tiles, sums);
    chunks = divide_up(tiles, tiles_per_chunk);
  }
  std::int64_t begin(std::int64_t i) const { return i * tile; }
  std::int64_t size(std::int64_t i) const { return std::min(tile, classes - i * tile); }

  /// Calls body(tile, chunk, thread), tiles of a chunk in order and chunks in parallel.
  template <class Body>
  void loop(Context& ctx, Body&& body) const {
    ctx.parallel_for(chunks, [&](std::int64_t chunk, int thread) {
      const std::int64_t end = std::min(tiles, (chunk + 1) * tiles_per_chunk);
      for (std::int64_t i = chunk * tiles_per_chunk; i < end; ++i) body(i, chunk, thread);
    });
  }
};

/// The normalised batch and the inverse norms of the centres.
template <class T>
struct MarginInputs {
  Tensor<T> unit;      ///< [B,D] u
  PackedB<T> rows;     ///< u [B,D], packed; in memory of packed_rows
  PackedB<T> columns;  ///< u transposed [D,B], packed; zeros in the padding; in packed_columns
  Tensor<T> packed_rows, packed_columns;
  Tensor<T> inverse_norms;    ///< [B] 1/|x_i|, 0 for a zero row
  Tensor<T> inverse_centres;  ///< [C K] 1/|w_j|, 0 for a zero row; filled tile by tile

  MarginInputs(Context& ctx, const MarginTiles<T>& t)
      : unit(ctx.make<T>({t.batch, t.dim}, "unit features")),
        rows(nullptr, t.batch, t.dim),
        columns(nullptr, t.dim, t.batch),
        packed_rows(ctx.make<T>({rows.size()}, "unit features, packed")),
        packed_columns(ctx.make<T>({columns.size()}, "unit features, transposed and packed")),
        inverse_norms(ctx.make<T>({t.batch}, "inverse feature norms")),
        inverse_centres(ctx.make<T>({t.classes * t.sub_centers}, "inverse centre norms")) {
    rows.data = packed_rows.data;
    columns.data = packed_columns.data;
  }

  void normalize(const MarginTiles<T>& t, const T* x) const {
    for (std::int64_t i = 0; i < t.batch; ++i) {
      const T* in = x + i * t.dim;
      const double norm = std::sqrt(dot_double(t.dim, in, in));
      inverse_norms[i] = norm == 0 ? T(0) : static_cast<T>(1 / norm);
      for (std::int64_t d = 0; d < t.dim; ++d)
        unit[i * t.dim + d] = norm == 0 ? T(0) : static_cast<T>(in[d] / norm);
    }
    pack_whole(RowsOfB<T>{unit.data, t.dim}, t.dim, rows);
    pack_whole(ColumnsOfB<T>{unit.data, t.dim}, t.batch, columns);
  }
};

/// 1/|w| of each of n centres, 0 for a zero one.
template <class T>
void inverse_norms_of_rows(std::int64_t n, std::int64_t dim, const T* w, T* inverse) {
  for (std::int64_t j = 0; j < n; ++j) {
    const T* row = w + j * dim;
    Vector<T> lanes(T(0));
    T rest = 0;
    vector_loop<T>(dim, [&](auto lane, std::int64_t d) {
      using V = typename decltype(lane)::type;
      const V v = load_lanes<V>(row + d);
      if constexpr (std::is_same_v<V, T>)
        rest += v * v;
      else
        lanes += v * v;
    });
    const T norm = std::sqrt(xsimd::hadd(lanes) + rest);
    inverse[j] = norm == T(0) ? T(0) : T(1) / norm;
  }
}

/// What is known of every row of the batch: `fields` arrays of `padded` elements.
template <class T>
struct MarginRows {
  T* norm;            ///< |x_i|
  T* target;          ///< c_iy
  T* log_sum_exp;     ///< over all classes
  T* label_gradient;  ///< dL_i/dc_iy / s
  T* norm_gradient;   ///< dL_i/d|x_i| / s
  T* values;          ///< the policy's row_values, one array after the other
  std::int64_t padded;
  static constexpr std::int64_t fields = 5;

  MarginRows(T* data, std::int64_t size)
      : norm(data),
        target(data + size),
        log_sum_exp(data + 2 * size),
        label_gradient(data + 3 * size),
        norm_gradient(data + 4 * size),
        values(data + 5 * size),
        padded(size) {}

  /// The policy's values of row i, or of the rows from i on; never an array of nothing.
  template <class Policy, class V>
  std::array<V, Policy::row_values + 1> at(std::int64_t i) const {
    std::array<V, Policy::row_values + 1> all{};
    for (int k = 0; k < Policy::row_values; ++k)
      all[static_cast<std::size_t>(k)] = load_lanes<V>(values + k * padded + i);
    return all;
  }
};

/// Cosines to the labels in double, and what the policy makes of the batch and of each row.
template <class Policy, class T>
void margin_begin(const MarginTiles<T>& t, const Policy& policy, const T* x, const T* w,
                  const std::int64_t* labels, bool new_batch, const MarginRows<T>& rows) {
  for (std::int64_t i = 0; i < t.batch; ++i) {
    const T* in = x + i * t.dim;
    const double norm = std::sqrt(dot_double(t.dim, in, in));
    double best = -std::numeric_limits<double>::infinity();
    for (std::int64_t k = 0; k < t.sub_centers; ++k) {
      const T* centre = w + (labels[i] * t.sub_centers + k) * t.dim;
      const double size = std::sqrt(dot_double(t.dim, centre, centre));
      const double c = norm == 0 || size == 0 ? 0.0 : dot_double(t.dim, in, centre) / norm / size;
      if (!(c <= best)) best = c;  // NaN wins
    }
    rows.norm[i] = static_cast<T>(norm);
    rows.target[i] = static_cast<T>(best);
  }
  const MarginBatch<T> batch{t.batch, rows.norm, rows.target};
  if (new_batch) policy.begin_batch(batch);
  for (std::int64_t i = 0; i < t.batch; ++i) {
    T values[Policy::row_values + 1] = {};
    policy.begin_row(MarginSample<T>{i, labels[i], rows.norm[i], rows.target[i]}, values);
    for (int k = 0; k < Policy::row_values; ++k) rows.values[k * t.padded + i] = values[k];
  }
  for (int pass = 0; pass < policy.row_passes(); ++pass)
    for (std::int64_t i = 0; i < t.batch; ++i)
      policy.row_pass(pass, batch, i, rows.values, t.padded);
}

/// cosines[j,i] of n centres w; their inverse norms are given.
template <class T>
void margin_tile_cosines(const MarginTiles<T>& t, std::int64_t n, const T* w, const T* inverse,
                         const PackedB<T>& unit_columns, T* cosines, T* scratch) {
  gemm_chunk<T>(RowsOfA<T>{w, t.dim}, unit_columns, MatrixC<T>{cosines, t.padded}, 0, n, t.padded,
                0, t.dim, false, scratch);
  for (std::int64_t j = 0; j < n; ++j) {
    T* row = cosines + j * t.padded;
    const Vector<T> factor(inverse[j]);
    for (std::int64_t i = 0; i < t.padded; i += vector_size<T>)
      store_lanes(row + i, Vector<T>(factor * load_lanes<Vector<T>>(row + i)));
  }
}

/// best[j,i] = largest cosine of the centres of class j.
template <class T>
void margin_tile_best(const MarginTiles<T>& t, std::int64_t n, const T* cosines, T* best) {
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = 0; i < t.padded; i += vector_size<T>) {
      const T* first = cosines + j * t.sub_centers * t.padded + i;
      auto largest = load_lanes<Vector<T>>(first);
      for (std::int64_t k = 1; k < t.sub_centers; ++k)
        largest = xsimd::max(load_lanes<Vector<T>>(first + k * t.padded), largest);
      store_lanes(best + j * t.padded + i, largest);
    }
}

/// Hands the gradients g[j,i] of n classes to the centre that had the largest cosine (the first of
/// equals): the cosines become G[j,i] = g / |w|; along[j] = sum_i G[j,i] c_ij / |w_j|.
template <class T>
void margin_tile_split(const MarginTiles<T>& t, std::int64_t n, const T* g, const T* best,
                       const T* inverse, T* cosines, T* along) {
  using V = Vector<T>;
  for (std::int64_t j = 0; j < n * t.sub_centers; ++j) along[j] = 0;
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = 0; i < t.padded; i += vector_size<T>) {
      V left = load_lanes<V>(g + j * t.padded + i);
      const V largest = load_lanes<V>(best + j * t.padded + i);
      for (std::int64_t k = j * t.sub_centers; k < (j + 1) * t.sub_centers; ++k) {
        const V c = load_lanes<V>(cosines + k * t.padded + i);
        const V here = xsimd::select(c == largest, left, V(T(0))) * V(inverse[k]);
        left = xsimd::select(c == largest, V(T(0)), left);
        along[k] += xsimd::hadd(V(here * c)) * inverse[k];
        store_lanes(cosines + k * t.padded + i, here);
      }
    }
}

/// local[i] = position of the label of row i in the tile, -1 if it is elsewhere.
template <class T>
void margin_local_labels(const MarginTiles<T>& t, std::int64_t tile, const std::int64_t* labels,
                         T* local) {
  for (std::int64_t i = 0; i < t.padded; ++i) {
    const std::int64_t at = i < t.batch ? labels[i] - t.begin(tile) : -1;
    local[i] = at >= 0 && at < t.size(tile) ? static_cast<T>(at) : T(-1);
  }
}

/// What a row has gathered over the classes of a chunk, the label left out.
template <class T>
struct MarginStatistics {
  T *largest, *sum, *total;  ///< of z; of exp(z - largest); of z. Each [padded]
  MarginStatistics(T* data, std::int64_t padded)
      : largest(data), sum(data + padded), total(sum + padded) {}
  void clear(std::int64_t padded) const {
    std::fill(largest, largest + padded, T(-1e30));  // finite: differences must not be NaN
    std::fill(sum, sum + padded, T(0));
    std::fill(total, total + padded, T(0));
  }
};

/// Adds a tile to the statistics. The running maximum (Milakov and Gimelshein, "Online normalizer
/// calculation for softmax", 2018) keeps every scale and number of classes within range.
template <class Policy, class T>
void margin_tile_statistics(const MarginTiles<T>& t, const Policy& policy, std::int64_t n,
                            const T* cosines, const T* local, const MarginRows<T>& rows,
                            const MarginStatistics<T>& stats) {
  using V = Vector<T>;
  const V scale(policy.scale);
  for (std::int64_t i = 0; i < t.padded; i += vector_size<T>) {
    const V label = load_lanes<V>(local + i), before = load_lanes<V>(stats.largest + i);
    const auto values = rows.template at<Policy, V>(i);
    auto logit = [&](std::int64_t j) {
      const V c = load_lanes<V>(cosines + j * t.padded + i);
      return V(scale * policy.negative(c, values.data()).value);
    };
    V largest = before;
    for (std::int64_t j = 0; j < n; ++j)
      largest =
          xsimd::select(label == V(static_cast<T>(j)), largest, xsimd::max(largest, logit(j)));
    V sum = load_lanes<V>(stats.sum + i) * xsimd::exp(V(before - largest));
    V total = load_lanes<V>(stats.total + i);
    for (std::int64_t j = 0; j < n; ++j) {
      const V z = logit(j);
      const auto is_label = label == V(static_cast<T>(j));
      sum += xsimd::select(is_label, V(T(0)), xsimd::exp(V(z - largest)));
      total += xsimd::select(is_label, V(T(0)), z);
    }
    store_lanes(stats.largest + i, largest);
    store_lanes(stats.sum + i, sum);
    store_lanes(stats.total + i, total);
  }
}

/// Merges the statistics of the chunks in their order; returns the loss of row i. With Ln the
/// log-sum-exp of the negatives and z the target logit, CE = softplus(Ln - z) and
/// p_y - 1 = -sigmoid(Ln - z) keep their digits where the row is nearly right.
template <class Policy, class T>
double margin_finish_row(const MarginTiles<T>& t, const Policy& policy, const T* stats,
                         std::int64_t i, double epsilon, const MarginRows<T>& rows) {
  double largest = -1e30, sum = 0, total = 0;
  for (std::int64_t chunk = 0; chunk < t.chunks; ++chunk) {
    const T* s = stats + chunk * 3 * t.padded + i;
    const double m = std::max<double>(largest, s[0]);
    sum = sum * std::exp(largest - m) + s[t.padded] * std::exp(s[0] - m);
    total += s[2 * t.padded];
    largest = m;
  }
  const auto values = rows.template at<Policy, T>(i);
  const MarginTarget<T> target = policy.target(rows.target[i], values.data());
  const double z = static_cast<double>(policy.scale) * target.value;
  const double classes = static_cast<double>(t.classes);
  const double excess = t.classes == 1 ? -std::numeric_limits<double>::infinity()
                                       : largest + std::log(sum) - z;  // Ln - z
  const double tail = std::exp(-std::abs(excess));
  const double softplus = std::max(excess, 0.0) + std::log1p(tail);
  const double sigmoid = (excess > 0 ? 1.0 : tail) / (1 + tail);
  const double gradient = epsilon - sigmoid - epsilon / classes;  // dL_i/dz_iy
  rows.log_sum_exp[i] = static_cast<T>(z + softplus);
  rows.label_gradient[i] = static_cast<T>(gradient * target.derivative);
  rows.norm_gradient[i] = static_cast<T>(gradient * target.by_norm);
  return softplus + epsilon * z - epsilon / classes * (total + z);
}

/// Turns the cosines of n classes into g_ij = dL/dc_ij in place or, if the inverse norms of the
/// centres are given, into G[j,i] = g_ij / |w_j| and along[j] = sum_i G[j,i] c_ij / |w_j|.
template <class Policy, class T>
void margin_tile_gradient(const MarginTiles<T>& t, const Policy& policy, std::int64_t n, T smooth,
                          T factor, const T* local, const MarginRows<T>& rows, const T* inverse,
                          const T* cosines, T* g, T* along) {
  using V = Vector<T>;
  const V scale(policy.scale);
  for (std::int64_t j = 0; j < n; ++j) {
    const T rho = inverse == nullptr ? T(1) : inverse[j];
    const V position(static_cast<T>(j)), common(factor * policy.scale * rho);
    V sum(T(0));
    for (std::int64_t i = 0; i < t.padded; i += vector_size<T>) {
      const V c = load_lanes<V>(cosines + j * t.padded + i);
      const auto negative = policy.negative(c, rows.template at<Policy, V>(i).data());
      const V p = xsimd::exp(V(scale * negative.value - load_lanes<V>(rows.log_sum_exp + i)));
      const V other = (p - V(smooth)) * negative.derivative;
      const V gradient = common * xsimd::select(load_lanes<V>(local + i) == position,
                                                load_lanes<V>(rows.label_gradient + i), other);
      sum += gradient * c;
      store_lanes(g + j * t.padded + i, gradient);
    }
    if (inverse != nullptr) along[j] = xsimd::hadd(sum) * rho;
  }
}

/// From G of n centres: dw += G u - along w (if given; = if `fresh`), dx_sum (+)= G^T w (if given).
/// The first loop reads w and dw from memory in order and leaves them in the cache for the two
/// products.
template <class T>
void margin_tile_products(const MarginTiles<T>& t, std::int64_t n, const T* g, const T* along,
                          const PackedB<T>& unit, const T* w, T* dx_sum, bool first, T* dw,
                          bool fresh, T* scratch) {
  if (dw != nullptr) {
    for (std::int64_t j = 0; j < n; ++j) {
      const T *in = w + j * t.dim, a = along[j];
      T* out = dw + j * t.dim;
      vector_loop<T>(t.dim, [=](auto lane, std::int64_t d) {
        using V = typename decltype(lane)::type;
        const V before = fresh ? V(T(0)) : load_lanes<V>(out + d);
        store_lanes(out + d, V(before - V(a) * load_lanes<V>(in + d)));
      });
    }
    gemm_chunk<T>(RowsOfA<T>{g, t.padded}, unit, MatrixC<T>{dw, t.dim}, 0, n, t.dim, 0, t.batch,
                  true, scratch);
  }
  if (dx_sum != nullptr)
    gemm_serial(Transpose::yes, Transpose::no, t.batch, t.dim, n, g, t.padded, w, t.dim, dx_sum,
                t.dim, !first, scratch);
}

/// dx_i (+)= (v_i - (v_i.u_i) u_i) / |x_i| + factor norm_gradient_i u_i with v_i = the sums of all
/// chunks, added in order into the first of them.
template <class T>
void margin_finish_features(Context& ctx, const MarginTiles<T>& t, const MarginInputs<T>& in,
                            T* dx_sums, const T* norm_gradient, T factor, bool accumulate, T* dx) {
  const std::int64_t size = t.batch * t.dim;
  const T *unit = in.unit.data, *inverse = in.inverse_norms.data;
  ctx.parallel_for(t.batch, [=](std::int64_t i) {
    T* v = dx_sums + i * t.dim;
    for (std::int64_t chunk = 1; chunk < t.chunks; ++chunk)
      for (std::int64_t d = 0; d < t.dim; ++d) v[d] += v[chunk * size + d];
    const T* u = unit + i * t.dim;
    const T along = static_cast<T>(dot_double(t.dim, v, u));
    T* out = dx + i * t.dim;
    for (std::int64_t d = 0; d < t.dim; ++d) {
      const T gradient = (v[d] - along * u[d]) * inverse[i] + factor * norm_gradient[i] * u[d];
      out[d] = accumulate ? out[d] + gradient : gradient;
    }
  });
}

/// Memory of one thread, cut into the pieces that a tile needs.
template <class T>
struct MarginScratch {
  Tensor<T> memory;
  std::int64_t cosines_size, best_size, vectors_size, centres_size, thread_size;

  MarginScratch(Context& ctx, const MarginTiles<T>& t, bool with_cosines, bool with_centres)
      : cosines_size(with_cosines ? round_up(t.tile * t.sub_centers * t.padded, 64) : 0),
        best_size(t.sub_centers > 1 ? round_up(t.tile * t.padded, 64) : 0),
        vectors_size(round_up(t.padded, 64)),
        centres_size(with_centres ? round_up(t.tile * t.sub_centers * t.dim, 64) : 0),
        thread_size(gemm_scratch_size<T>() + cosines_size + 2 * best_size + vectors_size +
                    round_up(t.tile * t.sub_centers, 64) + centres_size) {
    memory = ctx.make<T>({ctx.threads(), thread_size}, "margin tile");
  }
  T* gemm(int thread) const { return memory.data + thread * thread_size; }
  T* cosines(int thread) const { return gemm(thread) + gemm_scratch_size<T>(); }
  T* best(int thread) const { return cosines(thread) + cosines_size; }
  T* class_gradient(int thread) const { return best(thread) + best_size; }
  T* local(int thread) const { return class_gradient(thread) + best_size; }
  T* centre_gradient(int thread) const { return local(thread) + vectors_size; }
  T* along(int thread) const { return centre_gradient(thread) + centres_size; }
};

/// The cosines of the classes of a tile: those of its centres, or the largest for each class.
template <class T>
const T* margin_class_cosines(const MarginTiles<T>& t, std::int64_t n, const T* cosines, T* best) {
  if (t.sub_centers == 1) return cosines;
  margin_tile_best(t, n, cosines, best);
  return best;
}

/// The first pass: cosines (into `stored` if it is not null) and statistics per chunk.
template <class Policy, class T>
void margin_first_pass(Context& ctx, const MarginTiles<T>& t, const Policy& policy,
                       const MarginInputs<T>& in, const MarginScratch<T>& scratch, const T* w,
                       const std::int64_t* labels, const MarginRows<T>& rows, T* stored, T* stats) {
  t.loop(ctx, [&](std::int64_t tile, std::int64_t chunk, int thread) {
    const std::int64_t n = t.size(tile), j0 = t.begin(tile) * t.sub_centers;
    const T* centres = w + j0 * t.dim;
    T* inverse = in.inverse_centres.data + j0;
    T* cosines = stored != nullptr ? stored + j0 * t.padded : scratch.cosines(thread);
    inverse_norms_of_rows(n * t.sub_centers, t.dim, centres, inverse);
    margin_tile_cosines(t, n * t.sub_centers, centres, inverse, in.columns, cosines,
                        scratch.gemm(thread));
    margin_local_labels(t, tile, labels, scratch.local(thread));
    const MarginStatistics<T> sums(stats + chunk * 3 * t.padded, t.padded);
    if (tile == chunk * t.tiles_per_chunk) sums.clear(t.padded);
    margin_tile_statistics(t, policy, n, margin_class_cosines(t, n, cosines, scratch.best(thread)),
                           scratch.local(thread), rows, sums);
  });
}

/// Whether the loss and the gradient of every centre are finite, as far as it is known after the
/// first pass: |dw_j| <= 2 rho_j sum_i |g_ij|, in which rho_j^2 sum_i g_ij c_ij is computed.
template <class T>
bool margin_centres_finite(const MarginTiles<T>& t, const T* inverse_centres, T factor,
                           const MarginRows<T>& rows, T loss) {
  double steepest = 1;
  bool finite = std::isfinite(loss);
  for (std::int64_t i = 0; i < t.batch; ++i) {
    const double slope = std::abs(static_cast<double>(rows.label_gradient[i]));
    finite = finite && std::isfinite(slope);
    steepest = std::max(steepest, slope);
  }
  const double sum =
      std::abs(static_cast<double>(factor)) * static_cast<double>(t.batch) * steepest;
  const T longest = static_cast<T>(std::sqrt(kernels::margin_update_limit<T> / sum));
  std::int64_t within = 0;  // NaN is not
  for (std::int64_t j = 0; j < t.classes * t.sub_centers; ++j)
    within += inverse_centres[j] < longest ? 1 : 0;
  return finite && within == t.classes * t.sub_centers;
}

/// The second pass: cosines to gradients, tile by tile, and what they are for.
template <class Policy, class T>
struct MarginSecondPass {
  const MarginTiles<T>& t;
  const Policy& policy;
  const MarginInputs<T>& in;
  const MarginScratch<T>& scratch;
  const MarginRows<T>& rows;
  const T* w;
  const std::int64_t* labels;
  T smooth, factor;
  T* stored;   ///< the cosines, if they were kept
  T* dx_sums;  ///< null: none are wanted
  kernels::CenterGradient<Context, T> centres;

  void operator()(Context& ctx) const {
    t.loop(ctx, [&](std::int64_t tile, std::int64_t chunk, int thread) {
      const std::int64_t j0 = t.begin(tile) * t.sub_centers, n = t.size(tile) * t.sub_centers;
      T* cosines = stored != nullptr ? stored + j0 * t.padded : scratch.cosines(thread);
      gradients_of_cosines(tile, cosines, thread);
      const bool update = centres.update != nullptr;
      T* dw = update                      ? scratch.centre_gradient(thread)
              : centres.stored != nullptr ? centres.stored + j0 * t.dim
                                          : nullptr;
      margin_tile_products(t, n, cosines, scratch.along(thread), in.rows, w + j0 * t.dim,
                           dx_sums == nullptr ? nullptr : dx_sums + chunk * t.batch * t.dim,
                           tile == chunk * t.tiles_per_chunk, dw, update, scratch.gemm(thread));
      // Nobody reads these rows of w any more.
      if (update) (*centres.update)(ctx, j0 * t.dim, n * t.dim, dw, centres.taken);
    });
  }

  /// `cosines` becomes G of the tile, with its `along` in the scratch.
  void gradients_of_cosines(std::int64_t tile, T* cosines, int thread) const {
    const std::int64_t n = t.size(tile), j0 = t.begin(tile) * t.sub_centers;
    const T* inverse = in.inverse_centres.data + j0;
    T *local = scratch.local(thread), *along = scratch.along(thread);
    if (stored == nullptr)
      margin_tile_cosines(t, n * t.sub_centers, w + j0 * t.dim, inverse, in.columns, cosines,
                          scratch.gemm(thread));
    margin_local_labels(t, tile, labels, local);
    if (t.sub_centers == 1) {
      margin_tile_gradient(t, policy, n, smooth, factor, local, rows, inverse, cosines, cosines,
                           along);
    } else {
      T *best = scratch.best(thread), *g = scratch.class_gradient(thread);
      margin_tile_best(t, n, cosines, best);
      margin_tile_gradient<Policy, T>(t, policy, n, smooth, factor, local, rows, nullptr, best, g,
                                      nullptr);
      margin_tile_split(t, n, g, best, inverse, cosines, along);
    }
  }
};

template <class Policy, class T>
void margin_softmax(Context& ctx, const Policy& policy, std::int64_t batch, std::int64_t dim,
                    std::int64_t classes, const T* x, const T* w, const std::int64_t* labels,
                    T epsilon, T weight, T* loss, T* dx,
                    const kernels::CenterGradient<Context, T>& dw, std::int64_t store_limit) {
  const MarginTiles<T> t(batch, dim, classes, policy.sub_centers());
  const std::int64_t centres = classes * t.sub_centers;
  const bool gradients = dx != nullptr || dw.wanted();
  const bool store =
      gradients && centres <= store_limit / static_cast<std::int64_t>(sizeof(T)) / t.padded;
  const MarginInputs<T> in(ctx, t);
  const MarginScratch<T> scratch(ctx, t, !store, dw.update != nullptr);
  auto stored = ctx.make<T>({store ? centres : 0, t.padded}, "cosines");
  auto stats = ctx.make<T>({t.chunks, 3, t.padded}, "softmax statistics");
  auto row_values =
      ctx.make<T>({MarginRows<T>::fields + Policy::row_values, t.padded}, "softmax rows");
  auto dx_sums = ctx.make<T>({dx != nullptr ? t.chunks : 0, batch, dim}, "feature gradients");
  if (ctx.planning()) return;
  check_labels("margin_softmax", labels, batch, classes);
  T* kept = store ? stored.data : nullptr;
  in.normalize(t, x);
  std::fill(row_values.begin(), row_values.end(), T(0));
  const MarginRows<T> rows(row_values.data, t.padded);
  margin_begin(t, policy, x, w, labels, true, rows);
  margin_first_pass(ctx, t, policy, in, scratch, w, labels, rows, kept, stats.data);

  double sum = 0;
  for (std::int64_t i = 0; i < batch; ++i)
    sum += margin_finish_row(t, policy, stats.data, i, static_cast<double>(epsilon), rows);
  *loss = static_cast<T>(sum / static_cast<double>(batch));
  if (!gradients) return;

  const T smooth = epsilon / static_cast<T>(classes), factor = weight / static_cast<T>(batch);
  if (dw.update != nullptr)
    *dw.taken =
        margin_centres_finite<T>(t, in.inverse_centres.data, factor * policy.scale, rows, *loss)
            ? T(1)
            : T(0);
  T* sums = dx != nullptr ? dx_sums.data : nullptr;
  MarginSecondPass<Policy, T>{t,      policy, in,     scratch, rows, w,
                              labels, smooth, factor, kept,    sums, dw}(ctx);
  if (dx != nullptr)
    margin_finish_features(ctx, t, in, sums, rows.norm_gradient, factor * policy.scale, true, dx);
}

/// One matrix product, whose columns are then divided by the norms of the centres.
template <class T>
void margin_logits_of_centres(Context& ctx, const MarginTiles<T>& t, const T* x, const T* w,
                              T* cosines) {
  const MarginInputs<T> in(ctx, t);
  if (!ctx.planning()) in.normalize(t, x);
  T* inverse = in.inverse_centres.data;
  t.loop(ctx, [&](std::int64_t tile, std::int64_t, int) {
    inverse_norms_of_rows(t.size(tile), t.dim, w + t.begin(tile) * t.dim, inverse + t.begin(tile));
  });
  gemm(ctx, Transpose::no, Transpose::yes, t.batch, t.classes, t.dim,
       static_cast<const T*>(in.unit.data), t.dim, w, t.dim, cosines, t.classes, false);
  ctx.parallel_for(t.batch, [=, classes = t.classes](std::int64_t i) {
    T* row = cosines + i * classes;
    vector_loop<T>(classes, [=](auto lane, std::int64_t j) {
      using V = typename decltype(lane)::type;
      store_lanes(row + j, V(load_lanes<V>(row + j) * load_lanes<V>(inverse + j)));
    });
  });
}

/// Tile by tile, because of the cosines of a class only the largest is kept.
template <class T>
void margin_logits_of_sub_centres(Context& ctx, const MarginTiles<T>& t, const T* x, const T* w,
                                  T* cosines) {
  const MarginInputs<T> in(ctx, t);
  const MarginScratch<T> scratch(ctx, t, true, false);
  if (ctx.planning()) return;
  in.normalize(t, x);
  t.loop(ctx, [&](std::int64_t tile, std::int64_t, int thread) {
    const std::int64_t n = t.size(tile), j0 = t.begin(tile) * t.sub_centers;
    T *inverse = in.inverse_centres.data + j0, *all = scratch.cosines(thread);
    T* best = scratch.best(thread);
    inverse_norms_of_rows(n * t.sub_centers, t.dim, w + j0 * t.dim, inverse);
    margin_tile_cosines(t, n * t.sub_centers, w + j0 * t.dim, inverse, in.columns, all,
                        scratch.gemm(thread));
    margin_tile_best(t, n, all, best);
    for (std::int64_t i = 0; i < t.batch; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        cosines[i * t.classes + t.begin(tile) + j] = best[j * t.padded + i];
  });
}

template <class T>
void margin_logits(Context& ctx, std::int64_t batch, std::int64_t dim, std::int64_t classes,
                   std::int64_t sub_centers, const T* x, const T* w, T* cosines) {
  const MarginTiles<T> t(batch, dim, classes, sub_centers);
  if (sub_centers == 1)
    margin_logits_of_centres(ctx, t, x, w, cosines);
  else
    margin_logits_of_sub_centres(ctx, t, x, w, cosines);
}

template <class Policy, class T>
void margin_logits_forward(Context& ctx, const Policy& policy, std::int64_t batch, std::int64_t dim,
                           std::int64_t classes, const T* x, const T* w, const std::int64_t* labels,
                           T* logits) {
  const MarginTiles<T> t(batch, dim, classes, policy.sub_centers());
  auto row_values =
      ctx.make<T>({MarginRows<T>::fields + Policy::row_values, t.padded}, "logit rows");
  if (!ctx.planning()) check_labels("margin_logits_forward", labels, batch, classes);
  margin_logits(ctx, batch, dim, classes, t.sub_centers, x, w, logits);
  if (ctx.planning()) return;
  const MarginRows<T> rows(row_values.data, t.padded);
  margin_begin(t, policy, x, w, labels, true, rows);
  ctx.parallel_for(batch, [=, &policy](std::int64_t i) {
    T* row = logits + i * classes;
    const auto own = rows.template at<Policy, T>(i);
    vector_loop<T>(classes, [&](auto lane, std::int64_t j) {
      using V = typename decltype(lane)::type;
      std::array<V, Policy::row_values + 1> same{};
      for (std::size_t k = 0; k + 1 < same.size(); ++k) same[k] = V(own[k]);
      const auto negative = policy.negative(load_lanes<V>(row + j), same.data());
      store_lanes(row + j, V(V(policy.scale) * negative.value));
    });
    row[labels[i]] = policy.scale * policy.target(rows.target[i], own.data()).value;
  });
}

/// The cosines of n classes become g_ij or G as in margin_tile_gradient, from dL/dz_ij.
template <class Policy, class T>
void margin_tile_chain(const MarginTiles<T>& t, const Policy& policy, std::int64_t j0,
                       std::int64_t n, const T* dlogits, const std::int64_t* labels,
                       const MarginRows<T>& rows, const T* inverse, const T* cosines, T* g,
                       T* along) {
  for (std::int64_t j = 0; j < n; ++j) {
    const T rho = inverse == nullptr ? T(1) : inverse[j];
    T sum = 0;
    for (std::int64_t i = 0; i < t.batch; ++i) {
      const T c = cosines[j * t.padded + i];
      const auto values = rows.template at<Policy, T>(i);
      const T derivative = labels[i] == j0 + j ? rows.label_gradient[i]
                                               : policy.negative(c, values.data()).derivative;
      const T gradient = dlogits[i * t.classes + j0 + j] * policy.scale * derivative * rho;
      sum += gradient * c;
      g[j * t.padded + i] = gradient;
    }
    for (std::int64_t i = t.batch; i < t.padded; ++i) g[j * t.padded + i] = 0;
    if (inverse != nullptr) along[j] = sum * rho;
  }
}

template <class Policy, class T>
void margin_logits_backward(Context& ctx, const Policy& policy, std::int64_t batch,
                            std::int64_t dim, std::int64_t classes, const T* dlogits, const T* x,
                            const T* w, const std::int64_t* labels, T* dx, T* dw) {
  const MarginTiles<T> t(batch, dim, classes, policy.sub_centers());
  const MarginInputs<T> in(ctx, t);
  const MarginScratch<T> scratch(ctx, t, true, false);
  auto row_values =
      ctx.make<T>({MarginRows<T>::fields + Policy::row_values, t.padded}, "logit rows");
  auto dx_sums = ctx.make<T>({t.chunks, batch, dim}, "feature gradients");
  if (ctx.planning()) return;
  check_labels("margin_logits_backward", labels, batch, classes);
  in.normalize(t, x);
  const MarginRows<T> rows(row_values.data, t.padded);
  margin_begin(t, policy, x, w, labels, false, rows);
  for (std::int64_t i = 0; i < batch; ++i) {
    const auto values = rows.template at<Policy, T>(i);
    const MarginTarget<T> target = policy.target(rows.target[i], values.data());
    rows.label_gradient[i] = target.derivative;
    rows.norm_gradient[i] = dlogits[i * classes + labels[i]] * target.by_norm;
  }
  t.loop(ctx, [&](std::int64_t tile, std::int64_t chunk, int thread) {
    const std::int64_t n = t.size(tile), first = t.begin(tile), j0 = first * t.sub_centers;
    T *inverse = in.inverse_centres.data + j0, *cosines = scratch.cosines(thread);
    T* along = scratch.along(thread);
    inverse_norms_of_rows(n * t.sub_centers, dim, w + j0 * dim, inverse);
    margin_tile_cosines(t, n * t.sub_centers, w + j0 * dim, inverse, in.columns, cosines,
                        scratch.gemm(thread));
    if (t.sub_centers == 1) {
      margin_tile_chain(t, policy, first, n, dlogits, labels, rows, inverse, cosines, cosines,
                        along);
    } else {
      T *best = scratch.best(thread), *g = scratch.class_gradient(thread);
      margin_tile_best(t, n, cosines, best);
      margin_tile_chain<Policy, T>(t, policy, first, n, dlogits, labels, rows, nullptr, best, g,
                                   nullptr);
      margin_tile_split(t, n, g, best, inverse, cosines, along);
    }
    margin_tile_products(t, n * t.sub_centers, cosines, along, in.rows, w + j0 * dim,
                         dx_sums.data + chunk * batch * dim, tile == chunk * t.tiles_per_chunk,
                         dw == nullptr ? nullptr : dw + j0 * dim, false, scratch.gemm(thread));
  });
  margin_finish_features(ctx, t, in, dx_sums.data, rows.norm_gradient, policy.scale, false, dx);
}

}  // namespace kindred::cpu
