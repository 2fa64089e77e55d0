// expects: Backbone lacks Tensor<T> backward(run, Tensor<T> dy, In<T> images, Saved<T>&) const
#include "parts.hpp"

struct ForwardOnly : parts::Part {
  using Part::Part;
  static constexpr int output_rank = 2;
  template <class R, class T>
  kindred::Tensor<T> forward(const R& run, kindred::View<const T> x, Saved<T>&) const {
    return run.make(x.shape, "y");
  }
};

static_assert(parts::size<ForwardOnly, parts::Neck, parts::Head, parts::Loss> > 0);
