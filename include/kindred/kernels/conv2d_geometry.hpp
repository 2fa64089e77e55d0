#pragma once

#include <cstdint>

#include <kindred/core/macros.hpp>
#include <kindred/core/shape.hpp>

namespace kindred {

/// Extents of one convolution, as the leaf kernels take them.
struct Conv2dExtents {
  std::int64_t batch, height, width, channels;       ///< x [B,H,W,C]
  std::int64_t out_height, out_width, out_channels;  ///< y [B,H',W',O]
  std::int64_t kernel_h, kernel_w, stride, padding, groups;

  KINDRED_HD std::int64_t group_channels() const { return channels / groups; }
  KINDRED_HD std::int64_t group_out_channels() const { return out_channels / groups; }
  KINDRED_HD bool depthwise() const { return groups == channels && out_channels == channels; }
  /// A matrix product of pixels and channels, without neighbours.
  KINDRED_HD bool pointwise() const {
    return kernel_h == 1 && kernel_w == 1 && stride == 1 && padding == 0 && groups == 1;
  }
};

/// How a convolution moves over an image: kernel, stride (both directions), zero padding (all four
/// sides) and groups.
struct Conv2dGeometry {
  std::int64_t kernel_h = 1;
  std::int64_t kernel_w = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t groups = 1;

  /// See Conv2dExtents.
  bool pointwise() const {
    return kernel_h == 1 && kernel_w == 1 && stride == 1 && padding == 0 && groups == 1;
  }

  /// [B,H,W,C] -> [B, (H + 2 padding - kernel_h)/stride + 1, (W + 2 padding - kernel_w)/stride + 1,
  /// out_channels]. Throws ShapeError if x is no image batch, is smaller than the kernel, or has
  /// channels that do not divide into the groups; ConfigError if the geometry itself is impossible.
  Shape output_shape(const Shape& x, std::int64_t out_channels) const {
    if (kernel_h < 1 || kernel_w < 1 || stride < 1 || padding < 0 || groups < 1)
      throw ConfigError(text("conv2d: kernel ", kernel_h, "x", kernel_w, ", stride ", stride,
                             " and groups ", groups, " must be positive, padding ", padding,
                             " must not be negative"));
    if (x.rank() != 4) throw ShapeError(text("conv2d: x must be [B,H,W,C], got ", x));
    if (x[3] % groups != 0 || out_channels % groups != 0)
      throw ShapeError(text("conv2d: ", x[3], " input and ", out_channels,
                            " output channels do not divide into ", groups, " groups"));
    const std::int64_t free_h = x[1] + 2 * padding - kernel_h;
    const std::int64_t free_w = x[2] + 2 * padding - kernel_w;
    if (free_h < 0 || free_w < 0)
      throw ShapeError(text("conv2d: x ", x, " with padding ", padding,
                            " is smaller than the kernel ", kernel_h, "x", kernel_w));
    return {x[0], free_h / stride + 1, free_w / stride + 1, out_channels};
  }

  /// Weights in memory: [kernel_h, kernel_w, in_channels / groups, out_channels].
  Shape weight_shape(std::int64_t in_channels, std::int64_t out_channels) const {
    return {kernel_h, kernel_w, in_channels / groups, out_channels};
  }

  Conv2dExtents extents(const Shape& x, const Shape& y) const {
    return {x[0], x[1], x[2], x[3], y[1], y[2], y[3], kernel_h, kernel_w, stride, padding, groups};
  }
};

}  // namespace kindred
