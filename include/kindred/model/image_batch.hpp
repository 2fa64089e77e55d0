#pragma once
// What a session is given as images.

#include <cstdint>

#include <kindred/core/arena.hpp>
#include <kindred/kernels/normalize_images.hpp>

namespace kindred {

/// Images [B,H,W,3]: numbers, or pixels that the device normalises.
template <class T>
struct ImageBatch {
  View<const T> values;  ///< of pixels: nothing
  PixelImages pixels;    ///< of numbers: nothing

  explicit ImageBatch(View<const T> v) : values(v) {}
  explicit ImageBatch(const PixelImages& p) : pixels(p) {}

  /// A batch of that shape with no data, to plan memory.
  static ImageBatch planned(const Shape& shape, bool of_pixels) {
    static constexpr PixelTable any{};
    return of_pixels ? ImageBatch(PixelImages({nullptr, shape}, any))
                     : ImageBatch(View<const T>{nullptr, shape});
  }

  bool has_pixels() const { return pixels.table != nullptr; }
  const Shape& shape() const { return has_pixels() ? pixels.pixels.shape : values.shape; }
  /// Images [begin, begin + count).
  ImageBatch part(std::int64_t begin, std::int64_t count) const {
    const auto cut = [&](auto view) {
      if (view.data != nullptr) view.data += begin * (view.size() / view.dim(0));
      view.shape = view.shape.with_batch(count);
      return view;
    };
    return has_pixels() ? ImageBatch(PixelImages(cut(pixels.pixels), *pixels.table))
                        : ImageBatch(cut(values));
  }

  /// Arrays of on_device() that live as long as it is used.
  struct Memory {
    Tensor<std::uint8_t> pixels;
    Tensor<T> values;
    void reset() {
      pixels.reset();
      values.reset();
    }
  };
  /// The numbers, where kernels can read them.
  template <class Context>
  View<const T> on_device(Context& ctx, Memory& memory) const {
    if (!has_pixels()) return ctx.upload(values, memory.values);
    memory.values = ctx.template make<T>(shape(), "normalised images");
    kernels::normalize_images(ctx, ctx.upload(pixels.pixels, memory.pixels), *pixels.table,
                              View<T>(memory.values));
    memory.pixels.reset();
    return memory.values;
  }
  /// Begins to bring what on_device() will use to the device.
  template <class Context>
  void prefetch(Context& ctx) const {
    has_pixels() ? ctx.prefetch(pixels.pixels) : ctx.prefetch(values);
  }
};

}  // namespace kindred
