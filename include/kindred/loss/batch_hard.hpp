#pragma once
// The hardest positive and the hardest negative of each row: what the batch-hard losses share.

#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// losses_i = max(0, max_p m_ip - min_n m_in + margin) on a matrix of distances. With `with_self`
/// the row counts among its own positives. A row without a positive or a negative has no loss; a
/// NaN in the matrix gives a NaN. Of equal ones the first index counts.
template <class T>
struct BatchHardRow {
  Pairs<T> pairs;
  T margin;
  bool with_self;

  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
    const Pairs<T>& p = pairs;
    const T* m = p.row(i);
    const auto value = [&](std::int64_t j) { return m[j]; };
    const std::int64_t ap = group.argmax(
        p.batch, [&](std::int64_t j) { return p.same(i, j) && (with_self || j != i); }, value);
    const std::int64_t an = group.argmin(
        p.batch, [&](std::int64_t j) { return p.negative(i, j); }, value);
    if (ap < 0 || an < 0) return p.nothing(group, i);
    const T hinge = m[ap] - m[an] + margin;
    if (hinge <= T(0)) return p.nothing(group, i);  // a NaN goes on and shows in the loss
    T* c = p.coefficient_row(i);
    group.for_each(p.batch, [&](std::int64_t j) {
      c[j] = j == ap ? T(1) : j == an ? T(-1) : T(0);
    });
    p.finish(group, i, hinge, T(1));
  }
};

}  // namespace kindred::loss
