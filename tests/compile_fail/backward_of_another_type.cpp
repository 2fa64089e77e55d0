// expects: Neck lacks Tensor<T> backward(run, Tensor<T> dy, In<T> x, Saved<T>&) const
#include "parts.hpp"

struct VoidBackward : parts::Neck {
  using Neck::Neck;
  template <class R, class T>
  void backward(const R&, kindred::Tensor<T>, kindred::View<const T>, Saved<T>&) const {}
};

static_assert(parts::size<parts::Backbone, VoidBackward, parts::Head, parts::Loss> > 0);
