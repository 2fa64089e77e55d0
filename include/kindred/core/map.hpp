#pragma once
// Activation maps [B,H,W,C] as a pass stores them: in its Scalar or in BF16. Which one is a setting
// of the pass, so these types know it when the program runs; kernels get a View of the elements.

#include <concepts>
#include <type_traits>
#include <utility>

#include <kindred/core/arena.hpp>
#include <kindred/core/bfloat16.hpp>

namespace kindred {

/// How a pass stores the maps between the layers of convolutional backbones, and what the factors
/// of its pointwise convolutions are.
enum class Storage {
  scalar,  ///< as they were computed
  /// Rounded to BF16: half the memory. Pointwise convolutions round their factors to BF16 and sum
  /// up in float (fast by tensor cores, and where the processor has AVX512_BF16); everything else
  /// computes in float, on a GPU in the math mode of its context.
  bf16,
};

/// Contexts whose kernels read and write maps in BF16, and the scalar that they compute in.
template <class Context, class T>
concept StoresBF16 = std::same_as<T, float> && requires {
  requires Context::stores_bf16;
};

/// Throws ConfigError, naming `place`, unless passes of T on this kind of context can store so.
template <class Context, class T>
void check_storage(const char* place, Storage storage) {
  if (storage == Storage::bf16 && !StoresBF16<Context, T>)
    throw ConfigError(text(place, ": activations in BF16 are there for models of float alone; use ",
                           "Storage::scalar"));
}

/// What a kernel computes in for elements of S.
template <class S>
using ComputeOf = std::conditional_t<std::is_same_v<S, BFloat16>, float, S>;

/// A map to read, of elements of T or of BFloat16.
template <class T>
class MapView {
 public:
  Shape shape;

  MapView(const T* data, const Shape& extents) : shape(extents), full_(data) {}
  MapView(const View<const T>& v) : MapView(v.data, v.shape) {}
  MapView(const View<T>& v) : MapView(v.data, v.shape) {}
  MapView(const View<const BFloat16>& v) : shape(v.shape), rounded_(v.data) {}
  MapView(const View<BFloat16>& v) : shape(v.shape), rounded_(v.data) {}

  std::int64_t dim(int axis) const { return shape[axis]; }
  std::int64_t size() const { return shape.size(); }
  bool is_rounded() const { return rounded_ != nullptr; }

  /// The elements of a map in T, or of one in BFloat16. Throws Error if it is the other.
  operator View<const T>() const {
    if (is_rounded()) throw Error(text("a kernel for full precision met a BF16 map ", shape));
    return {full_, shape};
  }
  View<const BFloat16> rounded() const {
    if (!is_rounded()) throw Error(text("a kernel for BF16 met a map in full precision ", shape));
    return {rounded_, shape};
  }

 private:
  const T* full_ = nullptr;
  const BFloat16* rounded_ = nullptr;
};

/// A map as the argument of a kernel or layer: see In.
template <class T>
using InMap = std::type_identity_t<MapView<T>>;

/// A map in memory of the arena.
template <class T>
class Map {
 public:
  Map() = default;
  Map(Tensor<T>&& full) : full_(std::move(full)) {}
  Map(Tensor<BFloat16>&& rounded) : rounded_(std::move(rounded)) {}

  const Shape& shape() const { return is_rounded() ? rounded_.shape : full_.shape; }
  bool is_rounded() const { return !rounded_.empty(); }
  void reset() {
    full_.reset();
    rounded_.reset();
  }
  operator MapView<T>() const {
    if (is_rounded()) return static_cast<const View<BFloat16>&>(rounded_);
    return static_cast<const View<T>&>(full_);
  }
  /// The array of a map in T; the map is empty then.
  Tensor<T> take() { return std::move(full_); }

  View<T> full_elements() const { return full_; }
  View<BFloat16> rounded_elements() const { return rounded_; }

 private:
  Tensor<T> full_;
  Tensor<BFloat16> rounded_;
};

/// Calls f with a View of the elements that the map has, to read ...
template <class Context, class T, class F>
void with_elements(const MapView<T>& map, F&& f) {
  if constexpr (StoresBF16<Context, T>)
    if (map.is_rounded()) return f(map.rounded());
  f(View<const T>(map));
}
/// ... and to write.
template <class Context, class T, class F>
void with_elements(const Map<T>& map, F&& f) {
  if constexpr (StoresBF16<Context, T>)
    if (map.is_rounded()) return f(map.rounded_elements());
  f(map.full_elements());
}

}  // namespace kindred
