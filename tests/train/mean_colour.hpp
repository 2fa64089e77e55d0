#pragma once
// The smallest backbone, for tests of what surrounds it.

#include <kindred/core/run.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/global_average_pool.hpp>

namespace kindred::test {

/// The mean colour of an image.
struct MeanColour {
  struct Config {};
  template <class T>
  struct Saved {};
  static constexpr const char* name() { return "MeanColour"; }
  static constexpr int output_rank = 2;
  MeanColour(const Config&, const Scope&) {}
  std::int64_t output_size() const { return 3; }
  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>&) const {
    auto y = run.make({x.dim(0), 3}, "MeanColour.y");
    kernels::global_average_pool_forward(run.ctx, x, View<T>(y));
    return y;
  }
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>&, Tensor<T>, In<T>, Saved<T>&) const {
    return {};
  }
};

}  // namespace kindred::test
