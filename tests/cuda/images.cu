// Operations on images beside values per image and channel, and dropout: CPU against CUDA.

#include <kindred/kernels/channel_scale.hpp>
#include <kindred/kernels/dropout.hpp>
#include <kindred/kernels/generalized_mean_pool.hpp>
#include <kindred/kernels/global_average_pool.hpp>
#include <kindred/kernels/normalize_images.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/dropout.hpp>
#include <kindred/kernels/cpu/generalized_mean_pool.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#else
#include <kindred/kernels/cuda/channel_scale.cuh>
#include <kindred/kernels/cuda/dropout.cuh>
#include <kindred/kernels/cuda/generalized_mean_pool.cuh>
#include <kindred/kernels/cuda/global_average_pool.cuh>
#include <kindred/kernels/cuda/normalize_images.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

const Shape shapes[] = {
    {1, 1, 1, 1}, {3, 1, 31, 33}, {2, 7, 7, 64}, {5, 9, 3, 257}, {1, 33, 31, 4}};

KINDRED_PARITY(channel_scale) {
  for (const Shape& shape : shapes) {
    const Shape factors{shape[0], shape[3]};
    const auto x = side.input(random_values<T>(shape.size(), 1), shape),
               dy = side.input(random_values<T>(shape.size(), 2), shape),
               s = side.input(random_values<T>(factors.size(), 3), factors);
    const auto y = side.template output<T>(shape), dx = side.template output<T>(shape),
               ds = side.template output<T>(factors), again = side.template output<T>(factors);
    side.run([&] {
      kernels::channel_scale_forward(side.ctx, x, s, y);
      kernels::channel_scale_backward(side.ctx, dy, x, s, dx, ds);
      kernels::channel_scale_backward(side.ctx, dy, x, s, dy, again);  // dx may be dy
      kernels::channel_scale_forward(side.ctx, x, s, x);               // y may be x
    });
    side.record(text("y ", shape), y);
    side.record(text("dx ", shape), dx);
    side.record(text("ds ", shape), ds);
    side.record(text("dx in place ", shape), dy);
    side.record(text("ds in place ", shape), again);
    side.record(text("y in place ", shape), x);
  }
}

KINDRED_PARITY(global_average_pool) {
  for (const Shape& shape : shapes) {
    const Shape pooled{shape[0], shape[3]};
    const auto x = side.input(random_values<T>(shape.size(), 1), shape),
               dy = side.input(random_values<T>(pooled.size(), 2), pooled);
    const auto y = side.template output<T>(pooled), dx = side.template output<T>(shape);
    side.run([&] {
      kernels::global_average_pool_forward(side.ctx, x, y);
      kernels::global_average_pool_backward(side.ctx, dy, dx);
    });
    side.record(text("y ", shape), y);
    side.record(text("dx ", shape), dx);
  }
}

KINDRED_PARITY(generalized_mean_pool) {
  for (const Shape& shape : shapes)
    for (const double power : {0.7, 3.0, 40.0}) {
      const Shape pooled{shape[0], shape[3]};
      const auto x = side.input(random_values<T>(shape.size(), 1), shape),
                 dy = side.input(random_values<T>(pooled.size(), 2), pooled),
                 p = side.input(std::vector<T>{T(power)}, {1}),
                 dp = side.input(std::vector<T>{T(0.5)}, {1});
      const auto y = side.template output<T>(pooled), dx = side.template output<T>(shape);
      side.run([&] {
        kernels::generalized_mean_pool_forward(side.ctx, x, p, T(1e-6), y);
        kernels::generalized_mean_pool_backward(side.ctx, dy, x, y, p, T(1e-6), dx, dp);
      });
      side.record(text("y ", power, ' ', shape), y, side.tolerance<T>(1e-4));
      side.record(text("dx ", power, ' ', shape), dx, side.tolerance<T>(1e-3));
      side.record(text("dp ", power, ' ', shape), dp, side.tolerance<T>(1e-3));
    }
}

// The same bits; rounds of a block that are full, partly full and alone; memory that is not
// aligned.
KINDRED_PARITY(normalize_images) {
  PixelTable table;
  const auto values = random_values<float>(256 * 3, 1);
  std::copy(values.begin(), values.end(), table.value);
  for (const Shape& shape : {Shape{1, 1, 1, 3}, Shape{2, 31, 33, 3}, Shape{1, 64, 128, 3}})
    for (const std::int64_t offset : {0, 1}) {
      RandomSequence random({5, 1, 0});
      std::vector<std::uint8_t> pixels(static_cast<std::size_t>(shape.size() + offset));
      for (std::uint8_t& v : pixels) v = static_cast<std::uint8_t>(random.below(256));
      const auto x = side.input(pixels, {shape.size() + offset});
      const auto y = side.template output<T>(shape);
      side.run([&] { kernels::normalize_images(side.ctx, {x.data + offset, shape}, table, y); });
      side.record(text(shape, " from ", offset), y, 0);
    }
}

KINDRED_PARITY(dropout) {
  const RandomKey key{1, stream_of("a layer"), 12};
  for (const DropoutMode mode : {DropoutMode::upscale_in_train, DropoutMode::downscale_in_infer})
    for (const double p : {0.0, 0.2, 1.0})
      for (const std::int64_t n : {1, 31, 33, 257, 5000}) {
        const auto x = side.input(random_values<T>(n, 1), {n}),
                   dy = side.input(random_values<T>(n, 2), {n});
        const auto y = side.template output<T>({n}), dx = side.template output<T>({n}),
                   inferred = side.template output<T>({n});
        side.run([&] {
          kernels::dropout_forward(side.ctx, T(p), mode, true, key, x, y);
          kernels::dropout_backward(side.ctx, T(p), mode, key, dy, dx);
          kernels::dropout_forward(side.ctx, T(p), mode, false, key, x, inferred);
        });
        const auto name = text(p, static_cast<int>(mode), " of ", n);
        side.record("y " + name, y);
        side.record("dx " + name, dx);
        side.record("inferred " + name, inferred);
      }
}

}  // namespace
