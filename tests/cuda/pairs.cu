// Rows of pairs and what the losses on pairs are made of, CPU against CUDA.

#include <limits>

#include <kindred/kernels/l2_normalize.hpp>
#include <kindred/kernels/pair_rows.hpp>
#include <kindred/kernels/pairwise.hpp>
#include <kindred/kernels/softmax_cross_entropy.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#else
#include <kindred/kernels/cuda/l2_normalize.cuh>
#include <kindred/kernels/cuda/pair_rows.cuh>
#include <kindred/kernels/cuda/pairwise.cuh>
#include <kindred/kernels/cuda/softmax_cross_entropy.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_labels;
using test::random_values;

namespace {

constexpr std::int64_t sizes[] = {1, 31, 33, 257};
constexpr int outputs = 8;

/// What every member makes of a row: `sums` [rows,8] numbers, `places` [rows,8] indices, and the
/// row in the reverse order.
template <class T>
struct AllMembers {
  std::int64_t columns;
  const T* m;
  T *sums, *reversed;
  std::int64_t* places;
  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
    const T* row = m + i * columns;
    T *s = sums + i * outputs, *r = reversed + i * columns;
    std::int64_t* p = places + i * outputs;
    const auto value = [&](std::int64_t j) { return row[j]; };
    const auto all = [](std::int64_t) { return true; };
    const auto none = [](std::int64_t) { return false; };
    const auto odd = [](std::int64_t j) { return j % 2 == 1; };
    const T sum = group.sum(columns, value), most = group.max(columns, value),
            least = group.min(columns, value);
    const double squares =
        group.sum(columns, [&](std::int64_t j) { return double(row[j]) * double(row[j]); });
    const std::int64_t nothing = group.argmax(columns, none, value);
    const std::int64_t first = group.argmax(columns, all, value);
    const std::int64_t lowest = group.argmin(columns, all, value);
    const std::int64_t odd_first = group.argmax(columns, odd, value);
    const std::int64_t odd_lowest = group.argmin(columns, odd, value);
    const std::int64_t positive =
        group.count(columns, [&](std::int64_t j) { return row[j] > T(0); });
    group.for_each(columns, [&](std::int64_t j) { r[columns - 1 - j] = row[j]; });
    // Every thread must see the writes of all others.
    const T last = r[0];
    const T moved = group.sum(columns, [&](std::int64_t j) { return r[j] * T(j); });
    group.once([&] { s[0] = sum; });
    const T doubled = s[0] + s[0];
    group.once([&] {
      s[1] = most;
      s[2] = least;
      s[3] = T(squares);
      s[4] = last;
      s[5] = moved;
      s[6] = doubled;
      s[7] = group_free(row[0]);
      p[0] = nothing;
      p[1] = first;
      p[2] = lowest;
      p[3] = odd_first;
      p[4] = odd_lowest;
      p[5] = positive;
      p[6] = i;
      p[7] = columns;
    });
  }
  KINDRED_HD static T group_free(T v) { return v * v; }
};

/// Rows with many equal elements, so that the lowest index matters.
template <class T>
std::vector<T> coarse_values(std::int64_t n, std::uint64_t stream) {
  std::vector<T> values = random_values<T>(n, stream);
  for (T& v : values) v = std::round(2 * v) / 2;
  return values;
}

template <class T>
void check_members(test::Side& side, const std::vector<T>& values, std::int64_t rows,
                   std::int64_t columns, bool finite) {
  const auto m = side.input(values, {rows, columns});
  const auto sums = side.template output<T>({rows, outputs});
  const auto reversed = side.template output<T>({rows, columns});
  const auto places = side.template output<std::int64_t>({rows, outputs});
  side.run([&] {
    kernels::pair_rows(side.ctx, rows, columns,
                       AllMembers<T>{columns, m.data, sums.data, reversed.data, places.data});
  });
  const auto name = text(rows, " x ", columns);
  side.record("places " + name, places);
  if (!finite) {  // NaN cannot be compared; every sum and extreme must be one
    const auto host = side.host(sums);
    for (std::int64_t i = 0; i < rows; ++i)
      for (const std::int64_t k : {0, 1, 2, 3, 5})
        side.check(std::isnan(host[static_cast<std::size_t>(i * outputs + k)]),
                   text("NaN is lost in ", name, ", row ", i, ", output ", k));
    return;
  }
  side.record("numbers " + name, sums, side.template tolerance<T>(2e-5));
  side.record("reversed " + name, reversed, 0);
}

KINDRED_PARITY(pair_rows_members) {
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{33}})
    for (const std::int64_t columns : {1, 5, 31, 33, 128, 129, 257, 700})
      check_members<T>(side, coarse_values<T>(rows * columns, 1), rows, columns, true);
  check_members<T>(side, coarse_values<T>(4100 * 130, 2), 4100, 130, true);
}

KINDRED_PARITY(pair_rows_nan) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const std::int64_t columns : {7, 33, 300}) {
    std::vector<T> values = coarse_values<T>(5 * columns, 3);
    for (std::size_t i = 0; i < 5; ++i) {
      const auto n = static_cast<std::size_t>(columns);
      values[i * n + i] = values[i * n + n - 1 - i] = nan;
    }
    check_members<T>(side, values, 5, columns, false);
  }
}

KINDRED_PARITY(pair_rows_infinite) {
  // Kept elements of -infinity are not "none"; without any row nothing happens.
  std::vector<T> values(2 * 300, -std::numeric_limits<T>::infinity());
  const auto m = side.input(values, {2, 300});
  const auto sums = side.template output<T>({2, outputs});
  const auto reversed = side.template output<T>({2, 300});
  const auto places = side.template output<std::int64_t>({2, outputs});
  const AllMembers<T> row{300, m.data, sums.data, reversed.data, places.data};
  side.run([&] {
    kernels::pair_rows(side.ctx, 2, 300, row);
    kernels::pair_rows(side.ctx, 0, 300, row);
  });
  side.record("places", places);
  side.template check_throws<ShapeError>([&] { kernels::pair_rows(side.ctx, -1, 300, row); },
                                         "-1 rows");
}

KINDRED_PARITY(pairwise) {
  for (const std::int64_t batch : sizes)
    for (const std::int64_t dim : {1, 33}) {
      const Shape shape{batch, dim}, square{batch, batch};
      auto values = random_values<T>(shape.size(), 1);
      if (batch > 2) std::copy_n(values.begin(), dim, values.begin() + 2 * dim);  // equal rows
      const auto x = side.input(values, shape);
      const auto c = side.input(random_values<T>(square.size(), 2), square);
      const auto g = side.template output<T>(square), d2 = side.template output<T>(square);
      const auto dx = side.input(random_values<T>(shape.size(), 3), shape);
      const auto dx_gram = side.input(random_values<T>(shape.size(), 4), shape);
      side.run([&] {
        kernels::gram_matrix(side.ctx, x, g);
        kernels::squared_distances(side.ctx, x, d2);
        kernels::pairwise_backward(side.ctx, c, x, dx);
        kernels::gram_matrix_backward(side.ctx, c, x, dx_gram);
      });
      const auto name = text(batch, " x ", dim);
      side.record("gram " + name, g);
      side.record("distances " + name, d2);
      side.record("gradient by distances " + name, dx, side.template tolerance<T>(2e-5));
      side.record("gradient by the gram matrix " + name, dx_gram, side.template tolerance<T>(2e-5));
    }
}

KINDRED_PARITY(normalize) {
  for (const NormRule rule : {NormRule::max_eps, NormRule::add_eps, NormRule::none})
    for (const std::int64_t batch : sizes)
      for (const std::int64_t dim : {1, 31, 129, 300}) {
        const Shape shape{batch, dim};
        auto values = random_values<T>(shape.size(), 7);
        // The second row is zero. So that it can be compared, eps is not tiny.
        if (batch > 1) std::fill_n(values.begin() + dim, dim, T(0));
        const auto x = side.input(values, shape),
                   dy = side.input(random_values<T>(shape.size(), 8), shape);
        const auto y = side.template output<T>(shape), dx = side.template output<T>(shape),
                   norm = side.template output<T>({batch});
        side.run([&] {
          kernels::l2_normalize_forward(side.ctx, rule, T(0.25), x, norm, y);
          kernels::l2_normalize_backward(side.ctx, rule, T(0.25), dy, y, norm, dx);
        });
        const auto name = text("rule ", static_cast<int>(rule), ", ", batch, " x ", dim);
        side.record("norm " + name, norm);
        side.record("y " + name, y);
        side.record("dx " + name, dx);
      }
}

KINDRED_PARITY(normalize_in_place) {
  auto values = random_values<T>(5 * 200, 9);
  for (std::size_t i = 0; i < 200; ++i) values[i] *= T(1e25);  // its square is no float
  const auto x = side.input(values, {5, 200}),
             dy = side.input(random_values<T>(1000, 10), {5, 200});
  const auto norm = side.template output<T>({5});
  side.run([&] {
    kernels::l2_normalize_forward(side.ctx, NormRule::none, T(0), x, norm, x);
    kernels::l2_normalize_backward(side.ctx, NormRule::none, T(0), dy, x, norm, dy);
  });
  side.record("y", x);
  side.record("dx", dy);
}

KINDRED_PARITY(cross_entropy) {
  for (const T epsilon : {T(0), T(0.1)})
    for (const std::int64_t batch : {1, 33})
      for (const std::int64_t classes : {1, 2, 31, 257, 1000}) {
        const Shape shape{batch, classes};
        auto values = random_values<T>(shape.size(), 11, 3);
        for (std::int64_t c = 0; c < classes; ++c) values[static_cast<std::size_t>(c)] += 500;
        const auto z = side.input(values, shape);
        const auto labels = side.input(random_labels(batch, classes, 12), {batch});
        const auto loss = side.template output<T>({1}), alone = side.template output<T>({1});
        const auto dz = side.input(random_values<T>(shape.size(), 13), shape);
        side.run([&] {
          kernels::softmax_cross_entropy(side.ctx, z, labels.data, epsilon, T(0.7), loss, dz);
          kernels::softmax_cross_entropy(side.ctx, z, labels.data, epsilon, T(0.7), alone, {});
        });
        const auto name = text(batch, " x ", classes, " smoothed ", epsilon);
        side.record("loss " + name, loss);
        side.record("loss alone " + name, alone);
        side.record("gradient " + name, dz);
      }
}

KINDRED_PARITY(cross_entropy_of_a_bad_label) {
  const auto z = side.input(random_values<T>(12, 14), {3, 4});
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{4}, std::int64_t{1} << 60}) {
    const auto labels = side.input(std::vector<std::int64_t>{0, bad, 1}, {3});
    const auto loss = side.template output<T>({1}), dz = side.input(std::vector<T>(12), {3, 4});
    side.template check_throws<DataError>(
        [&] {
          side.run([&] {
            kernels::softmax_cross_entropy(side.ctx, z, labels.data, T(0), T(1), loss, dz);
          });
        },
        "class_num");
  }
}

}  // namespace
