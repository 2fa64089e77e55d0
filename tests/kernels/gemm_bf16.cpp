// Products of factors rounded to BF16: those of float on the rounded factors.

#include <cmath>
#include <limits>

#include <kindred/kernels/cpu/gemm_bf16.hpp>

#include "support/numeric.hpp"
#include "support/rounded.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// Their products and sums are exact in float, and so is their rounding.
Full small_integers(std::int64_t n, std::uint64_t stream) {
  RandomSequence random({7, stream, 0});
  Full values(static_cast<std::size_t>(n));
  for (float& v : values) v = static_cast<float>(static_cast<int>(random.below(9)) - 4);
  return values;
}

/// a w, or a w^T.
Full reference(std::int64_t m, std::int64_t n, std::int64_t k, const Full& a, const Full& w,
               Transpose transpose) {
  Full c(static_cast<std::size_t>(m * n));
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t q = 0; q < k; ++q)
        sum += double(a[at(i * k + q)]) *
               double(w[at(transpose == Transpose::no ? q * n + j : j * k + q)]);
      c[at(i * n + j)] = static_cast<float>(sum);
    }
  return c;
}
Full transposed(const Full& a, std::int64_t rows, std::int64_t columns) {
  Full out(a.size());
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      out[static_cast<std::size_t>(j * rows + i)] = a[static_cast<std::size_t>(i * columns + j)];
  return out;
}

template <class Out, class S>
std::vector<Out> product(int threads, std::int64_t m, std::int64_t n, std::int64_t k,
                         const std::vector<S>& a, const Full& w, Transpose transpose) {
  std::vector<Out> c(static_cast<std::size_t>(m * n), [] {
    if constexpr (std::is_same_v<Out, float>) return std::numeric_limits<float>::quiet_NaN();
    if constexpr (std::is_same_v<Out, BFloat16>) return BFloat16{0xFFFF};
  }());
  cpu::Context ctx(threads);
  run_planned(ctx, [&] { cpu::gemm_bf16(ctx, m, n, k, a.data(), w.data(), transpose, c.data()); });
  return c;
}
/// c + a^T b
template <class X, class Y>
Full sum_over_rows(int threads, std::int64_t m, std::int64_t n, std::int64_t k,
                   const std::vector<X>& a, const std::vector<Y>& b, Full c) {
  cpu::Context ctx(threads);
  run_planned(ctx, [&] { cpu::gemm_bf16_transposed(ctx, m, n, k, a.data(), b.data(), c.data()); });
  return c;
}

void check_rows(std::int64_t m, std::int64_t n, std::int64_t k) {
  CAPTURE(m, n, k);
  const Full a = small_integers(m * k, 1), w = small_integers(k * n, 2);
  for (const Transpose transpose : {Transpose::no, Transpose::yes}) {
    const Full expected = reference(m, n, k, a, w, transpose);
    const bool in_place = product<float>(1, m, n, k, rounded(a), w, transpose) == expected,
               packed = product<float>(3, m, n, k, a, w, transpose) == expected,
               stored =
                   product<BFloat16>(2, m, n, k, rounded(a), w, transpose) == rounded(expected);
    CHECK(in_place);
    CHECK(packed);
    CHECK(stored);
  }
}
void check_columns(std::int64_t m, std::int64_t n, std::int64_t k) {
  CAPTURE(m, n, k);
  const Full a = small_integers(k * m, 1), b = small_integers(k * n, 2),
             start = small_integers(m * n, 3);
  Full expected = reference(m, n, k, transposed(a, k, m), b, Transpose::no);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] += start[i];
  const bool both = sum_over_rows(1, m, n, k, rounded(a), rounded(b), start) == expected,
             left = sum_over_rows(2, m, n, k, rounded(a), b, start) == expected,
             right = sum_over_rows(3, m, n, k, a, rounded(b), start) == expected;
  CHECK(both);
  CHECK(left);
  CHECK(right);
}

}  // namespace

TEST_CASE("BF16 products: exact on integers for every odd size") {
  const std::int64_t sizes[] = {1, 2, 15, 31, 33, 65};
  for (const std::int64_t m : sizes)
    for (const std::int64_t n : sizes)
      for (const std::int64_t k : {1, 2, 31, 66}) {
        check_rows(m, n, k);
        check_columns(m, n, k);
      }
}

TEST_CASE("BF16 products: exact on integers in every loop order") {
  check_rows(257, 31, 300);     // rows
  check_rows(1001, 700, 257);   // several blocks of columns
  check_rows(30, 257, 5001);    // few rows: by columns
  check_rows(400, 33, 128);     // chunks of several panels
  check_columns(40, 65, 4097);  // chunks of the sum
  check_columns(127, 33, 1030);
  check_columns(130, 700, 1031);  // chunks of the result, two blocks
  check_columns(400, 333, 4500);
  check_columns(9, 1500, 4099);
  check_columns(140, 1100, 9001);  // more than is packed at once
}

TEST_CASE("BF16 products: an empty sum is zero, or what was there") {
  check_rows(3, 5, 0);
  check_columns(3, 5, 0);
}

TEST_CASE("BF16 products: factors are rounded, sums are not") {
  const std::int64_t m = 61, n = 45, k = 301;
  const Full a = random_values<float>(m * k, 1), w = random_values<float>(k * n, 2);
  const Full near = unrounded(rounded(a)), weights = unrounded(rounded(w));
  const Full expected = reference(m, n, k, near, weights, Transpose::no);
  const Full got = product<float>(2, m, n, k, a, w, Transpose::no);
  CHECK(difference(got, expected) < 1e-6);
  CHECK(difference(got, reference(m, n, k, a, w, Transpose::no)) > 1e-4);
  CHECK(got == product<float>(2, m, n, k, rounded(a), w, Transpose::no));
  const Full sum = sum_over_rows(2, m, n, k, transposed(a, m, k), rounded(w),
                                 Full(static_cast<std::size_t>(m * n)));
  CHECK(difference(sum, expected) < 1e-6);
}

// In the order of the instruction: the second product of a pair first.
TEST_CASE("BF16 products: the same bits with the instruction and without") {
  const cpu::Vector<float> start(0.7f);
  const BFloat16 a[] = {to_bfloat16(1.17f), to_bfloat16(-33.3f)};
  const BFloat16 b[] = {to_bfloat16(0.31f), to_bfloat16(2e-3f)};
  const auto pair = [](const BFloat16* p) { return cpu::broadcast_pair(p); };
  float lanes[cpu::PairTile::width];
  cpu::add_products(pair(a), pair(b), start).store_unaligned(lanes);
  const double second = double(0.7f) + double(to_float(a[1])) * double(to_float(b[1]));
  const float kept = static_cast<float>(second);
  const double first = double(kept) + double(to_float(a[0])) * double(to_float(b[0]));
  for (const float lane : lanes) CHECK(lane == static_cast<float>(first));
}

TEST_CASE("BF16 products: the same bits for any number of threads") {
  const auto check = [](std::int64_t m, std::int64_t n, std::int64_t k) {
    const Full a = random_values<float>(m * k, 1), w = random_values<float>(k * n, 2);
    const Full start = random_values<float>(m * n, 3);
    const Full at = transposed(a, m, k);
    const bool rows = product<float>(1, m, n, k, rounded(a), w, Transpose::no) ==
                      product<float>(5, m, n, k, rounded(a), w, Transpose::no),
               columns = sum_over_rows(1, m, n, k, rounded(at), rounded(w), start) ==
                         sum_over_rows(5, m, n, k, rounded(at), rounded(w), start);
    CHECK(rows);
    CHECK(columns);
  };
  check(500, 100, 301);
  check(49, 512, 512);
  check(32, 48, 9001);
  check(400, 400, 4200);
}

TEST_CASE("BF16 products: NaN stays in its row or column, whatever lies beside it") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::int64_t m = 35, n = 37, k = 33, bad = 17;  // odd: a pair of the last of them
  Full a = random_values<float>(m * k, 1);
  const Full w = random_values<float>(k * n, 2);
  for (std::int64_t q = 0; q < k; ++q) a[static_cast<std::size_t>(bad * k + q)] = nan;
  const Full c = product<float>(1, m, n, k, rounded(a), w, Transpose::no);
  const Full sum = sum_over_rows(1, m, n, k, rounded(transposed(a, m, k)), rounded(w),
                                 Full(static_cast<std::size_t>(m * n)));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<std::size_t>(i * n + j);
      CHECK(std::isnan(c[at]) == (i == bad));
      CHECK(std::isnan(sum[at]) == (i == bad));
    }
}

TEST_CASE("BF16 products: every epilogue, at the edge of tiles, too") {
  for (const Activation act :
       {Activation::identity, Activation::relu, Activation::hardswish, Activation::swish})
    for (const std::int64_t n : {16, 32, 45})
      for (const std::int64_t m : {14, 27}) {
        const std::int64_t k = 24;
        const Full a = small_integers(m * k, 1), w = small_integers(k * n, 2),
                   scale = random_values<float>(n, 3), shift = random_values<float>(n, 4);
        Full expected = reference(m, n, k, a, w, Transpose::no);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          const std::size_t j = i % static_cast<std::size_t>(n);
          expected[i] = activate(act, expected[i] * scale[j] + shift[j]);
        }
        const Rounded from = rounded(a);
        Full c = poisoned<float>(m * n);
        Rounded stored(c.size(), BFloat16{0xFFFF});
        cpu::Context ctx(2);
        run_planned(ctx, [&] {
          cpu::PackedPairs b{nullptr, k, n};
          auto packed = ctx.make<BFloat16>({b.size()}, "packed");
          b.data = packed.data;
          ctx.parallel_for(b.slivers(),
                           [&](std::int64_t i) { b.pack(w.data(), Transpose::no, i); });
          const cpu::AffineEpilogue<float> epilogue{scale.data(), shift.data(), act};
          cpu::gemm_bf16_packed(ctx, m, from.data(), k, b, c.data(), &epilogue);
          cpu::gemm_bf16_packed(ctx, m, from.data(), k, b, stored.data(), &epilogue);
        });
        CHECK(difference(c, expected) < 1e-6);
        CHECK(stored == rounded(c));
      }
}
