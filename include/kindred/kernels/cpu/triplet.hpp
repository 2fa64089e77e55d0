#pragma once
// One row of distances per chunk; O(B^2) in all.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <kindred/core/context.hpp>

namespace kindred::cpu {

template <class T>
void batch_hard_triplet(Context& ctx, std::int64_t batch, const T* d2, const std::int64_t* labels,
                        T margin, T weight, T floor, T* loss, T* active, T* coefficients) {
  auto row_hinges = ctx.template make<T>({batch}, "hinges");
  if (ctx.planning()) return;
  T* hinges = row_hinges.data;
  ctx.parallel_for(batch, [=](std::int64_t i) {
    const T* row = d2 + i * batch;
    T* c = coefficients + i * batch;
    std::int64_t positive = i, negative = -1;
    for (std::int64_t j = 0; j < batch; ++j) {
      c[j] = 0;
      if (labels[j] != labels[i]) {
        if (negative < 0 || row[j] < row[negative]) negative = j;
      } else if (row[j] > row[positive] || (row[j] == row[positive] && j < positive)) {
        positive = j;
      }
    }
    hinges[i] = 0;
    if (negative < 0) return;
    const T ap = std::sqrt(row[positive]), an = std::sqrt(row[negative]);
    const T hinge = ap - an + margin;
    if (hinge <= T(0)) return;
    hinges[i] = hinge;  // NaN comes here and shows in the loss
    const T share = weight / static_cast<T>(batch);
    if (row[positive] > floor) c[positive] = share / (2 * ap);
    if (row[negative] > floor) c[negative] = -share / (2 * an);
  });
  double sum = 0;
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < batch; ++i) {
    sum += hinges[i];
    count += hinges[i] != T(0);
  }
  *loss = static_cast<T>(sum / static_cast<double>(batch));
  *active = static_cast<T>(count);
}

}  // namespace kindred::cpu
