#pragma once
// Identity neck: the features are the backbone's output.

#include <kindred/core/run.hpp>
#include <kindred/kernels/elementwise.hpp>

namespace kindred::neck {

/// y = x. x, y [B, num_features]. PaddleClas has a model without a neck for this.
class Identity {
 public:
  struct Config {
    std::int64_t num_features = 0;
  };
  template <class T>
  struct Saved {};

  static constexpr const char* name() { return "Identity"; }
  static constexpr int input_rank = 2;

  Identity(const Config& config, const Scope&) : size_(config.num_features) {
    if (size_ < 1) throw ConfigError(text("neck.Identity: num_features must be >= 1, got ", size_));
  }

  std::int64_t input_size() const { return size_; }
  std::int64_t output_size() const { return size_; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>&) const {
    auto y = run.make(x.shape, "Identity.y");  // a copy: the model ends the life of x before y's
    kernels::copy(run.ctx, x, y);
    return y;
  }
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>&, Tensor<T> dy, In<T>, Saved<T>&) const {
    return dy;
  }

 private:
  std::int64_t size_;
};

}  // namespace kindred::neck
