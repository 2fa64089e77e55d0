#pragma once
// Convolutions as products without an unfolded image (implicit GEMM): lines of the first operand
// are pixels, its depth runs over the kernel's window. 1x1 convolutions are plain products,
// depthwise ones are direct.

#include <cstdint>

#include <kindred/kernels/conv2d_geometry.hpp>
#include <kindred/kernels/cuda/depthwise_conv2d.cuh>
#include <kindred/kernels/cuda/gemm.cuh>

namespace kindred::cuda {

/// Pixel (h, w) of image b, from its number.
struct Pixel {
  int b, h, w;
  __device__ static Pixel of(std::int64_t number, std::int64_t height, std::int64_t width) {
    const unsigned n = static_cast<unsigned>(number), columns = static_cast<unsigned>(width);
    const unsigned rows = static_cast<unsigned>(height);
    return {static_cast<int>(n / columns / rows), static_cast<int>(n / columns % rows),
            static_cast<int>(n % columns)};
  }
};

/// Place (h, w) in the window and channel c, from their number.
struct Tap {
  int h, w, c;
  __device__ static Tap of(std::int64_t number, std::int64_t kernel_w, std::int64_t channels) {
    const unsigned n = static_cast<unsigned>(number), per_tap = static_cast<unsigned>(channels);
    const unsigned columns = static_cast<unsigned>(kernel_w);
    return {static_cast<int>(n / per_tap / columns), static_cast<int>(n / per_tap % columns),
            static_cast<int>(n % per_tap)};
  }
};

/// x(output pixel, tap): what every output sees of the image.
template <class X>
struct Windows {
  static constexpr bool along_depth = true;
  Conv2dExtents e;
  const X* x;  ///< from the first channel of the group on
  struct Line {
    const X* image;
    int h, w;
  };
  __device__ Line line(std::int64_t i) const {
    const Pixel out = Pixel::of(i, e.out_height, e.out_width);
    return {x + out.b * e.height * e.width * e.channels,
            static_cast<int>(out.h * e.stride - e.padding),
            static_cast<int>(out.w * e.stride - e.padding)};
  }
  __device__ ComputeOf<X> at(const Line& line, std::int64_t p) const {
    const Tap tap = Tap::of(p, e.kernel_w, e.group_channels());
    const int h = line.h + tap.h, w = line.w + tap.w;
    if (h < 0 || w < 0 || h >= e.height || w >= e.width) return 0;
    return widened(line.image[(h * e.width + w) * e.channels + tap.c]);
  }
};

/// The same, transposed: lines are taps, the depth runs over output pixels.
template <class X>
struct TransposedWindows {
  static constexpr bool along_depth = false;
  Conv2dExtents e;
  const X* x;
  __device__ Tap line(std::int64_t i) const { return Tap::of(i, e.kernel_w, e.group_channels()); }
  __device__ ComputeOf<X> at(const Tap& tap, std::int64_t p) const {
    const Pixel out = Pixel::of(p, e.out_height, e.out_width);
    const std::int64_t h = out.h * e.stride - e.padding + tap.h;
    const std::int64_t w = out.w * e.stride - e.padding + tap.w;
    if (h < 0 || w < 0 || h >= e.height || w >= e.width) return 0;
    return widened(x[((out.b * e.height + h) * e.width + w) * e.channels + tap.c]);
  }
};

/// dy(input pixel, tap and output channel): the outputs that an input takes part in.
template <class T>
struct BackwardWindows {
  static constexpr bool along_depth = true;
  Conv2dExtents e;
  const T* dy;  ///< from the first output channel of the group on
  struct Line {
    const T* image;
    int h, w;
  };
  __device__ Line line(std::int64_t i) const {
    const Pixel in = Pixel::of(i, e.height, e.width);
    return {dy + in.b * e.out_height * e.out_width * e.out_channels,
            static_cast<int>(in.h + e.padding), static_cast<int>(in.w + e.padding)};
  }
  __device__ T at(const Line& line, std::int64_t p) const {
    const Tap tap = Tap::of(p, e.kernel_w, e.group_out_channels());
    const int stride = static_cast<int>(e.stride), h = line.h - tap.h, w = line.w - tap.w;
    if (h < 0 || w < 0 || h % stride != 0 || w % stride != 0) return T(0);
    if (h / stride >= e.out_height || w / stride >= e.out_width) return T(0);
    return line.image[(h / stride * e.out_width + w / stride) * e.out_channels + tap.c];
  }
};

/// w(input channel, tap and output channel).
template <class T>
struct BackwardWeights {
  static constexpr bool along_depth = true;
  Conv2dExtents e;
  const T* w;
  __device__ const T* line(std::int64_t c) const { return w + c * e.out_channels; }
  __device__ T at(const T* line, std::int64_t p) const {
    const Tap tap = Tap::of(p, e.kernel_w, e.group_out_channels());
    return line[(tap.h * e.kernel_w + tap.w) * e.group_channels() * e.out_channels + tap.c];
  }
};

/// Pixels and taps are counted in 32 bits.
inline void check_counts(const char* place, const Conv2dExtents& e) {
  const std::int64_t pixels = e.batch * std::max(e.height * e.width, e.out_height * e.out_width);
  const std::int64_t taps = e.kernel_h * e.kernel_w * std::max(e.channels, e.out_channels);
  if (std::max(pixels, taps) > 0x7FFFFFFF)
    throw ShapeError(text(place, ": a batch of ", pixels, " pixels; use a smaller one"));
}

/// y = act(scale conv(x, w) + shift); scale and shift of the output channels may be null. x and y
/// may be BF16.
template <class X, class T, class Y>
void conv2d_forward(Context& ctx, const Conv2dExtents& e, const X* x, const T* w, const T* scale,
                    const T* shift, Activation act, Y* y) {
  const std::int64_t pixels = e.batch * e.out_height * e.out_width;
  const Epilogue<T> epilogue{scale, shift, act};
  check_counts("conv2d_forward", e);
  if (e.pointwise())
    return product_with_epilogue(ctx, "conv2d_forward", pixels, e.channels, e.out_channels, x, w,
                                 epilogue, y);
  if (e.depthwise()) return depthwise_forward(ctx, e, x, w, epilogue, y);
  const std::int64_t in = e.group_channels(), out = e.group_out_channels();
  for (std::int64_t g = 0; g < e.groups; ++g)
    tile_product<T>(ctx, "conv2d_forward", ctx.math(), pixels, out, e.kernel_h * e.kernel_w * in,
                    Windows<X>{e, x + g * in}, MatrixColumns<T>{w + g * out, e.out_channels},
                    StoreWithEpilogue<T, Y>{epilogue, y, e.out_channels, g * out});
}
/// What a pass calls where a map is BF16; no weights are prepared for it on a GPU.
template <class X, class T, class Y>
void conv2d_forward_rounded(Context& ctx, const Conv2dExtents& e, const X* x, const T* w,
                            const T* scale, const T* shift, Activation act,
                            const BFloat16* /*prepared*/, Y* y) {
  conv2d_forward(ctx, e, x, w, scale, shift, act, y);
}

/// dy in T, or BF16 as that of pointwise convolutions; others go through a copy in T then.
template <class D, class T>
void conv2d_backward_input(Context& ctx, const Conv2dExtents& e, const D* dy, const T* w, T* dx) {
  const std::int64_t pixels = e.batch * e.height * e.width;
  check_counts("conv2d_backward_input", e);
  if (e.pointwise())
    return map_product<Transpose::no, Transpose::yes>(ctx, pixels, e.channels, e.out_channels, dy,
                                                      w, dx, false);
  Tensor<T> copy;
  const T* const g =
      converted(ctx, e.batch * e.out_height * e.out_width * e.out_channels, dy, copy);
  if (e.depthwise()) return depthwise_backward_input(ctx, e, g, w, dx);
  const std::int64_t in = e.group_channels(), out = e.group_out_channels();
  for (std::int64_t i = 0; i < e.groups; ++i)
    tile_product<T>(ctx, "conv2d_backward_input", ctx.math(), pixels, in,
                    e.kernel_h * e.kernel_w * out, BackwardWindows<T>{e, g + i * out},
                    BackwardWeights<T>{e, w + i * out},
                    StoreMatrix<T>{dx + i * in, e.channels, false});
}

/// x in T or BF16, dy as above.
template <class X, class D, class T>
void conv2d_backward_weight(Context& ctx, const Conv2dExtents& e, const X* x, const D* dy, T* dw) {
  const std::int64_t pixels = e.batch * e.out_height * e.out_width;
  check_counts("conv2d_backward_weight", e);
  if (e.pointwise())
    return map_product<Transpose::yes, Transpose::no>(ctx, e.channels, e.out_channels, pixels, x,
                                                      dy, dw, true);
  Tensor<T> copy;
  const T* const g = converted(ctx, pixels * e.out_channels, dy, copy);
  if (e.depthwise()) return depthwise_backward_weight(ctx, e, x, g, dw);
  const std::int64_t in = e.group_channels(), out = e.group_out_channels();
  for (std::int64_t i = 0; i < e.groups; ++i)
    tile_product<T>(ctx, "conv2d_backward_weight", ctx.math(), e.kernel_h * e.kernel_w * in, out,
                    pixels, TransposedWindows<X>{e, x + i * in},
                    MatrixColumns<T>{g + i * out, e.out_channels},
                    StoreMatrix<T>{dw + i * out, e.out_channels, true});
}

}  // namespace kindred::cuda
