#pragma once
// The memory of inference.

#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include <xtensor/xadapt.hpp>
#include <xtensor/xtensor.hpp>

#include <kindred/core/run.hpp>

namespace kindred {

struct SessionOptions {
  std::int64_t max_batch = 0;  ///< larger batches throw; 0: any size
  int threads = 0;             ///< 0: all that the machine offers
};

/// Runs a const model: one session per thread. The first batch of a new shape plans its memory;
/// after that a pass allocates nothing. Returned views are valid until the next call.
template <class Model>
class Session {
 public:
  using Scalar = typename Model::Scalar;
  using Images = xt::xtensor<Scalar, 4>;
  using Matrix = xt::xtensor<Scalar, 2>;

  Session(const Model& model, const SessionOptions& options)
      : model_(&model), options_(options), state_(std::make_unique<State>(options.threads)) {}

  /// The output of the neck, what retrieval compares: images [B,H,W,3] -> [B, feature_size()].
  /// Not normalised, as in PaddleClas.
  View<const Scalar> features(View<const Scalar> images) { return run(images, Output::features); }
  /// The output of the backbone.
  View<const Scalar> backbone(View<const Scalar> images) { return run(images, Output::backbone); }
  /// The output of the head; margin heads give the unscaled cosines.
  View<const Scalar> logits(View<const Scalar> images) { return run(images, Output::logits); }

  Matrix features(const Images& images) { return copy(features(view(images))); }
  Matrix backbone(const Images& images) { return copy(backbone(view(images))); }
  Matrix logits(const Images& images) { return copy(logits(view(images))); }

  /// Bytes of activations and scratch in use, the largest plan so far.
  std::size_t bytes() const { return state_->ctx.arena().capacity(); }
  /// The plan for features of images of this shape, made now if need be.
  const Plan& plan(const Shape& images) { return plan_for(images, Output::features); }

 private:
  enum class Output { backbone, features, logits };
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, Output>;

  struct State {
    explicit State(int threads) : ctx(threads) {}
    typename Model::Context ctx;
    std::map<Key, Plan> plans;
    typename Model::Saved saved;  // stays empty: inference saves nothing
    Tensor<Scalar> result;
  };

  static View<const Scalar> view(const Images& x) {
    return {x.data(),
            {static_cast<std::int64_t>(x.shape(0)), static_cast<std::int64_t>(x.shape(1)),
             static_cast<std::int64_t>(x.shape(2)), static_cast<std::int64_t>(x.shape(3))}};
  }
  static Matrix copy(View<const Scalar> v) {
    Matrix m = Matrix::from_shape(
        {static_cast<std::size_t>(v.dim(0)), static_cast<std::size_t>(v.dim(1))});
    std::copy(v.begin(), v.end(), m.data());
    return m;
  }

  void check(const Shape& shape) const {
    if (shape.rank() != 4 || shape[3] != 3)
      throw ShapeError(text("images must be [B, H, W, 3], got ", shape));
    if (shape.size() == 0) throw ShapeError(text("empty batch of images: ", shape));
    if (options_.max_batch > 0 && shape[0] > options_.max_batch)
      throw ShapeError(text("a batch of ", shape[0],
                            " images, but the session was made for at most ", options_.max_batch,
                            "; raise SessionOptions::max_batch"));
  }

  const Plan& plan_for(const Shape& shape, Output output) {
    check(shape);
    const Key key{shape[0], shape[1], shape[2], output};
    const auto found = state_->plans.find(key);
    if (found != state_->plans.end()) return found->second;
    Arena& arena = state_->ctx.arena();
    arena.begin_recording();
    pass({nullptr, shape}, output);
    return state_->plans.emplace(key, arena.end_recording()).first->second;
  }

  View<const Scalar> run(View<const Scalar> images, Output output) {
    state_->ctx.arena().begin_replay(plan_for(images.shape, output));
    pass(images, output);
    return state_->result;
  }

  void pass(View<const Scalar> images, Output output) {
    State& s = *state_;
    const typename Model::RunType run{.ctx = s.ctx,
                                      .parameters = model_->trainable().data(),
                                      .statistics = model_->statistics().data(),
                                      .random = {model_->seed().value, 0, 0}};
    auto x = model_->backbone().forward(run, images, s.saved.backbone);
    if (output != Output::backbone) x = model_->neck().forward(run, x, s.saved.neck);
    if (output == Output::logits) x = model_->head().forward(run, x, {}, s.saved.head);
    s.result = std::move(x);
  }

  const Model* model_;
  SessionOptions options_;
  std::unique_ptr<State> state_;  // keeps addresses when the session is moved
};

}  // namespace kindred
