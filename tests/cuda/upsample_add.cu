// Enlarging a map onto a finer one: CPU against CUDA.

#include <kindred/kernels/upsample_add.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/upsample_add.hpp>
#else
#include <kindred/kernels/cuda/upsample_add.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

KINDRED_PARITY(upsample_add) {
  const std::pair<Shape, Shape> shapes[] = {{{1, 1, 1, 1}, {1, 1, 1, 1}},
                                            {{2, 4, 3, 33}, {2, 7, 5, 33}},
                                            {{3, 2, 5, 257}, {3, 7, 5, 257}},
                                            {{2, 7, 7, 64}, {2, 14, 14, 64}}};
  for (const auto& [coarse, fine] : shapes) {
    const auto x = side.input(random_values<T>(coarse.size(), 1), coarse),
               y = side.input(random_values<T>(fine.size(), 2), fine),
               dy = side.input(random_values<T>(fine.size(), 3), fine);
    const auto dx = side.template output<T>(coarse);
    side.run([&] {
      kernels::upsample_add(side.ctx, x, y);
      kernels::upsample_add_backward(side.ctx, dy, dx);
    });
    side.record(text("y ", fine), y);
    side.record(text("dx ", coarse), dx);
  }
}

}  // namespace
