#pragma once
// A row is one thread's work; sums keep four partial results, so that additions overlap. A loss
// reads its row of the B x B matrix a few times, from L1, and writes a row of coefficients.

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kindred/core/context.hpp>
#include <kindred/core/macros.hpp>
#include <kindred/kernels/pair_rows.hpp>

namespace kindred::cpu {

/// The group of kernels::pair_rows with a single thread.
struct SerialGroup {
  template <class F>
  KINDRED_HD auto sum(std::int64_t n, F&& f) const {
    using V = decltype(f(n));
    V part[4] = {V(0), V(0), V(0), V(0)};
    std::int64_t j = 0;
    for (; j + 4 <= n; j += 4)
      for (std::int64_t k = 0; k < 4; ++k) part[k] += f(j + k);
    for (; j < n; ++j) part[0] += f(j);
    return (part[0] + part[1]) + (part[2] + part[3]);
  }
  template <class F>
  KINDRED_HD auto max(std::int64_t n, F&& f) const {
    using V = decltype(f(n));
    V best = -std::numeric_limits<V>::infinity();
    for (std::int64_t j = 0; j < n; ++j) {
      const V v = f(j);
      if (v > best || v != v) best = v;
    }
    return best;
  }
  template <class F>
  KINDRED_HD auto min(std::int64_t n, F&& f) const {
    return -max(n, [&](std::int64_t j) { return -f(j); });
  }
  template <class Keep, class F>
  KINDRED_HD std::int64_t argmax(std::int64_t n, Keep&& keep, F&& f) const {
    using V = decltype(f(n));
    std::int64_t at = -1;
    V best = V(0);
    for (std::int64_t j = 0; j < n; ++j) {
      if (!keep(j)) continue;
      const V v = f(j);
      if (at < 0 || v > best || (v != v && best == best)) {
        best = v;
        at = j;
      }
    }
    return at;
  }
  template <class Keep, class F>
  KINDRED_HD std::int64_t argmin(std::int64_t n, Keep&& keep, F&& f) const {
    return argmax(n, keep, [&](std::int64_t j) { return -f(j); });
  }
  template <class Keep>
  KINDRED_HD std::int64_t count(std::int64_t n, Keep&& keep) const {
    std::int64_t total = 0;
    for (std::int64_t j = 0; j < n; ++j) total += keep(j) ? 1 : 0;
    return total;
  }
  template <class F>
  KINDRED_HD void for_each(std::int64_t n, F&& f) const {
    for (std::int64_t j = 0; j < n; ++j) f(j);
  }
  template <class F>
  KINDRED_HD void once(F&& f) const {
    f();
  }
};

template <class Row>
void for_pair_rows(Context& ctx, std::int64_t rows, std::int64_t columns, const Row& row) {
  const std::int64_t chunk = std::max<std::int64_t>(1, 256 / std::max<std::int64_t>(columns, 1));
  ctx.parallel_ranges(rows, chunk, [&row](std::int64_t i, std::int64_t end) {
    for (; i < end; ++i) row(SerialGroup{}, i);
  });
}

}  // namespace kindred::cpu
