#pragma once
// What a component must offer, in small named pieces. RecModel asserts them one by one, so that the
// compiler names the slot, what is missing and how it is spelt.
//
// Every component is constructed from (Config, Scope), declares its parameters there and is const
// afterwards. T is the Scalar; Saved<T> holds what the forward leaves for the backward.
//
//   Backbone  Tensor<T> forward(run, In<T> images, Saved<T>&) const
//             Tensor<T> backward(run, Tensor<T> dy, In<T> images, Saved<T>&) const
//             int64 output_size() const; static constexpr int output_rank
//   Neck      the same with features for images; input_size(), output_size(), input_rank
//   Head      Tensor<T> forward(run, In<T> x, labels, Saved<T>&) const
//             Tensor<T> backward(run, Tensor<T> dlogits, In<T> x, labels, Saved<T>&) const
//             input_size(), class_num(); optional margin_cross_entropy(...): see
//             head/arc_margin.hpp
//   Loss      void evaluate(run, LossInput<T>, LossGradient<T>, View<T> report) const; entries(),
//             describe(LossReport*), logit_use(), reads(FeatureFrom): see loss/loss.hpp
//
// backward assigns the gradient of its input and accumulates those of its parameters.

#include <concepts>
#include <cstdint>
#include <utility>

#include <kindred/core/run.hpp>
#include <kindred/loss/loss.hpp>

namespace kindred::concepts {

template <class C>
concept Configurable = requires {
  typename C::Config;
  requires std::constructible_from<C, const typename C::Config&, const Scope&>;
};

template <class C>
concept Named = requires(const C& c) {
  { c.name() } -> std::convertible_to<const char*>;
};

template <class C, class R>
using SavedOf = typename C::template Saved<typename R::Scalar>;

template <class C, class R>
concept Saves = requires {
  typename SavedOf<C, R>;
};

template <class C>
concept HasOutputSize = requires(const C& c) {
  { c.output_size() } -> std::convertible_to<std::int64_t>;
};
template <class C>
concept HasInputSize = requires(const C& c) {
  { c.input_size() } -> std::convertible_to<std::int64_t>;
};
template <class C>
concept HasClassNum = requires(const C& c) {
  { c.class_num() } -> std::convertible_to<std::int64_t>;
};

template <class C, class R>
concept LayerForward = requires(const C& c, const R& run, View<const typename R::Scalar> x,
                                SavedOf<C, R>& saved) {
  { c.forward(run, x, saved) } -> std::same_as<Tensor<typename R::Scalar>>;
};
template <class C, class R>
concept LayerBackward = requires(const C& c, const R& run, Tensor<typename R::Scalar> dy,
                                 View<const typename R::Scalar> x, SavedOf<C, R>& saved) {
  { c.backward(run, std::move(dy), x, saved) } -> std::same_as<Tensor<typename R::Scalar>>;
};
template <class C, class R>
concept HeadForward = requires(const C& c, const R& run, View<const typename R::Scalar> x,
                               View<const std::int64_t> labels, SavedOf<C, R>& saved) {
  { c.forward(run, x, labels, saved) } -> std::same_as<Tensor<typename R::Scalar>>;
};
template <class C, class R>
concept HeadBackward = requires(const C& c, const R& run, Tensor<typename R::Scalar> dlogits,
                                View<const typename R::Scalar> x, View<const std::int64_t> labels,
                                SavedOf<C, R>& saved) {
  {
    c.backward(run, std::move(dlogits), x, labels, saved)
    } -> std::same_as<Tensor<typename R::Scalar>>;
};
/// The head computes softmax cross-entropy tile by tile and never builds [B,C].
template <class C, class R>
concept LogitFreeHead = requires(const C& c, const R& run, View<const typename R::Scalar> x,
                                 View<const std::int64_t> labels, typename R::Scalar s,
                                 View<typename R::Scalar> out) {
  c.margin_cross_entropy(run, x, labels, s, s, out, out);
};
template <class C, class R>
concept LossEvaluate = requires(const C& c, const R& run,
                                const loss::LossInput<typename R::Scalar>& in,
                                const loss::LossGradient<typename R::Scalar>& gradient,
                                View<typename R::Scalar> report) {
  c.evaluate(run, in, gradient, report);
};
template <class C>
concept LossDescribed = requires(const C& c, loss::LossReport* report) {
  { c.entries() } -> std::convertible_to<std::int64_t>;
  { c.logit_use() } -> std::same_as<loss::LogitUse>;
  { c.reads(loss::FeatureFrom::features) } -> std::same_as<bool>;
  c.describe(report);
};

}  // namespace kindred::concepts
