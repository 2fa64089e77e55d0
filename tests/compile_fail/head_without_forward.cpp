// expects: Head lacks Tensor<T> forward(run, In<T> x, labels, Saved<T>&) const
#include "parts.hpp"

struct BackwardOnly : parts::Part {
  using Part::Part;
  using Labels = kindred::View<const std::int64_t>;
  template <class R, class T>
  kindred::Tensor<T> backward(const R&, kindred::Tensor<T> d, kindred::View<const T>, Labels,
                              Saved<T>&) const {
    return d;
  }
};

static_assert(parts::size<parts::Backbone, parts::Neck, BackwardOnly, parts::Loss> > 0);
