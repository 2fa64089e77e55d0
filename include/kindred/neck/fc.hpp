#pragma once
// FC neck: a linear projection of the backbone's features.

#include <kindred/core/run.hpp>
#include <kindred/layers/linear.hpp>

namespace kindred::neck {

/// y = x W + b. x [B, embedding_size] -> y [B, class_num]; W starts XavierNormal, b zero.
/// Source: PaddleClas ppcls/arch/gears/fc.py.
class FC {
 public:
  struct Config {
    std::int64_t embedding_size = 0;  ///< width of the input
    std::int64_t class_num = 0;       ///< width of the feature
    bool bias = true;                 ///< false: bias_attr False
  };
  template <class T>
  struct Saved {};

  static constexpr const char* name() { return "FC"; }
  static constexpr int input_rank = 2;

  FC(const Config& config, const Scope& scope)
      : linear_(
            {.in_features = check("embedding_size", config.embedding_size),
             .out_features = check("class_num", config.class_num),
             .bias = config.bias,
             .weight_init = Initializer::xavier_normal(config.embedding_size, config.class_num)},
            scope / "fc") {}

  std::int64_t input_size() const { return linear_.config().in_features; }
  std::int64_t output_size() const { return linear_.config().out_features; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>&) const {
    return linear_.forward(run, x);
  }
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>&) const {
    return linear_.backward(run, dy, x);
  }

 private:
  static std::int64_t check(const char* key, std::int64_t value) {
    if (value < 1) throw ConfigError(text("neck.FC: ", key, " must be >= 1, got ", value));
    return value;
  }
  layers::Linear linear_;
};

}  // namespace kindred::neck
