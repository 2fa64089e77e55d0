#pragma once
// The memory of training.

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/optimizer.hpp>
#include <kindred/loss/loss.hpp>
#include <kindred/model/session.hpp>

namespace kindred {

/// Computes losses and gradients of a model. The first batch of a new shape plans its memory; after
/// that a step allocates nothing.
template <class Model>
class TrainSession {
 public:
  using Scalar = typename Model::Scalar;
  using Context = typename Model::Context;

  TrainSession(Model& model, const SessionOptions& options)
      : model_(&model), options_(options), state_(std::make_unique<State>(model, options.threads)) {
    zero_gradients();
  }

  /// Forward and backward of one batch: accumulates into gradients() and updates the running
  /// statistics. images [B,H,W,3]; labels [B] in [0, class_num). `step` keys dropout.
  /// Returns the losses. NaN passes through; see images_finite() and gradients_finite().
  std::span<const loss::LossReport> forward_backward(View<const Scalar> images,
                                                     std::span<const std::int64_t> labels,
                                                     std::uint64_t step) {
    check(images.shape, labels);
    const View<const std::int64_t> y{labels.data(), {static_cast<std::int64_t>(labels.size())}};
    const Plan& plan = plan_for(images.shape);
    state_->ctx.arena().begin_replay(plan);
    pass(images, y, step);
    for (std::size_t i = 0; i < state_->reports.size(); ++i) {
      loss::LossReport& r = state_->reports[i];
      r.value = r.weight * static_cast<double>(state_->values[2 * i]);
      r.active = static_cast<double>(state_->values[2 * i + 1]);
    }
    return state_->reports;
  }

  void zero_gradients() {
    kernels::fill(state_->ctx, Scalar(0),
                  View<Scalar>{state_->gradients.get(), {model_->parameters().trainable_size()}});
  }
  /// In the layout of Model::trainable().
  std::span<Scalar> gradients() {
    return {state_->gradients.get(),
            static_cast<std::size_t>(model_->parameters().trainable_size())};
  }
  /// Whether all images of the last batch, and all gradients after it, are neither NaN nor
  /// infinite.
  bool images_finite() const { return state_->finite[0] != 0; }
  bool gradients_finite() const { return state_->finite[1] != 0; }

  Context& context() { return state_->ctx; }
  /// The plan of a step on images of this shape, made now if need be: its bytes and largest arrays.
  const Plan& plan(const Shape& images) { return plan_for(images); }

 private:
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

  struct State {
    State(const Model& model, int threads)
        : ctx(threads),
          gradients(std::static_pointer_cast<Scalar>(Model::Device::allocate(
              static_cast<std::size_t>(model.parameters().trainable_size()) * sizeof(Scalar)))),
          reports(static_cast<std::size_t>(model.loss().entries())),
          values(reports.size() * loss::report_size) {
      model.loss().describe(reports.data());
    }
    Context ctx;
    std::shared_ptr<Scalar> gradients;
    std::map<Key, Plan> plans;
    typename Model::Saved saved;
    std::vector<loss::LossReport> reports;
    std::vector<Scalar> values;
    std::array<Scalar, 2> finite{};
  };

  void check(const Shape& shape, std::span<const std::int64_t> labels) const {
    if (shape.rank() != 4 || shape[3] != 3)
      throw ShapeError(text("images must be [B, H, W, 3], got ", shape));
    if (shape.size() == 0) throw ShapeError(text("empty batch of images: ", shape));
    if (shape[0] != static_cast<std::int64_t>(labels.size()))
      throw ShapeError(text(shape[0], " images, but ", labels.size(), " labels"));
    if (shape[0] < 2)
      throw DataError(
          "a training batch needs at least 2 images: batch norm and pair losses are not "
          "defined on one; raise batch_size or drop the last batch");
    for (std::size_t i = 0; i < labels.size(); ++i)
      if (labels[i] < 0 || labels[i] >= model_->class_num())
        throw DataError(text("label ", labels[i], " of image ", i, " in the batch is not in [0, ",
                             model_->class_num(), "); raise class_num of the head or relabel"));
  }

  const Plan& plan_for(const Shape& shape) {
    const Key key{shape[0], shape[1], shape[2]};
    const auto found = state_->plans.find(key);
    if (found != state_->plans.end()) return found->second;
    Arena& arena = state_->ctx.arena();
    arena.begin_recording();
    // Addresses that nobody reads: heads tell training from evaluation by the presence of labels.
    pass({nullptr, shape}, {reinterpret_cast<const std::int64_t*>(Arena::alignment), {shape[0]}},
         0);
    return state_->plans.emplace(key, arena.end_recording()).first->second;
  }

  void pass(View<const Scalar> images, View<const std::int64_t> labels, std::uint64_t step) {
    State& s = *state_;
    const typename Model::RunType run{.ctx = s.ctx,
                                      .parameters = model_->trainable().data(),
                                      .statistics = model_->statistics().data(),
                                      .new_statistics = model_->statistics().data(),
                                      .gradients = s.gradients.get(),
                                      .training = true,
                                      .random = {model_->seed().value, 0, step}};
    kernels::all_finite(s.ctx, images, View<Scalar>{&s.finite[0], {1}});
    model_->forward_backward(run, images, labels, s.saved,
                             {s.values.data(), {static_cast<std::int64_t>(s.values.size())}});
    kernels::all_finite(
        s.ctx, View<const Scalar>{s.gradients.get(), {model_->parameters().trainable_size()}},
        View<Scalar>{&s.finite[1], {1}});
  }

  Model* model_;
  SessionOptions options_;
  std::unique_ptr<State> state_;
};

}  // namespace kindred
