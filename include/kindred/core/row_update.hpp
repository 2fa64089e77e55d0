#pragma once
// How the optimizer reaches a parameter whose gradient is never stored.

#include <cstdint>

namespace kindred {

/// Applies the optimizer's step to part of one parameter while a kernel has the gradient of that
/// part in its cache: the centres of a margin head with update_in_tile. optim::RowStep is one.
template <class Context, class T>
class RowUpdate {
 public:
  /// Elements [begin, begin + n) of the parameter take their step with the gradient g[n], unless
  /// *allowed is 0. On the processor at once, on the calling thread, and from several threads for
  /// different elements; on a GPU in the order of the context's stream.
  virtual void operator()(Context& ctx, std::int64_t begin, std::int64_t n, const T* g,
                          const T* allowed) const = 0;

 protected:
  ~RowUpdate() = default;
};

}  // namespace kindred
