#pragma once
// What a component sees of the world during one pass.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/core/map.hpp>
#include <kindred/core/parameters.hpp>
#include <kindred/core/row_update.hpp>

namespace kindred {

/// Weights in the form that inference reads fastest, made once for all passes over one state of the
/// model. A session owns them; layers ask for theirs in every pass, see Run::prepared. They lie in
/// memory in the order in which they are made, which is that of a pass: kernels may ask the cache
/// for what comes behind theirs.
template <class T>
class PreparedWeights {
 public:
  /// Forgets all: the model has changed.
  void clear() {
    entries_.clear();
    blocks_.clear();
    bytes_ = left_ = 0;
  }
  /// Whether get() makes what is missing. Passes on several threads may only look.
  void set_preparing(bool on) { preparing_ = on; }

  /// The `size` elements that fill(T*) makes of parameter p; null if they have not been prepared.
  template <class Fill>
  const T* get(const ParameterRef& p, std::int64_t size, Fill&& fill) {
    const auto found = entries_.find(p.offset);
    if (found != entries_.end()) return found->second;
    if (!preparing_) return nullptr;
    T* data = take(static_cast<std::size_t>(size));
    fill(data);
    return entries_.emplace(p.offset, data).first->second;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t block_size = (std::size_t{2} << 20) / sizeof(T);
  static constexpr std::size_t alignment = 64 / sizeof(T);

  T* take(std::size_t size) {
    size = (size + alignment - 1) / alignment * alignment;
    if (size > left_) {
      left_ = std::max(size, block_size);
      blocks_.push_back(std::static_pointer_cast<T>(cpu::allocate(left_ * sizeof(T))));
      bytes_ += left_ * sizeof(T);
      next_ = blocks_.back().get();
    }
    left_ -= size;
    return std::exchange(next_, next_ + size);
  }

  std::unordered_map<std::int64_t, const T*> entries_;
  std::vector<std::shared_ptr<T>> blocks_;
  T* next_ = nullptr;     // free memory of the last block
  std::size_t left_ = 0;  // its elements
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
