#pragma once
// Every row is shifted by its maximum; the sum of the row losses is taken in row order. Bound by
// two exponentials an element; a row is read three times, from memory once while it fits into L2,
// and that of dlogits is read and written.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <kindred/core/context.hpp>
#include <kindred/kernels/cpu/vector_loop.hpp>

namespace kindred::cpu {

/// Throws DataError unless every label is in [0, classes).
inline void check_labels(const char* place, const std::int64_t* labels, std::int64_t batch,
                         std::int64_t classes) {
  for (std::int64_t b = 0; b < batch; ++b)
    if (labels[b] < 0 || labels[b] >= classes)
      throw DataError(text(place, ": label ", labels[b], " of row ", b, " is not in [0, ", classes,
                           "); set class_num to at least the largest label + 1"));
}

template <class T>
T row_maximum(std::int64_t n, const T* z) {
  T largest = -std::numeric_limits<T>::infinity();
  for (std::int64_t c = 0; c < n; ++c) largest = std::max(largest, z[c]);
  return largest;
}

/// log sum_c exp(z[c]) of a row.
template <class T>
T log_sum_exp(std::int64_t n, const T* z) {
  const T shift = row_maximum(n, z);
  Vector<T> lanes(T(0));
  T rest = 0;
  vector_loop<T>(n, [&](auto lane, std::int64_t c) {
    using V = typename decltype(lane)::type;
    if constexpr (std::is_same_v<V, T>)
      rest += std::exp(z[c] - shift);
    else
      lanes += xsimd::exp(load_lanes<V>(z + c) - V(shift));
  });
  return shift + std::log(xsimd::hadd(lanes) + rest);
}

template <class T>
void softmax_cross_entropy(Context& ctx, std::int64_t batch, std::int64_t classes, const T* logits,
                           const std::int64_t* labels, T epsilon, T weight, T* loss, T* dlogits) {
  auto row_losses = ctx.template make<T>({batch}, "row losses");
  if (ctx.planning()) return;
  check_labels("softmax_cross_entropy", labels, batch, classes);
  const T smooth = epsilon / static_cast<T>(classes), factor = weight / static_cast<T>(batch);
  T* losses = row_losses.data;
  ctx.parallel_for(batch, [=](std::int64_t b) {
    const T* z = logits + b * classes;
    const std::int64_t label = labels[b];
    const T lse = log_sum_exp(classes, z);
    // sum_c t_c (lse - z_c), so that large logits cancel term by term.
    T smooth_loss = 0;
    if (epsilon != T(0))
      for (std::int64_t c = 0; c < classes; ++c) smooth_loss += lse - z[c];
    losses[b] = (T(1) - epsilon) * (lse - z[label]) + smooth * smooth_loss;
    if (dlogits == nullptr) return;
    T* dz = dlogits + b * classes;
    vector_loop<T>(classes, [=](auto lane, std::int64_t c) {
      using V = typename decltype(lane)::type;
      using std::exp;
      using xsimd::exp;
      const V p = exp(V(load_lanes<V>(z + c) - V(lse)));
      store_lanes(dz + c, V(load_lanes<V>(dz + c) + V(factor) * (p - V(smooth))));
    });
    dz[label] -= factor * (T(1) - epsilon);
  });
  double sum = 0;
  for (std::int64_t b = 0; b < batch; ++b) sum += losses[b];
  *loss = static_cast<T>(sum / static_cast<double>(batch));
}

}  // namespace kindred::cpu
