#pragma once
// VehicleNeck: a 1x1 convolution of the pooled feature.

#include <kindred/layers/linear.hpp>

namespace kindred::neck {

/// y = x W + b. x [B, in_channels] -> y [B, out_channels]: the 1x1 convolution of a pooled map, and
/// stored as one ([O,I,1,1]). W starts as Paddle's convolutions, Normal(0, sqrt(2/in_channels)), b
/// at zero. PaddleClas' other kernel sizes, strides and groups are not built: none of its
/// configurations has them. There the settings of the bias are by mistake those of the weight, so
/// that the bias cannot be left out alone; here `bias` says so.
/// Source: PaddleClas ppcls/arch/gears/vehicle_neck.py.
class VehicleNeck {
 public:
  struct Config {
    std::int64_t in_channels = 0;
    std::int64_t out_channels = 0;
    bool bias = true;
  };
  template <class T>
  struct Saved {};

  static constexpr const char* name() { return "VehicleNeck"; }
  static constexpr int input_rank = 2;

  VehicleNeck(const Config& config, const Scope& scope)
      : linear_({.in_features = check("in_channels", config.in_channels),
                 .out_features = check("out_channels", config.out_channels),
                 .bias = config.bias,
                 .weight_init = Initializer::kaiming_normal(config.in_channels),
                 .convolution = true},
                scope / "conv") {}

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
    if (value < 1) throw ConfigError(text("neck.VehicleNeck: ", key, " must be >= 1, got ", value));
    return value;
  }
  layers::Linear linear_;
};

}  // namespace kindred::neck
