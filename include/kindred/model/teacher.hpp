#pragma once
// A trained model whose outputs another one learns to imitate; or soft labels from elsewhere.

#include <cstdint>
#include <utility>
#include <vector>

#include <kindred/core/arena.hpp>
#include <kindred/loss/loss.hpp>
#include <kindred/model/session.hpp>

namespace kindred {

/// What a training session asks for the teacher's side of a batch.
template <class T>
class Teacher {
 public:
  virtual ~Teacher() = default;
  /// Outputs for images [B,H,W,3], in memory of the host, valid until the next call; those that are
  /// not wanted are empty.
  virtual loss::TeacherOutput<T> operator()(View<const T> images) = 0;
  virtual std::int64_t feature_size() const = 0;  ///< 0: no features
  virtual std::int64_t class_num() const = 0;     ///< 0: no logits

  /// The shapes of the outputs, with an address that nobody reads, to plan memory.
  loss::TeacherOutput<T> planned(std::int64_t batch) const {
    const auto view = [batch](std::int64_t width) -> View<const T> {
      if (width == 0) return {};
      return {reinterpret_cast<const T*>(Arena::alignment), {batch, width}};
    };
    return {view(feature_size()), view(class_num())};
  }
};

/// A RecModel as teacher, in evaluation mode: running statistics, no dropout, and the logits of a
/// margin head are its unscaled cosines. It does not change.
///
///   ModelTeacher teacher(big, {.logits = true});
///   Trainer trainer(small, optim::Momentum{}, lr::Cosine{});
///   trainer.session().set_teacher(teacher);
/// Source: DistillationModel of PaddleClas with the teacher in freeze_params_list; there it stays
/// in training mode and its head sees the labels.
template <class Model>
class ModelTeacher final : public Teacher<typename Model::Scalar> {
 public:
  using Scalar = typename Model::Scalar;

  /// Each output that is used takes a pass of its own.
  explicit ModelTeacher(const Model& model, const loss::TeacherUse& use = {.logits = true},
                        const SessionOptions& options = {})
      : use_(use),
        feature_size_(model.feature_size()),
        class_num_(model.class_num()),
        session_(model, options) {}

  loss::TeacherOutput<Scalar> operator()(View<const Scalar> images) override {
    loss::TeacherOutput<Scalar> out;
    if (use_.features) {
      const View<const Scalar> features = session_.features(images);
      features_.assign(features.begin(), features.end());
      out.features = {features_.data(), features.shape};
    }
    if (use_.logits) out.logits = session_.logits(images);
    return out;
  }
  std::int64_t feature_size() const override { return use_.features ? feature_size_ : 0; }
  std::int64_t class_num() const override { return use_.logits ? class_num_ : 0; }

 private:
  loss::TeacherUse use_;
  std::int64_t feature_size_, class_num_;
  Session<Model> session_;
  std::vector<Scalar> features_;  // the session's result is gone after the pass to the logits
};

/// Soft labels [B,C] that the program sets before every step, as those of mixed images, in the
/// place of a teacher's logits: CELoss takes them with CETarget::distribution.
///
///   SoftLabels<float> soft(class_num);
///   session.set_teacher(soft);
///   soft.set(mixed);   session.forward_backward(images, labels, step);
template <class T>
class SoftLabels final : public Teacher<T> {
 public:
  explicit SoftLabels(std::int64_t class_num) : class_num_(class_num) {}

  /// Of the next batch, in memory that lives until then. Throws ShapeError unless [B, class_num].
  void set(View<const T> labels) {
    check_shape("SoftLabels", labels.shape, {labels.shape[0], class_num_});
    labels_ = labels;
  }
  loss::TeacherOutput<T> operator()(View<const T> images) override {
    if (labels_.data == nullptr || labels_.dim(0) != images.dim(0))
      throw ShapeError(text("SoftLabels: a batch of ", images.dim(0), " images, but labels ",
                            labels_.shape, "; call set() before every step"));
    return {{}, labels_};
  }
  std::int64_t feature_size() const override { return 0; }
  std::int64_t class_num() const override { return class_num_; }

 private:
  std::int64_t class_num_;
  View<const T> labels_{};
};

}  // namespace kindred
