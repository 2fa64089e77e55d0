#pragma once
// What a component sees of the world during one pass.

#include <cstdint>
#include <memory>
#include <unordered_map>

#include <kindred/core/context.hpp>
#include <kindred/core/map.hpp>
#include <kindred/core/parameters.hpp>
#include <kindred/core/row_update.hpp>

namespace kindred {

/// Weights in the form that inference reads fastest, made once for all passes over one state of the
/// model. A session owns them; layers ask for theirs in every pass, see Run::prepared.
template <class T>
class PreparedWeights {
 public:
  /// Forgets all: the model has changed.
  void clear() {
    entries_.clear();
    bytes_ = 0;
  }
  /// Whether get() makes what is missing. Passes on several threads may only look.
  void set_preparing(bool on) { preparing_ = on; }

  /// The `size` elements that fill(T*) makes of parameter p; null if they have not been prepared.
  template <class Fill>
  const T* get(const ParameterRef& p, std::int64_t size, Fill&& fill) {
    const auto found = entries_.find(p.offset);
    if (found != entries_.end()) return found->second.get();
    if (!preparing_) return nullptr;
    const std::size_t bytes = static_cast<std::size_t>(size) * sizeof(T);
    auto data = std::static_pointer_cast<T>(cpu::allocate(bytes));
    fill(data.get());
    bytes_ += bytes;
    return entries_.emplace(p.offset, std::move(data)).first->second.get();
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::unordered_map<std::int64_t, std::shared_ptr<T>> entries_;
  std::size_t bytes_ = 0;
  bool preparing_ = false;
};

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
  PreparedWeights<Scalar>* weights = nullptr;  ///< in inference, on contexts that use them
  Storage storage = Storage::scalar;           ///< of the maps between layers
  /// In training passes of a model with a parameter that is updated in tiles: the optimizer's step
  /// on it, and where the kernel says whether it was taken (1, or 0 if something is not finite).
  const RowUpdate<Context, Scalar>* row_update = nullptr;
  Scalar* row_update_taken = nullptr;

  View<const Scalar> parameter(const ParameterRef& p) const {
    return {parameters + p.offset, p.shape};
  }
  /// Not of a parameter that is updated in tiles, which has none.
  View<Scalar> gradient(const ParameterRef& p) const {
    return {gradients + p.gradient_offset, p.shape};
  }
  View<const Scalar> buffer(const ParameterRef& p) const {
    return {statistics + p.offset, p.shape};
  }
  View<Scalar> new_buffer(const ParameterRef& p) const {
    return {new_statistics + p.offset, p.shape};
  }
  /// See PreparedWeights; null where there are none.
  template <class Fill>
  const Scalar* prepared(const ParameterRef& p, std::int64_t size, Fill&& fill) const {
    return weights == nullptr ? nullptr : weights->get(p, size, fill);
  }
  Tensor<Scalar> make(const Shape& shape, const char* label) const {
    return ctx.template make<Scalar>(shape, label);
  }
  /// A map in the storage of the pass, or in another one.
  Map<Scalar> make_map(const Shape& shape, const char* label) const {
    return make_map(shape, label, storage);
  }
  Map<Scalar> make_map(const Shape& shape, const char* label, Storage as) const {
    if constexpr (StoresBF16<Context, Scalar>)
      if (as == Storage::bf16) return ctx.template make<BFloat16>(shape, label);
    return make(shape, label);
  }
};

}  // namespace kindred
