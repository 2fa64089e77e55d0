#pragma once
// One function call for each row of a matrix of pairs, written once for every device. It is the
// only kernel that a pair loss or a miner brings along: the rest are matrix products.

#include <cstdint>

#include <kindred/core/error.hpp>
#include <kindred/core/macros.hpp>

namespace kindred::kernels {

/// Calls row(group, i) for every i in [0, rows). A row may write only what no other row reads or
/// writes. `row` is a function object of plain values, marked KINDRED_HD, whose template argument
/// Group is the device's: one thread on the CPU, cooperating threads on a GPU. Its type must not be
/// a private member of a class, which CUDA does not accept. The members of a group, with n the
/// number of elements and f a function of the index:
///   sum(n, f)            sum of f(j), 0 for none
///   max(n, f), min(n, f) infinite for none; a NaN wins
///   argmax(n, keep, f), argmin(n, keep, f)
///                        index of the extreme f(j) among the j with keep(j), -1 for none; the
///                        lowest of equal ones, the first NaN before all
///   count(n, keep)       how many j have keep(j)
///   for_each(n, f)       f(j) for every j in any order; its writes are seen by what follows
///   once(f)              f() a single time; its writes are seen by what follows
/// All members must be reached by the whole group: no call inside a condition that differs between
/// threads. Sums have a fixed order, so the bits depend on n alone. `columns` is the usual n, from
/// which a device chooses how many rows or threads go together.
/// Throws ShapeError for a negative extent.
template <class Context, class Row>
void pair_rows(Context& ctx, std::int64_t rows, std::int64_t columns, const Row& row) {
  if (rows < 0 || columns < 0)
    throw ShapeError(text("pair_rows: ", rows, " rows of ", columns, " columns"));
  for_pair_rows(ctx, rows, columns, row);
}

}  // namespace kindred::kernels
