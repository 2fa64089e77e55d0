#pragma once
// The least that each slot accepts, to be broken one piece at a time.

#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/combined.hpp>
#include <kindred/model/rec_model.hpp>

namespace parts {

using namespace kindred;

struct Part {
  struct Config {};
  template <class T>
  struct Saved {};
  static constexpr const char* name() { return "Part"; }
  Part(const Config&, const Scope&) {}
  std::int64_t input_size() const { return 3; }
  std::int64_t output_size() const { return 3; }
  std::int64_t class_num() const { return 3; }
};

struct Backbone : Part {
  using Part::Part;
  static constexpr int output_rank = 2;
  template <class R, class T>
  Tensor<T> forward(const R& run, View<const T> images, Saved<T>&) const {
    return run.make({images.dim(0), 3}, "y");
  }
  template <class R, class T>
  Tensor<T> backward(const R&, Tensor<T> dy, View<const T>, Saved<T>&) const {
    return dy;
  }
};

struct Neck : Backbone {
  using Backbone::Backbone;
  static constexpr int input_rank = 2;
};

struct Head : Part {
  using Part::Part;
  using Labels = View<const std::int64_t>;
  template <class R, class T>
  Tensor<T> forward(const R& run, View<const T> x, Labels, Saved<T>&) const {
    return run.make(x.shape, "logits");
  }
  template <class R, class T>
  Tensor<T> backward(const R&, Tensor<T> dlogits, View<const T>, Labels, Saved<T>&) const {
    return dlogits;
  }
};

/// A loss, but for evaluate.
struct Described : Part {
  using Part::Part;
  std::int64_t entries() const { return 1; }
  loss::LogitUse logit_use() const { return loss::LogitUse::none; }
  bool reads(loss::FeatureFrom) const { return false; }
  void describe(loss::LossReport*) const {}
};

struct Loss : Described {
  using Described::Described;
  template <class R, class T>
  void evaluate(const R&, const loss::LossInput<T>&, const loss::LossGradient<T>&, View<T>) const {}
};

/// Makes the compiler look at a composition.
template <class Backbone, class Neck, class Head, class Loss>
constexpr auto size = sizeof(RecModel<Backbone, Neck, Head, Loss>);

}  // namespace parts
