#pragma once
// Bound by memory. Training reads x twice and writes y; the backward reads dy and x twice and
// writes dx. x, y and dx may be BF16, read and written as such. Everything per channel stays in the
// first-level cache.
//
// Channels are the fastest extent and often few, so several rows are treated as one "wide" row:
// its width is a multiple of the vector size and long enough to hide latencies. Values per channel
// are repeated accordingly.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

/// How a rows x channels array is cut; depends on the shape alone.
template <class T>
struct WideRows {
  std::int64_t elements, channels, width, chunk, chunks;

  WideRows(std::int64_t rows, std::int64_t c) : elements(rows * c), channels(c), width(c) {
    constexpr std::int64_t many = 128;  // from here on a scalar rest of a row does not matter
    if (c < many) {
      const std::int64_t group = vector_size<T> / std::gcd(c, vector_size<T>);
      width = c * group;
      while (width < 4 * vector_size<T>) width *= 2;
    }
    constexpr std::int64_t cached = 1 << 16;  // elements of a chunk: within the second-level cache
    chunk = std::max<std::int64_t>(1, cached / width) * width;
    chunks = (elements + chunk - 1) / chunk;
  }
  std::int64_t begin(std::int64_t i) const { return i * chunk; }
  std::int64_t end(std::int64_t i) const { return std::min(elements, (i + 1) * chunk); }
  /// Rows that contribute to sums over chunk i.
  std::int64_t rows(std::int64_t i) const { return (end(i) - begin(i)) / channels; }

  /// Calls body(lane, element, column) for the elements of [begin, end); begin starts a wide row.
  template <class Body>
  void loop(std::int64_t begin, std::int64_t end, Body&& body) const {
    for (std::int64_t base = begin; base < end; base += width)
      vector_loop<T>(std::min(width, end - base),
                     [&](auto lane, std::int64_t j) { body(lane, base + j, j); });
  }
  /// Sum in double over the repetitions of channel c in an array of `width` sums.
  double fold(const T* wide, std::int64_t c) const {
    double sum = 0;
    for (std::int64_t j = c; j < width; j += channels) sum += wide[j];
    return sum;
  }
  /// wide[j] = value(channel of column j).
  template <class Value>
  void spread(T* wide, Value&& value) const {
    for (std::int64_t j = 0; j < width; ++j) wide[j] = value(j % channels);
  }
};

/// y = act(k (x - mean) + beta) with mean, k and beta given per column of a wide row.
template <class T, class X, class Y>
void batch_norm_apply(Context& ctx, const WideRows<T>& wide, const X* x, const T* mean, const T* k,
                      const T* beta, Activation act, Y* y) {
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    // From the back, where the pass over x that came before may have left the cache filled.
    ctx.parallel_for(wide.chunks, [=](std::int64_t i) {
      const std::int64_t chunk = wide.chunks - 1 - i;
      wide.loop(wide.begin(chunk), wide.end(chunk), [=](auto lane, std::int64_t e, std::int64_t j) {
        using V = typename decltype(lane)::type;
        const V d = load_lanes<V>(x + e) - load_lanes<V>(mean + j);
        store_lanes(y + e, activate<A>(V(d * load_lanes<V>(k + j) + load_lanes<V>(beta + j))));
      });
    });
  });
}

/// Sums of d and d^2 over one chunk, d = x - shift, with a shift near the mean. The shift is the
/// mean of about an eighth of the rows, so by Cauchy-Schwarz (number of rows) (mean - shift)^2 is
/// at most about 8 times the sum of squared deviations: taking it off later loses no more than
/// three bits, whatever the data, and no second pass is needed. sums: shift, d, d^2 of `width`
/// each.
template <class T, class X>
void batch_norm_chunk_sums(const WideRows<T>& wide, std::int64_t begin, std::int64_t end,
                           const X* x, T* sums) {
  T *shift = sums, *first = sums + wide.width, *second = sums + 2 * wide.width;
  std::fill(sums, sums + 3 * wide.width, T(0));
  const std::int64_t full = (end - begin) / wide.width;
  const std::int64_t sample_end = full == 0 ? end : begin + (full + 7) / 8 * wide.width;
  wide.loop(begin, sample_end, [=](auto lane, std::int64_t e, std::int64_t j) {
    using V = typename decltype(lane)::type;
    store_lanes(first + j, V(load_lanes<V>(first + j) + load_lanes<V>(x + e)));
  });
  const double sample_rows = static_cast<double>((sample_end - begin) / wide.channels);
  for (std::int64_t c = 0; c < wide.channels; ++c) {
    const T mean = static_cast<T>(wide.fold(first, c) / sample_rows);
    for (std::int64_t j = c; j < wide.width; j += wide.channels) shift[j] = mean;
  }
  std::fill(first, first + wide.width, T(0));
  wide.loop(begin, end, [=](auto lane, std::int64_t e, std::int64_t j) {
    using V = typename decltype(lane)::type;
    const V d = load_lanes<V>(x + e) - load_lanes<V>(shift + j);
    store_lanes(first + j, V(load_lanes<V>(first + j) + d));
    store_lanes(second + j, V(load_lanes<V>(second + j) + d * d));
  });
}

struct MeanAndVariance {
  double mean, variance;  ///< biased
};

/// Merges the chunks in their order (Chan, Golub and LeVeque, "Algorithms for computing the sample
/// variance", 1983).
template <class T>
MeanAndVariance batch_norm_merge(const WideRows<T>& wide, const T* sums, std::int64_t c) {
  double count = 0, mean = 0, m2 = 0;
  for (std::int64_t i = 0; i < wide.chunks; ++i) {
    const T* s = sums + i * 3 * wide.width;
    const double n = static_cast<double>(wide.rows(i));
    const double first = wide.fold(s + wide.width, c), second = wide.fold(s + 2 * wide.width, c);
    const double delta = s[c] + first / n - mean;
    m2 += second - first * first / n + delta * delta * (count * n / (count + n));
    mean += delta * (n / (count + n));
    count += n;
  }
  return {mean, std::max(m2 / count, 0.0) + 0 * m2};  // 0 * m2 keeps NaN
}

template <class T, class X, class Y>
void batch_norm_forward(Context& ctx, std::int64_t rows, std::int64_t channels, const X* x,
                        const T* gamma, const T* beta, T eps, T momentum, Activation act, T* mean,
                        T* inv_std, T* running_mean, T* running_var, Y* y) {
  const WideRows<T> wide(rows, channels);
  auto partial = ctx.template make<T>({wide.chunks, 3, wide.width}, "batch norm sums");
  auto columns = ctx.template make<T>({3, wide.width}, "batch norm columns");
  T *sums = partial.data, *m = columns.data, *k = m + wide.width, *shift = k + wide.width;
  ctx.parallel_for(wide.chunks, [=](std::int64_t i) {
    batch_norm_chunk_sums(wide, wide.begin(i), wide.end(i), x, sums + i * 3 * wide.width);
  });
  constexpr std::int64_t channels_at_once = 64;
  ctx.parallel_ranges(channels, channels_at_once, [=](std::int64_t c, std::int64_t end) {
    for (; c < end; ++c) {
      const MeanAndVariance merged = batch_norm_merge(wide, sums, c);
      mean[c] = static_cast<T>(merged.mean);
      inv_std[c] = static_cast<T>(1 / std::sqrt(merged.variance + eps));
      if (running_mean == nullptr) continue;
      const T fresh = T(1) - momentum;
      running_mean[c] = momentum * running_mean[c] + fresh * mean[c];
      running_var[c] = momentum * running_var[c] + fresh * static_cast<T>(merged.variance);
    }
  });
  if (ctx.planning()) return;
  wide.spread(m, [=](std::int64_t c) { return mean[c]; });
  wide.spread(k, [=](std::int64_t c) { return gamma[c] * inv_std[c]; });
  wide.spread(shift, [=](std::int64_t c) { return beta[c]; });
  batch_norm_apply(ctx, wide, x, m, k, shift, act, y);
}

template <class T>
void batch_norm_inverse_std(Context& ctx, std::int64_t channels, const T* var, T eps, T* inv_std) {
  if (ctx.planning()) return;
  for (std::int64_t c = 0; c < channels; ++c) inv_std[c] = T(1) / std::sqrt(var[c] + eps);
}

template <class T>
void batch_norm_scale_shift(Context& ctx, std::int64_t channels, const T* gamma, const T* beta,
                            const T* mean, const T* var, T eps, T* scale, T* shift) {
  if (ctx.planning()) return;
  // In vectors: a network has thousands of channels, and one image would wait for their roots.
  vector_loop<T>(channels, [=](auto lane, std::int64_t c) {
    using V = typename decltype(lane)::type;
    using std::sqrt, xsimd::sqrt;
    const V k = load_lanes<V>(gamma + c) / sqrt(V(load_lanes<V>(var + c) + V(eps)));
    store_lanes(scale + c, k);
    store_lanes(shift + c, V(load_lanes<V>(beta + c) - load_lanes<V>(mean + c) * k));
  });
}

template <class T>
void batch_norm_inference(Context& ctx, std::int64_t rows, std::int64_t channels, const T* x,
                          const T* gamma, const T* beta, const T* mean, const T* var, T eps,
                          Activation act, T* y) {
  const WideRows<T> wide(rows, channels);
  auto columns = ctx.template make<T>({3, wide.width}, "batch norm columns");
  if (ctx.planning()) return;
  T *m = columns.data, *k = m + wide.width, *shift = k + wide.width;
  wide.spread(m, [=](std::int64_t c) { return mean[c]; });
  wide.spread(k, [=](std::int64_t c) { return gamma[c] / std::sqrt(var[c] + eps); });
  wide.spread(shift, [=](std::int64_t c) { return beta[c]; });
  batch_norm_apply(ctx, wide, x, m, k, shift, act, y);
}

/// What the backward needs per column of a wide row, with d = x - mean:
/// dx = k g - (q d + r), q = k inv_std sum(g u)/R, r = k sum(g)/R.
template <class T>
struct BatchNormColumns {
  T *mean, *k, *beta, *q, *r;
  BatchNormColumns(T* data, std::int64_t width)
      : mean(data), k(mean + width), beta(k + width), q(beta + width), r(q + width) {}
};

/// sums: of g and of g d over one chunk.
template <Activation A, class T, class X>
void batch_norm_backward_sums(const WideRows<T>& wide, std::int64_t begin, std::int64_t end,
                              const T* dy, const X* x, const BatchNormColumns<T>& col, T* sums) {
  T *first = sums, *second = sums + wide.width;
  std::fill(sums, sums + 2 * wide.width, T(0));
  wide.loop(begin, end, [=](auto lane, std::int64_t e, std::int64_t j) {
    using V = typename decltype(lane)::type;
    const V d = load_lanes<V>(x + e) - load_lanes<V>(col.mean + j);
    const V z = d * load_lanes<V>(col.k + j) + load_lanes<V>(col.beta + j);
    const V g = load_lanes<V>(dy + e) * activate_derivative<A>(z);
    store_lanes(first + j, V(load_lanes<V>(first + j) + g));
    store_lanes(second + j, V(load_lanes<V>(second + j) + g * d));
  });
}

template <Activation A, class T, class X, class DX>
void batch_norm_backward_apply(const WideRows<T>& wide, std::int64_t begin, std::int64_t end,
                               const T* dy, const X* x, const BatchNormColumns<T>& col, DX* dx) {
  wide.loop(begin, end, [=](auto lane, std::int64_t e, std::int64_t j) {
    using V = typename decltype(lane)::type;
    const V d = load_lanes<V>(x + e) - load_lanes<V>(col.mean + j);
    const V k = load_lanes<V>(col.k + j);
    const V g =
        load_lanes<V>(dy + e) * activate_derivative<A>(V(d * k + load_lanes<V>(col.beta + j)));
    store_lanes(dx + e, V(k * g - (load_lanes<V>(col.q + j) * d + load_lanes<V>(col.r + j))));
  });
}

template <class T, class X, class DX>
void batch_norm_backward(Context& ctx, std::int64_t rows, std::int64_t channels, const T* dy,
                         const X* x, const T* gamma, const T* beta, const T* mean, const T* inv_std,
                         Activation act, DX* dx, T* dgamma, T* dbeta, bool training) {
  const WideRows<T> wide(rows, channels);
  auto partial = ctx.template make<T>({wide.chunks, 2, wide.width}, "batch norm sums");
  auto columns = ctx.template make<T>({5, wide.width}, "batch norm columns");
  if (ctx.planning()) return;
  T* sums = partial.data;
  const BatchNormColumns<T> col(columns.data, wide.width);
  wide.spread(col.mean, [=](std::int64_t c) { return mean[c]; });
  wide.spread(col.k, [=](std::int64_t c) { return gamma[c] * inv_std[c]; });
  wide.spread(col.beta, [=](std::int64_t c) { return beta[c]; });
  dispatch_activation(act, [&](auto constant) {
    constexpr Activation A = decltype(constant)::value;
    ctx.parallel_for(wide.chunks, [=](std::int64_t i) {
      batch_norm_backward_sums<A>(wide, wide.begin(i), wide.end(i), dy, x, col,
                                  sums + i * 2 * wide.width);
    });
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum_g = 0, sum_gd = 0;
      for (std::int64_t i = 0; i < wide.chunks; ++i) {
        sum_g += wide.fold(sums + i * 2 * wide.width, c);
        sum_gd += wide.fold(sums + (i * 2 + 1) * wide.width, c);
      }
      const double sum_gu = sum_gd * inv_std[c],
                   share = training ? gamma[c] * inv_std[c] / static_cast<double>(rows) : 0;
      if (dgamma != nullptr) dgamma[c] += static_cast<T>(sum_gu);
      if (dbeta != nullptr) dbeta[c] += static_cast<T>(sum_g);
      for (std::int64_t j = c; j < wide.width; j += channels) {
        col.q[j] = static_cast<T>(share * inv_std[c] * sum_gu);
        col.r[j] = static_cast<T>(share * sum_g);
      }
    }
    ctx.parallel_for(wide.chunks, [=](std::int64_t i) {
      const std::int64_t chunk = wide.chunks - 1 - i;  // the last chunks may still be in the cache
      batch_norm_backward_apply<A>(wide, wide.begin(chunk), wide.end(chunk), dy, x, col, dx);
    });
  });
}

}  // namespace kindred::cpu
