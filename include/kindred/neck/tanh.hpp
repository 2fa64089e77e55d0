#pragma once
// Tanh neck: features between -1 and 1, for hashing.

#include <kindred/core/run.hpp>
#include <kindred/kernels/elementwise.hpp>

namespace kindred::neck {

/// y = tanh(x), elementwise. x, y [B, num_features].
/// Source: PaddleClas ppcls/arch/gears (paddle.nn.Tanh, which is not told its width).
class Tanh {
 public:
  struct Config {
    std::int64_t num_features = 0;
  };
  template <class T>
  struct Saved {};

  static constexpr const char* name() { return "Tanh"; }
  static constexpr int input_rank = 2;

  Tanh(const Config& config, const Scope&) : size_(config.num_features) {
    if (size_ < 1) throw ConfigError(text("neck.Tanh: num_features must be >= 1, got ", size_));
  }

  std::int64_t input_size() const { return size_; }
  std::int64_t output_size() const { return size_; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>&) const {
    auto y = run.make(x.shape, "Tanh.y");
    kernels::activation_forward(run.ctx, Activation::tanh, x, y);
    return y;
  }
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>&) const {
    kernels::activation_backward(run.ctx, Activation::tanh, dy, x, dy);
    return dy;
  }

 private:
  std::int64_t size_;
};

}  // namespace kindred::neck
