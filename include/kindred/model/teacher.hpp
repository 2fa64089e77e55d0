#pragma once
// A trained model whose outputs another one learns to imitate; or soft labels from elsewhere.

#include <cstdint>
#include <utility>

#include <kindred/core/run.hpp>
#include <kindred/loss/loss.hpp>

namespace kindred {

/// What a training session asks for the teacher's side of a batch.
template <class Context, class T>
class Teacher {
 public:
  /// Those that are not wanted are empty.
  struct Output {
    Tensor<T> features, logits;
  };
  virtual ~Teacher() = default;
  /// Of images [B,H,W,3] where kernels can read them: by kernels of the student's context and in
  /// the memory of its pass, so that on a GPU it is part of the step's graph and nobody waits for
  /// it.
  virtual Output operator()(Context& ctx, View<const T> images) = 0;
};

/// A RecModel as teacher, in evaluation mode: running statistics, no dropout, and the logits of a
/// margin head are its unscaled cosines.
///
///   ModelTeacher teacher(big, {.logits = true});
///   Trainer trainer(small, optim::Momentum{}, lr::Cosine{});
///   trainer.session().set_teacher(teacher);
/// Source: DistillationModel of PaddleClas with the teacher in freeze_params_list; there it stays
/// in training mode and its head sees the labels.
template <class Model>
class ModelTeacher final : public Teacher<typename Model::Context, typename Model::Scalar> {
 public:
  using Scalar = typename Model::Scalar;
  using Context = typename Model::Context;
  using typename Teacher<Context, Scalar>::Output;

  /// `activations` as in SessionOptions; throws ConfigError.
  explicit ModelTeacher(const Model& model, const loss::TeacherUse& use = {.logits = true},
                        Storage activations = Storage::scalar)
      : model_(&model), use_(use), activations_(activations) {
    check_storage<Context, Scalar>("ModelTeacher", activations);
  }

  Output operator()(Context& ctx, View<const Scalar> images) override {
    const bool changed = version_ != model_->version();
    if (changed) weights_.clear();
    version_ = model_->version();
    weights_.set_preparing(changed || ctx.planning());
    const typename Model::RunType run{.ctx = ctx,
                                      .parameters = model_->trainable().data(),
                                      .statistics = model_->statistics().data(),
                                      .random = {model_->seed().value, 0, 0},
                                      .weights = &weights_,
                                      .storage = activations_};
    Output out;
    out.features = model_->neck().forward(
        run, model_->backbone().forward(run, images, saved_.backbone), saved_.neck);
    if (use_.logits) out.logits = model_->head().forward(run, out.features, {}, saved_.head);
    if (!use_.features) out.features.reset();
    return out;
  }

 private:
  const Model* model_;
  loss::TeacherUse use_;
  Storage activations_;
  typename Model::Saved saved_;  // stays empty: inference saves nothing
  PreparedWeights<Scalar> weights_;
  std::uint64_t version_ = 0;  // of the model that they were made of
};

/// Soft labels [B,C] that the program sets before every step, as those of mixed images, in the
/// place of a teacher's logits: CELoss takes them with CETarget::distribution.
///
///   SoftLabels<float> soft(class_num);
///   session.set_teacher(soft);
///   soft.set(mixed);   session.forward_backward(images, labels, step);
template <class T>
class SoftLabels {
 public:
  explicit SoftLabels(std::int64_t class_num) : class_num_(class_num) {}

  /// Of the next batch, in memory of the host that lives until then. Throws ShapeError unless
  /// [B, class_num].
  void set(View<const T> labels) {
    check_shape("SoftLabels", labels.shape, {labels.shape[0], class_num_});
    labels_ = labels;
  }
  /// Throws ShapeError unless they were set for so many images.
  View<const T> of_batch(std::int64_t batch) const {
    if (labels_.data == nullptr || labels_.dim(0) != batch)
      throw ShapeError(text("SoftLabels: a batch of ", batch, " images, but labels ", labels_.shape,
                            "; call set() before every step"));
    return labels_;
  }
  std::int64_t class_num() const { return class_num_; }

 private:
  std::int64_t class_num_;
  View<const T> labels_{};
};

}  // namespace kindred
