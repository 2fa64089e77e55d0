// Convolutions, CPU against CUDA.

#include <kindred/kernels/conv2d.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/conv2d.hpp>
#else
#include <kindred/kernels/cuda/conv2d.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

struct Case {
  Shape x;
  std::int64_t out;
  Conv2dGeometry geometry;
};
const Case cases[] = {
    {{2, 9, 7, 3}, 8, {3, 3, 2, 1, 1}},        // stem
    {{1, 31, 33, 3}, 16, {3, 3, 2, 1, 1}},     //
    {{2, 5, 4, 31}, 33, {1, 1, 1, 0, 1}},      // pointwise
    {{1, 13, 11, 257}, 31, {1, 1, 1, 0, 1}},   //
    {{1, 9, 7, 130}, 36, {1, 1, 1, 0, 1}},     //
    {{2, 8, 8, 6}, 10, {1, 1, 2, 0, 1}},       // pointwise with a stride
    {{2, 7, 9, 5}, 7, {3, 3, 1, 1, 1}},        // full
    {{1, 6, 6, 4}, 5, {5, 3, 2, 2, 1}},        //
    {{2, 7, 6, 6}, 9, {3, 3, 1, 1, 3}},        // grouped
    {{2, 9, 11, 33}, 33, {3, 3, 1, 1, 33}},    // depthwise
    {{1, 10, 9, 31}, 31, {3, 3, 2, 1, 31}},    //
    {{2, 7, 7, 40}, 40, {5, 5, 1, 2, 40}},     //
    {{2, 14, 13, 8}, 8, {5, 5, 2, 2, 8}},      //
    {{1, 1, 1, 257}, 257, {3, 3, 1, 1, 257}},  //
    {{1, 8, 9, 5}, 5, {7, 3, 3, 2, 5}},        // depthwise with an uncommon kernel
};

KINDRED_PARITY(conv2d) {
  for (const Case& c : cases) {
    const Shape wshape = c.geometry.weight_shape(c.x[3], c.out);
    const Shape yshape = c.geometry.output_shape(c.x, c.out);
    const auto x = side.input(random_values<T>(c.x.size(), 1), c.x),
               w = side.input(random_values<T>(wshape.size(), 2), wshape),
               dy = side.input(random_values<T>(yshape.size(), 3), yshape),
               scale = side.input(random_values<T>(c.out, 4), {c.out}),
               shift = side.input(random_values<T>(c.out, 5), {c.out}),
               dw = side.input(random_values<T>(wshape.size(), 6), wshape);
    const auto y = side.template output<T>(yshape), fused = side.template output<T>(yshape),
               scaled = side.template output<T>(yshape), dx = side.template output<T>(c.x);
    const View<T> none;
    side.run([&] {
      kernels::conv2d_forward(side.ctx, c.geometry, x, w, y);
      kernels::conv2d_forward(side.ctx, c.geometry, x, w, scale, shift, Activation::hardswish,
                              fused);
      kernels::conv2d_forward(side.ctx, c.geometry, x, w, scale, none, Activation::identity,
                              scaled);
      kernels::conv2d_backward_input(side.ctx, c.geometry, dy, w, dx);
      kernels::conv2d_backward_weight(side.ctx, c.geometry, x, dy, dw);
    });
    const auto name =
        text(c.x, " -> ", yshape, " by ", c.geometry.kernel_h, " stride ", c.geometry.stride, ' ');
    side.record(name + "y", y);
    side.record(name + "fused", fused);
    side.record(name + "scaled", scaled);
    side.record(name + "dx", dx);
    side.record(name + "dw", dw);
  }
}

}  // namespace
