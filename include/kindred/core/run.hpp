#pragma once
// What a component sees of the world during one pass.

#include <kindred/core/context.hpp>
#include <kindred/core/parameters.hpp>

namespace kindred {

/// One forward (and perhaps backward) pass: the context, the parameters and the gradients.
template <class Context_, class Scalar_>
struct Run {
  using Context = Context_;
  using Scalar = Scalar_;

  Context& ctx;
  const Scalar* parameters = nullptr;  ///< flat trainable values
  const Scalar* statistics = nullptr;  ///< flat buffers (running statistics)
  Scalar* new_statistics = nullptr;    ///< the same memory, writable, in training passes only
  Scalar* gradients = nullptr;         ///< flat, accumulated into; training passes only
  bool training = false;               ///< batch statistics, dropout, margins; saves for backward
  bool input_gradient = false;         ///< whether the backward must reach the images
  RandomKey random;                    ///< seed and step of this pass; layers set the stream

  View<const Scalar> parameter(const ParameterRef& p) const {
    return {parameters + p.offset, p.shape};
  }
  View<Scalar> gradient(const ParameterRef& p) const { return {gradients + p.offset, p.shape}; }
  View<const Scalar> buffer(const ParameterRef& p) const {
    return {statistics + p.offset, p.shape};
  }
  View<Scalar> new_buffer(const ParameterRef& p) const {
    return {new_statistics + p.offset, p.shape};
  }
  Tensor<Scalar> make(const Shape& shape, const char* label) const {
    return ctx.template make<Scalar>(shape, label);
  }
};

}  // namespace kindred
