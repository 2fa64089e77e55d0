#pragma once
// One row of distances per group; O(B^2) in all.

#include <cmath>
#include <cstdint>

#include <kindred/kernels/cuda/pair_rows.cuh>

namespace kindred::cuda {

template <class T>
struct BatchHardTripletRow {
  std::int64_t batch;
  const T* d2;
  const std::int64_t* labels;
  T margin, share, floor;
  T *hinges, *coefficients;

  template <class Group>
  __device__ void operator()(const Group& group, std::int64_t i) const {
    const T* row = d2 + i * batch;
    T* c = coefficients + i * batch;
    const auto value = [&](std::int64_t j) { return row[j]; };
    const auto same = [&](std::int64_t j) { return labels[j] == labels[i]; };
    const std::int64_t positive = group.argmax(batch, same, value);
    const std::int64_t negative = group.argmin(
        batch, [&](std::int64_t j) { return !same(j); }, value);
    T hinge = 0, dp = 0, dn = 0;
    if (negative >= 0) {
      const T ap = std::sqrt(row[positive]), an = std::sqrt(row[negative]);
      const T h = ap - an + margin;
      if (!(h <= T(0))) {
        hinge = h;  // NaN comes here and shows in the loss
        if (row[positive] > floor) dp = share / (2 * ap);
        if (row[negative] > floor) dn = -share / (2 * an);
      }
    }
    group.for_each(batch, [&](std::int64_t j) {
      c[j] = j == positive ? dp : j == negative ? dn : T(0);
    });
    group.once([&] { hinges[i] = hinge; });
  }
};

template <class T>
struct MeanHinge {
  std::int64_t batch;
  const T* hinges;
  T *loss, *active;
  template <class Group>
  __device__ void operator()(const Group& group, std::int64_t) const {
    const double sum =
        group.sum(batch, [&](std::int64_t i) { return static_cast<double>(hinges[i]); });
    const std::int64_t count =
        group.count(batch, [&](std::int64_t i) { return hinges[i] != T(0); });
    group.once([&] {
      *loss = static_cast<T>(sum / static_cast<double>(batch));
      *active = static_cast<T>(count);
    });
  }
};

template <class T>
void batch_hard_triplet(Context& ctx, std::int64_t batch, const T* d2, const std::int64_t* labels,
                        T margin, T weight, T floor, T* loss, T* active, T* coefficients) {
  auto hinges = ctx.template make<T>({batch}, "hinges");
  const T share = weight / static_cast<T>(batch);
  for_pair_rows(
      ctx, batch, batch,
      BatchHardTripletRow<T>{batch, d2, labels, margin, share, floor, hinges.data, coefficients});
  for_pair_rows(ctx, 1, batch, MeanHinge<T>{batch, hinges.data, loss, active});
}

}  // namespace kindred::cuda
