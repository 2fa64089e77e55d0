#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/gemm.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// Integers in [-4, 4]: their products and sums are exact in float.
template <class T>
std::vector<T> small_integers(std::int64_t n, std::uint64_t stream) {
  RandomSequence random({7, stream, 0});
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& v : values) v = static_cast<T>(static_cast<int>(random.below(9)) - 4);
  return values;
}

struct Problem {
  std::int64_t m, n, k;
  Transpose ta = Transpose::no, tb = Transpose::no;
  bool accumulate = false;
};

template <class T>
std::vector<T> reference(const Problem& p, const std::vector<T>& a, const std::vector<T>& b,
                         const std::vector<T>& start) {
  std::vector<T> c(static_cast<std::size_t>(p.m * p.n));
  for (std::int64_t i = 0; i < p.m; ++i)
    for (std::int64_t j = 0; j < p.n; ++j) {
      double sum = 0;
      for (std::int64_t q = 0; q < p.k; ++q)
        sum +=
            double(a[static_cast<std::size_t>(p.ta == Transpose::no ? i * p.k + q : q * p.m + i)]) *
            double(b[static_cast<std::size_t>(p.tb == Transpose::no ? q * p.n + j : j * p.k + q)]);
      const auto at = static_cast<std::size_t>(i * p.n + j);
      c[at] = static_cast<T>(sum + (p.accumulate ? double(start[at]) : 0.0));
    }
  return c;
}

template <class T>
std::vector<T> product(int threads, const Problem& p, const std::vector<T>& a,
                       const std::vector<T>& b, const std::vector<T>& start) {
  std::vector<T> c = p.accumulate ? start : poisoned<T>(p.m * p.n);
  cpu::Context ctx(threads);
  const Shape shape_a = p.ta == Transpose::no ? Shape{p.m, p.k} : Shape{p.k, p.m};
  const Shape shape_b = p.tb == Transpose::no ? Shape{p.k, p.n} : Shape{p.n, p.k};
  run_planned(ctx, [&] {
    kernels::gemm(ctx, p.ta, p.tb, view(a, shape_a), view(b, shape_b), view(c, {p.m, p.n}),
                  p.accumulate);
  });
  return c;
}

template <class T>
void check_exact(const Problem& p) {
  CAPTURE(p.m, p.n, p.k, p.ta == Transpose::yes, p.tb == Transpose::yes, p.accumulate);
  const auto a = small_integers<T>(p.m * p.k, 1), b = small_integers<T>(p.k * p.n, 2);
  const auto start = small_integers<T>(p.m * p.n, 3);
  const bool equal = product(2, p, a, b, start) == reference(p, a, b, start);
  CHECK(equal);
}

const Transpose both[] = {Transpose::no, Transpose::yes};

}  // namespace

TEST_CASE("gemm: exact on integers for every transpose and odd size") {
  const std::int64_t sizes[] = {1, 2, 15, 31, 33, 65};
  for (Transpose ta : both)
    for (Transpose tb : both)
      for (bool accumulate : {false, true})
        for (std::int64_t m : sizes)
          for (std::int64_t n : sizes)
            for (std::int64_t k : {std::int64_t{1}, std::int64_t{35}}) {
              check_exact<float>({m, n, k, ta, tb, accumulate});
              check_exact<double>({m, n, k, ta, tb, accumulate});
            }
}

TEST_CASE("gemm: exact on integers in every loop order") {
  for (Transpose ta : both)
    for (Transpose tb : both)
      for (bool accumulate : {false, true}) {
        check_exact<float>({257, 31, 300, ta, tb, accumulate});   // tall
        check_exact<float>({257, 523, 270, ta, tb, accumulate});  // tall, several blocks
        check_exact<float>({33, 200, 520, ta, tb, accumulate});   // wide
        check_exact<float>({5, 7, 5000, ta, tb, accumulate});     // deep
        check_exact<float>({40, 65, 4097, ta, tb, accumulate});   // deep
        check_exact<double>({257, 47, 300, ta, tb, accumulate});
        check_exact<double>({33, 129, 300, ta, tb, accumulate});
        check_exact<double>({40, 65, 4097, ta, tb, accumulate});
      }
}

TEST_CASE("gemm: more than can be packed at once") {
  const Problem tall{30, 60, 70001}, wide{29, 9, 100001};
  cpu::Context ctx(2);
  for (const Problem& p : {tall, wide}) {
    const auto a = small_integers<float>(p.m * p.k, 1), b = small_integers<float>(p.k * p.n, 2);
    auto c = poisoned<float>(p.m * p.n);
    const cpu::RowsOfA<float> source_a{a.data(), p.k};
    const cpu::RowsOfB<float> source_b{b.data(), p.n};
    const cpu::MatrixC<float> to{c.data(), p.n};
    run_planned(ctx, [&] {
      if (p.n == tall.n)
        cpu::gemm_tall<float>(ctx, p.m, p.n, p.k, source_a, source_b, to, nullptr, false);
      else
        cpu::gemm_wide<float>(ctx, p.m, p.n, p.k, source_a, source_b, to, nullptr, false);
    });
    CHECK(c == reference(p, a, b, {}));
  }
}

TEST_CASE("gemm: an empty sum is zero, or what was there") {
  check_exact<float>({3, 5, 0});
  check_exact<float>({3, 5, 0, Transpose::yes, Transpose::yes, true});
  check_exact<float>({300, 5, 0});
}

TEST_CASE("gemm: one thread and two give the same bits") {
  for (Problem p : {Problem{500, 100, 300}, Problem{49, 512, 512}, Problem{32, 48, 9000},
                    Problem{200, 300, 700, Transpose::yes, Transpose::yes, true}}) {
    const auto a = random_values<float>(p.m * p.k, 1), b = random_values<float>(p.k * p.n, 2);
    const auto start = random_values<float>(p.m * p.n, 3);
    const auto one = product(1, p, a, b, start), two = product(2, p, a, b, start);
    CHECK(std::equal(one.begin(), one.end(), two.begin()));
    CHECK(difference(one, reference(p, a, b, start)) < 1e-5);
  }
}

TEST_CASE("gemm: sub-matrices and the single-thread variant") {
  const std::int64_t m = 37, n = 45, k = 70, lda = 101, ldb = 83, ldc = 60;
  for (Transpose ta : both)
    for (Transpose tb : both) {
      const auto a = small_integers<float>(lda * lda, 1), b = small_integers<float>(ldb * ldb, 2);
      std::vector<float> c(static_cast<std::size_t>(m * ldc), 5), expected = c;
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j)
          for (std::int64_t q = 0; q < k; ++q)
            expected[static_cast<std::size_t>(i * ldc + j)] +=
                a[static_cast<std::size_t>(ta == Transpose::no ? i * lda + q : q * lda + i)] *
                b[static_cast<std::size_t>(tb == Transpose::no ? q * ldb + j : j * ldb + q)];
      std::vector<float> serial = c;
      cpu::Context ctx(1);
      run_planned(ctx, [&] {
        auto scratch = ctx.make<float>({cpu::gemm_scratch_size<float>()}, "scratch");
        if (ctx.planning()) return;
        cpu::gemm_serial(ta, tb, m, n, k, a.data(), lda, b.data(), ldb, serial.data(), ldc, true,
                         scratch.data);
      });
      CHECK(serial == expected);
      run_planned(ctx, [&] {
        cpu::gemm(ctx, ta, tb, m, n, k, a.data(), lda, b.data(), ldb, c.data(), ldc, true);
      });
      CHECK(c == expected);
    }
}

TEST_CASE("gemm: planning computes nothing") {
  std::vector<float> a(64 * 64, 1), c(64 * 64, 7);
  cpu::Context ctx(2);
  ctx.arena().begin_recording();
  kernels::gemm(ctx, Transpose::no, Transpose::no, view(a, {64, 64}), view(a, {64, 64}),
                view(c, {64, 64}));
  ctx.arena().end_recording();
  CHECK(c == std::vector<float>(64 * 64, 7));
}

TEST_CASE("gemm: wrong shapes are named") {
  cpu::Context ctx(1);
  std::vector<float> a(6), b(6), c(4), wrong(5);
  auto call = [&](Shape sa, Shape sb, View<float> out) {
    kernels::gemm(ctx, Transpose::no, Transpose::no, view(a, sa), view(b, sb), out);
  };
  CHECK_THROWS_WITH(call({2, 3}, {2, 3}, view(c, {2, 2})),
                    ContainsSubstring("gemm: b: expected [3, 3], got [2, 3]"));
  CHECK_THROWS_WITH(call({2, 3}, {3, 2}, view(wrong, {5, 1})),
                    ContainsSubstring("gemm: c: expected [2, 2], got [5, 1]"));
  CHECK_THROWS_WITH(call({6}, {3, 2}, view(c, {2, 2})), ContainsSubstring("must be matrices"));
}

TEST_CASE("linear: backward is the derivative of forward") {
  for (std::int64_t batch : {1, 5}) {
    const Shape sx{batch, 33}, sw{33, 18}, sb{18}, sy{batch, 18};
    auto x = random_values<double>(sx.size(), 1), w = random_values<double>(sw.size(), 2);
    auto bias = random_values<double>(sb.size(), 3);
    const auto upstream = random_values<double>(sy.size(), 4);
    auto y = poisoned<double>(sy.size()), dx = poisoned<double>(sx.size());
    const auto dw0 = random_values<double>(sw.size(), 5), db0 = random_values<double>(18, 6);
    auto dw = dw0, db = db0;
    cpu::Context ctx(2);
    auto loss = [&] {
      run_planned(ctx, [&] {
        kernels::linear_forward(ctx, view(x, sx), view(w, sw), view(bias, sb), view(y, sy));
      });
      return dot(y, upstream);
    };
    run_planned(ctx, [&] {
      kernels::linear_backward_input(ctx, view(upstream, sy), view(w, sw), view(dx, sx));
      kernels::linear_backward_parameters(ctx, view(x, sx), view(upstream, sy), view(dw, sw),
                                          view(db, sb));
    });
    for (std::size_t i = 0; i < dw.size(); ++i) dw[i] -= dw0[i];
    for (std::size_t i = 0; i < db.size(); ++i) db[i] -= db0[i];
    CHECK(difference(dx, central_differences(x, loss)) < 1e-6);
    CHECK(difference(dw, central_differences(w, loss)) < 1e-6);
    CHECK(difference(db, central_differences(bias, loss)) < 1e-6);
  }
}

TEST_CASE("linear: bias may be empty, shapes are named") {
  cpu::Context ctx(1);
  const auto x = small_integers<float>(6, 1), w = small_integers<float>(12, 2);
  auto y = poisoned<float>(8);
  std::vector<float> dw(12, 0);
  run_planned(ctx, [&] {
    kernels::linear_forward(ctx, view(x, {2, 3}), view(w, {3, 4}), {}, view(y, {2, 4}));
    kernels::linear_backward_parameters(ctx, view(x, {2, 3}), view(y, {2, 4}), view(dw, {3, 4}),
                                        {});
  });
  CHECK(y == reference<float>({2, 4, 3}, x, w, {}));
  CHECK(dw == reference<float>({3, 4, 2, Transpose::yes}, x, y, {}));
  CHECK_THROWS_WITH(
      kernels::linear_forward(ctx, view(x, {2, 3}), view(w, {4, 3}), {}, view(y, {2, 4})),
      ContainsSubstring("linear_forward: w: expected [3, 4], got [4, 3]"));
}
