// Matrix products, CPU against CUDA.

#include <kindred/kernels/gemm.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/gemm.hpp>
#else
#include <kindred/kernels/cuda/gemm.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

struct Extents {
  std::int64_t m, n, k;
};
// Small and large tiles, whole and broken ones, a sum that is split, and an empty one.
constexpr Extents extents[] = {{1, 1, 1},     {31, 33, 1},     {33, 31, 257},
                               {257, 31, 33}, {64, 64, 16},    {130, 129, 40},
                               {3, 70, 2100}, {140, 150, 600}, {5, 7, 0}};

KINDRED_PARITY(gemm) {
  for (const auto& [m, n, k] : extents)
    for (const Transpose ta : {Transpose::no, Transpose::yes})
      for (const Transpose tb : {Transpose::no, Transpose::yes})
        for (const bool accumulate : {false, true}) {
          if (k == 0 && !(ta == Transpose::no && tb == Transpose::no)) continue;
          const Shape a_shape = ta == Transpose::no ? Shape{m, k} : Shape{k, m};
          const Shape b_shape = tb == Transpose::no ? Shape{k, n} : Shape{n, k};
          const auto a = side.input(random_values<T>(m * k, 1), a_shape),
                     b = side.input(random_values<T>(k * n, 2), b_shape);
          const auto c = accumulate ? side.input(random_values<T>(m * n, 3), {m, n})
                                    : side.template output<T>({m, n});
          side.run([&] { kernels::gemm(side.ctx, ta, tb, a, b, c, accumulate); });
          side.record(
              text(m, 'x', n, 'x', k, static_cast<int>(ta), static_cast<int>(tb), accumulate), c);
        }
}

// Whole numbers have one right sum, in whatever order it is taken.
KINDRED_PARITY(gemm_of_integers) {
  const std::int64_t m = 150, n = 133, k = 700;
  RandomSequence random({1, 2, 3});
  const auto whole = [&](std::int64_t size) {
    std::vector<T> values(static_cast<std::size_t>(size));
    for (T& v : values) v = static_cast<T>(static_cast<int>(random.below(17)) - 8);
    return values;
  };
  const auto a = side.input(whole(m * k), {m, k}), b = side.input(whole(k * n), {k, n});
  const auto c = side.template output<T>({m, n});
  side.run([&] { kernels::gemm(side.ctx, Transpose::no, Transpose::no, a, b, c); });
  side.record("product", c, 0);
}

#ifdef KINDRED_CPU_SIDE
/// v with `bits` of its 24 bits kept, rounded to even.
float kept(float v, int bits) {
  int exponent = 0;
  const double mantissa = std::frexp(static_cast<double>(v), &exponent);
  return static_cast<float>(
      std::ldexp(std::nearbyint(std::ldexp(mantissa, bits)), exponent - bits));
}
#endif

// The modes round factors, not sums: the CPU multiplies what was rounded before. Numbers at exactly
// half a unit are among them.
KINDRED_PARITY(math_modes) {
  if constexpr (std::is_same_v<T, float>) {
    const std::int64_t m = 130, n = 131, k = 40;
    const auto numbers = [](std::int64_t size, std::uint64_t stream) {
      std::vector<float> values = random_values<float>(size, stream);
      for (int i = 0; i < 200; ++i) {
        values[static_cast<std::size_t>(2 * i)] = static_cast<float>(2 * i + 257) / 256;
        values[static_cast<std::size_t>(2 * i + 1)] = -static_cast<float>(2 * i + 2049) / 2048;
      }
      return values;
    };
    for (const int bits : {24, 11, 8}) {  // with the first one, which is not stored
      auto a = numbers(m * k, 1), b = numbers(k * n, 2);
#ifdef KINDRED_CPU_SIDE
      for (auto* values : {&a, &b})
        for (float& v : *values) v = kept(v, bits);
#else
      side.ctx.set_math(bits == 24   ? cuda::MathMode::fp32
                        : bits == 11 ? cuda::MathMode::tf32
                                     : cuda::MathMode::bf16);
#endif
      const auto x = side.input(a, {m, k}), y = side.input(b, {k, n});
      const auto c = side.template output<T>({m, n});
      side.run([&] { kernels::gemm(side.ctx, Transpose::no, Transpose::no, x, y, c); });
      side.record(text(bits, " bits"), c, 1e-6);
    }
  }
}

#ifndef KINDRED_CPU_SIDE
KINDRED_PARITY(not_finite) {
  side.ctx.set_math(cuda::MathMode::bf16);
  const T infinity = std::numeric_limits<T>::infinity(), largest = std::numeric_limits<T>::max();
  const std::vector<T> values{infinity, -infinity, std::numeric_limits<T>::quiet_NaN(), largest};
  const auto x = side.input(values, {4, 1}), one = side.input(std::vector<T>{1}, {1, 1});
  const auto c = side.template output<T>({4, 1});
  side.run([&] { kernels::gemm(side.ctx, Transpose::no, Transpose::no, x, one, c); });
  const auto y = side.host(c);
  side.check(y[0] == infinity && y[1] == -infinity && y[2] != y[2], "what is not finite stays");
  side.check(y[3] == (sizeof(T) == 4 ? infinity : largest), "rounding up may overflow");
}
#else
KINDRED_PARITY(not_finite) {}
#endif

KINDRED_PARITY(linear) {
  for (const auto& [batch, out, in] : {Extents{1, 1, 1}, Extents{33, 65, 31}, Extents{257, 3, 40}})
    for (const bool biased : {false, true}) {
      const auto x = side.input(random_values<T>(batch * in, 1), {batch, in}),
                 w = side.input(random_values<T>(in * out, 2), {in, out}),
                 bias = side.input(random_values<T>(out, 3), {out}),
                 dy = side.input(random_values<T>(batch * out, 4), {batch, out}),
                 dw = side.input(random_values<T>(in * out, 5), {in, out}),
                 dbias = side.input(random_values<T>(out, 6), {out});
      const auto y = side.template output<T>({batch, out}),
                 dx = side.template output<T>({batch, in});
      const View<T> none;
      side.run([&] {
        kernels::linear_forward(side.ctx, x, w, biased ? bias : none, y);
        kernels::linear_backward_input(side.ctx, dy, w, dx);
        kernels::linear_backward_parameters(side.ctx, x, dy, dw, biased ? dbias : none);
      });
      const auto name = text(batch, 'x', in, 'x', out, biased);
      side.record("y " + name, y);
      side.record("dx " + name, dx);
      side.record("dw " + name, dw);
      side.record("dbias " + name, dbias);
    }
}

// A sum over many rows, of which blocks take chunks.
KINDRED_PARITY(bias_of_many_rows) {
  const std::int64_t rows = 3000, columns = 37;
  const auto dy = side.input(random_values<T>(rows * columns, 1), {rows, columns}),
             x = side.input(random_values<T>(rows, 2), {rows, 1});
  const auto dw = side.input(random_values<T>(columns, 3), {1, columns}),
             dbias = side.input(random_values<T>(columns, 4), {columns});
  side.run([&] { kernels::linear_backward_parameters(side.ctx, x, dy, dw, dbias); });
  side.record("dw", dw);
  side.record("dbias", dbias);
}

}  // namespace
