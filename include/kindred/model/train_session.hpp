#pragma once
// The memory of training.

#include <algorithm>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/optimizer.hpp>
#include <kindred/loss/loss.hpp>
#include <kindred/model/session.hpp>
#include <kindred/model/teacher.hpp>

namespace kindred {

/// Computes losses and gradients of a model. The first batch of a new shape plans its memory; after
/// that a step allocates nothing.
template <class Model>
class TrainSession {
 public:
  using Scalar = typename Model::Scalar;
  using Context = typename Model::Context;
  /// The optimizer's step on the centres of a head with update_in_tile: an optim::RowStep.
  using RowStep = RowUpdate<Context, Scalar>;

  TrainSession(Model& model, const SessionOptions& options)
      : model_(&model), options_(options), state_(std::make_unique<State>(model, options.threads)) {
    check_storage<Context, Scalar>("TrainSession", options.activations);
    if constexpr (requires { state_->ctx.adapt_math(options.activations); })
      state_->ctx.adapt_math(options.activations);
    zero_gradients();
  }

  /// Forward and backward of one batch: accumulates into gradients() and updates the running
  /// statistics. images [B,H,W,3]; labels [B] in [0, class_num). `step` keys dropout.
  /// Returns the losses. NaN passes through; see images_finite() and gradients_finite().
  /// A head with update_in_tile takes its step here, with `rows`; ConfigError without it.
  std::span<const loss::LossReport> forward_backward(View<const Scalar> images,
                                                     std::span<const std::int64_t> labels,
                                                     std::uint64_t step,
                                                     const RowStep* rows = nullptr) {
    launch(images, labels, step, rows);
    return losses();
  }
  /// The same of images that the device normalises.
  std::span<const loss::LossReport> forward_backward(const PixelImages& images,
                                                     std::span<const std::int64_t> labels,
                                                     std::uint64_t step,
                                                     const RowStep* rows = nullptr) {
    launch(images, labels, step, rows);
    return losses();
  }
  /// forward_backward() that a GPU is not waited for: losses() does it.
  void launch(View<const Scalar> images, std::span<const std::int64_t> labels, std::uint64_t step,
              const RowStep* rows = nullptr) {
    with_batch(Images(images), labels, [&](const Batch& b) { pass(b, step, rows); });
  }
  void launch(const PixelImages& images, std::span<const std::int64_t> labels, std::uint64_t step,
              const RowStep* rows = nullptr) {
    with_batch(Images(images), labels, [&](const Batch& b) { pass(b, step, rows); });
  }

  /// Begins to copy the images of the next batch to a GPU while it computes the last one. They must
  /// stay as they are until then; in pinned memory, see Cuda::allocate_results. On a CPU nothing is
  /// to be done.
  void prefetch(View<const Scalar> images) { Images(images).prefetch(state_->ctx); }
  void prefetch(const PixelImages& images) { Images(images).prefetch(state_->ctx); }

  /// What a step does besides forward and backward: a step on several batches, whose gradients add
  /// up, starts with the first and ends with the last.
  struct Part {
    bool first = true;  ///< gradients start from zero
    bool last = true;   ///< update() follows
  };
  /// One whole step: gradients from zero, forward and backward as in forward_backward(), then
  /// update(context), which applies an optimizer to gradients(), best if step_allowed(). On a GPU
  /// it is launched as one graph and not waited for: ask for losses() when they are wanted, and
  /// call context().synchronize() before the host or another session reads the model.
  template <class F>
  void step(View<const Scalar> images, std::span<const std::int64_t> labels, std::uint64_t step,
            F&& update, const RowStep* rows = nullptr, const Part& part = {true, true}) {
    whole_step(Images(images), labels, step, update, rows, part);
  }
  template <class F>
  void step(const PixelImages& images, std::span<const std::int64_t> labels, std::uint64_t step,
            F&& update, const RowStep* rows = nullptr, const Part& part = {true, true}) {
    whole_step(Images(images), labels, step, update, rows, part);
  }

  /// Of the last batch, whose end it waits for.
  std::span<const loss::LossReport> losses() {
    state_->ctx.synchronize();
    for (std::size_t i = 0; i < state_->reports.size(); ++i) {
      loss::LossReport& r = state_->reports[i];
      r.value = r.weight * static_cast<double>(state_->results[2 * i]);
      r.active = static_cast<double>(state_->results[2 * i + 1]);
    }
    return state_->reports;
  }

  /// Gives losses the outputs of `teacher`, or soft labels in their place; either must outlive the
  /// session. Memory is planned anew.
  void set_teacher(Teacher<Context, Scalar>& teacher) { learn_from(&teacher, nullptr); }
  void set_teacher(const SoftLabels<Scalar>& labels) { learn_from(nullptr, &labels); }

  void zero_gradients() {
    kernels::fill(state_->ctx, Scalar(0),
                  View<Scalar>{state_->gradients.get(), {model_->parameters().gradient_size()}});
  }
  /// In the layout of Model::trainable(), without the centres of a head with update_in_tile. On a
  /// GPU the host reads them after losses().
  std::span<Scalar> gradients() {
    return {state_->gradients.get(),
            static_cast<std::size_t>(model_->parameters().gradient_size())};
  }
  /// Whether all images of the last batch, and all gradients after it, are neither NaN nor
  /// infinite.
  bool images_finite() const { return finite(0); }
  bool gradients_finite() const { return finite(1) && rows_updated(); }
  /// Whether a head with update_in_tile took its step, because all gradients of it are finite; true
  /// of any other head.
  bool rows_updated() const { return finite(2); }
  /// Where kernels read, once those of the last batch are done, whether all of that and its losses
  /// are finite: optim::Update::allowed of an update that the host does not wait for.
  const Scalar* step_allowed() const { return state_->allowed.get(); }

  Context& context() { return state_->ctx; }
  /// The plan of a step on images of this shape, made now if need be: its bytes and largest arrays.
  const Plan& plan(const Shape& images) { return plan_for(Images::planned(images, false)); }

 private:
  using Images = ImageBatch<Scalar>;
  /// Batch, height, width, kind of images.
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool>;

  struct State {
    State(const Model& model, int threads)
        : gradients(std::static_pointer_cast<Scalar>(Model::Device::allocate(
              static_cast<std::size_t>(model.parameters().gradient_size()) * sizeof(Scalar)))),
          allowed(std::static_pointer_cast<Scalar>(Model::Device::allocate(sizeof(Scalar)))),
          reports(static_cast<std::size_t>(model.loss().entries())),
          values(reports.size() * loss::report_size),
          results(std::static_pointer_cast<Scalar[]>(
              Model::Device::allocate_results((values + 3) * sizeof(Scalar)))),
          ctx(threads) {
      model.loss().describe(reports.data());
      std::fill_n(results.get(), values + 2, Scalar(0));
      results[static_cast<std::ptrdiff_t>(values + 2)] = Scalar(1);
    }
    // A context waits for its kernels when it ends, and what they write must still be there.
    std::shared_ptr<Scalar> gradients;
    std::shared_ptr<Scalar> allowed;  ///< where every thread of an update can read it fast
    std::vector<loss::LossReport> reports;
    std::size_t values;  ///< numbers of all losses
    /// Them; whether images and gradients are finite; whether the head's rows were updated.
    std::shared_ptr<Scalar[]> results;
    Context ctx;
    std::map<Key, Plan> plans;
    std::map<std::tuple<Key, bool, bool>, typename Context::Graph> graphs;  ///< and the Part
    typename Model::Saved saved;
  };

  /// A batch where kernels can read it.
  struct Batch {
    View<const Scalar> images;
    View<const std::int64_t> labels;
    View<const Scalar> soft_labels;  ///< empty without them
  };

  /// The step while a pass is planned.
  struct NoRowStep final : RowStep {
    void operator()(Context&, std::int64_t, std::int64_t, const Scalar*,
                    const Scalar*) const override {}
  };

  void learn_from(Teacher<Context, Scalar>* teacher, const SoftLabels<Scalar>* labels) {
    teacher_ = teacher;
    soft_labels_ = labels;
    state_->plans.clear();
    state_->graphs.clear();
  }

  Key key(const Images& images) const {
    const Shape& shape = images.shape();
    return {shape[0], shape[1], shape[2], images.has_pixels()};
  }

  bool finite(std::size_t which) const {
    state_->ctx.synchronize();
    return state_->results[state_->values + which] != 0;
  }

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

  /// Of a batch as `images`, whose data is not looked at.
  const Plan& plan_for(const Images& images) {
    const auto found = state_->plans.find(key(images));
    if (found != state_->plans.end()) return found->second;
    Arena& arena = state_->ctx.arena();
    arena.begin_recording();
    // Addresses that nobody reads: heads tell training from evaluation by the presence of labels.
    const std::int64_t batch = images.shape()[0];
    View<const Scalar> soft;
    if (soft_labels_ != nullptr)
      soft = {reinterpret_cast<const Scalar*>(Arena::alignment),
              {batch, soft_labels_->class_num()}};
    const NoRowStep no_rows;
    upload(images, {reinterpret_cast<const std::int64_t*>(Arena::alignment), {batch}}, soft,
           [&](const Batch& b) { pass(b, 0, &no_rows); });
    return state_->plans.emplace(key(images), arena.end_recording()).first->second;
  }

  template <class F>
  void upload(const Images& images, View<const std::int64_t> labels, View<const Scalar> soft_labels,
              F&& f) {
    typename Images::Memory of_images;
    Tensor<std::int64_t> of_labels;
    Tensor<Scalar> of_soft_labels;
    Batch batch{images.on_device(state_->ctx, of_images), state_->ctx.upload(labels, of_labels),
                soft_labels};
    if (soft_labels.data != nullptr)
      batch.soft_labels = state_->ctx.upload(soft_labels, of_soft_labels);
    f(batch);
  }

  /// Calls f with the batch within a planned pass.
  template <class F>
  void with_batch(const Images& images, std::span<const std::int64_t> labels, F&& f) {
    check(images.shape(), labels);
    View<const Scalar> soft;
    if (soft_labels_ != nullptr) soft = soft_labels_->of_batch(images.shape()[0]);
    state_->ctx.arena().begin_replay(plan_for(images));
    upload(images, {labels.data(), {static_cast<std::int64_t>(labels.size())}}, soft, f);
  }

  template <class F>
  void whole_step(const Images& images, std::span<const std::int64_t> labels, std::uint64_t step,
                  F&& update, const RowStep* rows, const Part& part) {
    with_batch(images, labels, [&](const Batch& b) {
      state_->ctx.run_graph(state_->graphs[{key(images), part.first, part.last}], [&] {
        if (part.first) zero_gradients();
        pass(b, step, rows);
        if (part.last) update(state_->ctx);
      });
    });
  }

  void pass(const Batch& batch, std::uint64_t step, const RowStep* rows) {
    State& s = *state_;
    Scalar* const finite = s.results.get() + s.values;
    const typename Model::RunType run{.ctx = s.ctx,
                                      .parameters = model_->trainable().data(),
                                      .statistics = model_->statistics().data(),
                                      .new_statistics = model_->statistics().data(),
                                      .gradients = s.gradients.get(),
                                      .training = true,
                                      .random = {model_->seed().value, 0, step},
                                      .storage = options_.activations,
                                      .row_update = rows,
                                      .row_update_taken = finite + 2};
    kernels::all_finite(s.ctx, batch.images, View<Scalar>{finite, {1}});
    typename Teacher<Context, Scalar>::Output taught;
    if (teacher_ != nullptr) taught = (*teacher_)(s.ctx, batch.images);
    const View<const Scalar> logits =
        taught.logits.empty() ? batch.soft_labels : View<const Scalar>(taught.logits);
    model_->forward_backward(run, batch.images, batch.labels, s.saved,
                             {s.results.get(), {static_cast<std::int64_t>(s.values)}},
                             {View<const Scalar>(taught.features), logits});
    kernels::all_finite(
        s.ctx, View<const Scalar>{s.gradients.get(), {model_->parameters().gradient_size()}},
        View<Scalar>{finite + 1, {1}});
    allow_step();
  }

  /// allowed = whether the losses are finite, and all three of `results` that say so of others.
  void allow_step() {
    State& s = *state_;
    const View<Scalar> allowed{s.allowed.get(), {1}};
    const auto values = static_cast<std::int64_t>(s.values);
    kernels::all_finite(s.ctx, View<const Scalar>{s.results.get(), {values}}, allowed);
    for (std::int64_t i = 0; i < 3; ++i)
      kernels::multiply(s.ctx, allowed, View<const Scalar>{s.results.get() + values + i, {1}},
                        allowed);
  }

  Model* model_;
  SessionOptions options_;
  Teacher<Context, Scalar>* teacher_ = nullptr;
  const SoftLabels<Scalar>* soft_labels_ = nullptr;
  std::unique_ptr<State> state_;
};

}  // namespace kindred
