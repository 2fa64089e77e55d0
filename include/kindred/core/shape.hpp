#pragma once
// Shapes with run-time extents and plain views over memory that somebody else owns.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <ostream>
#include <string>
#include <type_traits>

#include <kindred/core/error.hpp>

namespace kindred {

/// Extents of a dense row-major array of up to four dimensions.
/// Images are [B, H, W, C], feature matrices [B, D].
class Shape {
 public:
  static constexpr int max_rank = 4;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<std::int64_t> extents) {
    if (extents.size() > max_rank) throw ShapeError("a shape has at most 4 dimensions");
    for (std::int64_t extent : extents) {
      if (extent < 0) throw ShapeError(text("negative extent ", extent, " in a shape"));
      extents_[static_cast<std::size_t>(rank_++)] = extent;
    }
  }

  constexpr int rank() const { return rank_; }
  constexpr std::int64_t operator[](int axis) const {
    return extents_[static_cast<std::size_t>(axis)];
  }
  constexpr std::int64_t back() const { return rank_ == 0 ? 1 : (*this)[rank_ - 1]; }

  /// Number of elements; throws ShapeError if the product does not fit into 63 bits.
  constexpr std::int64_t size() const {
    std::int64_t n = 1;
    for (int axis = 0; axis < rank_; ++axis) {
      if (__builtin_mul_overflow(n, (*this)[axis], &n))
        throw ShapeError("the number of elements of a shape overflows 63 bits");
    }
    return n;
  }
  /// Product of all extents but the last: the rows of the array seen as a matrix.
  constexpr std::int64_t rows() const { return back() == 0 ? 0 : size() / back(); }

  /// The same shape with another first extent (the batch).
  constexpr Shape with_batch(std::int64_t batch) const {
    Shape s = *this;
    s.extents_[0] = batch;
    return s;
  }

  friend constexpr bool operator==(const Shape&, const Shape&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    out << '[';
    for (int axis = 0; axis < shape.rank_; ++axis) out << (axis ? ", " : "") << shape[axis];
    return out << ']';
  }

 private:
  std::array<std::int64_t, max_rank> extents_{};
  int rank_ = 0;
};

/// A dense row-major array in memory owned by somebody else; as cheap to copy as a pointer.
template <class T>
struct View {
  T* data = nullptr;
  Shape shape;

  std::int64_t size() const { return shape.size(); }
  std::int64_t dim(int axis) const { return shape[axis]; }
  T& operator[](std::int64_t i) const { return data[i]; }
  T* row(std::int64_t i) const { return data + i * shape.back(); }
  T* begin() const { return data; }
  T* end() const { return data + size(); }
  View reshaped(const Shape& other) const {
    if (other.size() != size()) throw ShapeError(text("cannot view ", shape, " as ", other));
    return {data, other};
  }
  operator View<const T>() const requires(!std::is_const_v<T>) { return {data, shape}; }
};

/// A read-only argument of a kernel. T is deduced from the outputs, so that a View<T>, a Tensor<T>
/// and a View<const T> can all be passed.
template <class T>
using In = std::type_identity_t<View<const T>>;

/// Throws ShapeError unless `got` equals `expected`; `place` names operation and argument.
inline void check_shape(const char* place, const Shape& got, const Shape& expected) {
  if (got != expected) throw ShapeError(text(place, ": expected ", expected, ", got ", got));
}

}  // namespace kindred
