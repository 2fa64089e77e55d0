// Batch normalisation, CPU against CUDA.

#include <kindred/kernels/batch_norm.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/batch_norm.hpp>
#else
#include <kindred/kernels/cuda/batch_norm.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

const Shape shapes[] = {{2, 1}, {31, 33}, {3, 5, 7, 257}, {2, 17, 19, 8}, {1, 40, 50, 31}};

/// Values far from zero: the variance must not be lost beside the mean.
template <class T>
std::vector<T> with_mean(std::int64_t n, double mean) {
  auto values = random_values<T>(n, 1);
  for (T& v : values) v += static_cast<T>(mean);
  return values;
}

template <class T>
void compare(test::Side& side, const Shape& shape, Activation act, double mean_of_x,
             double tolerance) {
  const Shape channels{shape.back()};
  const std::int64_t n = shape.back();
  const auto x = side.input(with_mean<T>(shape.size(), mean_of_x), shape),
             dy = side.input(random_values<T>(shape.size(), 2), shape),
             gamma = side.input(random_values<T>(n, 3), channels),
             beta = side.input(random_values<T>(n, 4), channels),
             running_mean = side.input(random_values<T>(n, 5), channels),
             running_var =
                 side.input(std::vector<T>(static_cast<std::size_t>(n), T(0.7)), channels),
             dgamma = side.input(random_values<T>(n, 6), channels),
             dbeta = side.input(random_values<T>(n, 7), channels);
  const auto mean = side.template output<T>(channels), inv_std = side.template output<T>(channels),
             scale = side.template output<T>(channels), shift = side.template output<T>(channels),
             inverse = side.template output<T>(channels);
  const auto y = side.template output<T>(shape), dx = side.template output<T>(shape),
             fixed = side.template output<T>(shape), inferred = side.template output<T>(shape);
  const View<T> none;
  side.run([&] {
    kernels::batch_norm_forward(side.ctx, x, gamma, beta, T(1e-5), T(0.9), act, mean, inv_std,
                                running_mean, running_var, y);
    kernels::batch_norm_backward(side.ctx, dy, x, gamma, beta, mean, inv_std, act, dx, dgamma,
                                 dbeta);
    kernels::batch_norm_backward(side.ctx, dy, x, gamma, beta, mean, inv_std, act, fixed, none,
                                 none, false);
    kernels::batch_norm_inference(side.ctx, x, gamma, beta, running_mean, running_var, T(1e-5), act,
                                  inferred);
    kernels::batch_norm_scale_shift(side.ctx, gamma, beta, running_mean, running_var, T(1e-5),
                                    scale, shift);
    kernels::batch_norm_inverse_std(side.ctx, running_var, T(1e-5), inverse);
  });
  const auto record = [&](const char* what, const View<T>& view) {
    side.record(text(what, ' ', shape, ' ', static_cast<int>(act), ' ', mean_of_x), view,
                tolerance);
  };
  record("y", y);
  record("mean", mean);
  record("inv_std", inv_std);
  record("running_mean", running_mean);
  record("running_var", running_var);
  record("dx", dx);
  record("dgamma", dgamma);
  record("dbeta", dbeta);
  record("fixed", fixed);
  record("inferred", inferred);
  record("scale", scale);
  record("shift", shift);
  record("inverse", inverse);
}

KINDRED_PARITY(batch_norm) {
  for (const Shape& shape : shapes)
    for (const Activation act : {Activation::identity, Activation::relu, Activation::hardswish})
      compare<T>(side, shape, act, 0.5, side.tolerance<T>(2e-4));
}

KINDRED_PARITY(batch_norm_far_from_zero) {
  const double tolerance = std::is_same_v<T, double> ? 1e-9 : 3e-3;
  compare<T>(side, {2, 17, 19, 8}, Activation::hardswish, 1000, tolerance);
}

}  // namespace
