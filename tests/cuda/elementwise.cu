// Elementwise operations, CPU against CUDA.

#include <kindred/kernels/elementwise.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/elementwise.hpp>
#else
#include <kindred/kernels/cuda/elementwise.cuh>
#include <kindred/kernels/cuda/reduce.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

constexpr std::int64_t sizes[] = {0, 1, 31, 33, 257, 70001};

KINDRED_PARITY(elementwise) {
  for (const std::int64_t n : sizes) {
    const auto a = side.input(random_values<T>(n, 1), {n}),
               b = side.input(random_values<T>(n, 2), {n});
    const auto sum = side.output<T>({n}), product = side.output<T>({n}),
               copied = side.output<T>({n}), filled = side.output<T>({n}),
               scaled = side.input(random_values<T>(n, 3), {n});
    side.run([&] {
      kernels::add(side.ctx, a, b, sum);
      kernels::multiply(side.ctx, a, b, product);
      kernels::copy(side.ctx, a, copied);
      kernels::fill(side.ctx, T(1.5), filled);
      kernels::scale_add(side.ctx, T(-0.25), a, scaled);
    });
    side.record(text("add ", n), sum);
    side.record(text("multiply ", n), product);
    side.record(text("copy ", n), copied, 0);
    side.record(text("fill ", n), filled, 0);
    side.record(text("scale_add ", n), scaled);
  }
}

KINDRED_PARITY(activations) {
  for (int act = 0; act <= static_cast<int>(Activation::tanh); ++act)
    for (const std::int64_t n : sizes) {
      const auto x = side.input(random_values<T>(n, 4, 3), {n}),
                 dy = side.input(random_values<T>(n, 5), {n});
      const auto y = side.output<T>({n}), dx = side.output<T>({n});
      side.run([&] {
        kernels::activation_forward(side.ctx, static_cast<Activation>(act), x, y);
        kernels::activation_backward(side.ctx, static_cast<Activation>(act), dy, x, dx);
      });
      side.record(text("activation ", act, " of ", n), y);
      side.record(text("derivative ", act, " of ", n), dx);
    }
}

}  // namespace
