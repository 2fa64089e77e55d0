#pragma once
// The memory of inference.

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <xtensor/xadapt.hpp>
#include <xtensor/xtensor.hpp>

#include <kindred/core/run.hpp>
#include <kindred/model/image_batch.hpp>

namespace kindred {

struct SessionOptions {
  std::int64_t max_batch = 0;  ///< larger batches throw; 0: any size
  int threads = 0;             ///< 0: all that the machine offers
  /// bf16: convolutional backbones store their maps rounded to BF16, and their pointwise
  /// convolutions multiply factors rounded to it: see Storage. Parameters, their gradients,
  /// statistics and features stay float. On a GPU all other products take factors in BF16 then,
  /// too, unless cuda::Context::set_math() says otherwise. Of a model of double it throws
  /// ConfigError.
  Storage activations = Storage::scalar;
};

/// Runs a const model: one session per thread. The first batch of a new shape plans its memory;
/// after that a pass allocates nothing. Images and results are in memory of the host. Returned
/// views are valid until the next call.
///
/// A context that names `images_per_part` gets its batches in parts of at most that size, each run
/// through the whole network by one thread: its activations stay in that core's cache, no thread
/// waits for another in every layer, and the memory does not grow with the batch. With fewer parts
/// than threads, the threads share the work inside of each part. The bits are the same.
///
/// Weights are packed once for every version() of the model: see there what counts as a change.
template <class Model>
class Session {
 public:
  using Scalar = typename Model::Scalar;
  using Images = xt::xtensor<Scalar, 4>;
  using Matrix = xt::xtensor<Scalar, 2>;

  Session(const Model& model, const SessionOptions& options)
      : model_(&model), options_(options), state_(std::make_unique<State>(options.threads)) {
    check_storage<typename Model::Context, Scalar>("Session", options.activations);
    if constexpr (requires { context().adapt_math(options.activations); })
      context().adapt_math(options.activations);
  }

  /// The output of the neck, what retrieval compares: images [B,H,W,3] -> [B, feature_size()].
  /// Not normalised, as in PaddleClas.
  View<const Scalar> features(View<const Scalar> images) {
    return run(Input(images), Output::features);
  }
  /// The output of the backbone.
  View<const Scalar> backbone(View<const Scalar> images) {
    return run(Input(images), Output::backbone);
  }
  /// The output of the head; margin heads give the unscaled cosines.
  View<const Scalar> logits(View<const Scalar> images) {
    return run(Input(images), Output::logits);
  }

  // The same of images that the device normalises.
  View<const Scalar> features(const PixelImages& x) { return run(Input(x), Output::features); }
  View<const Scalar> backbone(const PixelImages& x) { return run(Input(x), Output::backbone); }
  View<const Scalar> logits(const PixelImages& x) { return run(Input(x), Output::logits); }

  Matrix features(const Images& images) { return copy(features(view(images))); }
  Matrix backbone(const Images& images) { return copy(backbone(view(images))); }
  Matrix logits(const Images& images) { return copy(logits(view(images))); }

  /// Where kernels run: on a GPU, set_math() for the passes from now on.
  typename Model::Context& context() { return state_->together.ctx; }
  /// Bytes of activations, scratch, prepared weights and collected results: the largest so far.
  std::size_t bytes() const {
    std::size_t sum =
        state_->together.ctx.arena().capacity() + state_->collected.capacity() * sizeof(Scalar);
    for (const auto& worker : state_->alone) sum += worker->ctx.arena().capacity();
    return sum + state_->weights.bytes();
  }
  /// The plan for features of images of this shape, made now if need be: that of one part, where
  /// they are more than a part.
  const Plan& plan(const Shape& images) {
    check(images);
    return plan_for(state_->together, Input::planned(images, false).part(0, part_size(images[0])),
                    Output::features);
  }

 private:
  enum class Output { backbone, features, logits };
  using Input = ImageBatch<Scalar>;
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool, Output>;

  /// A context and all that a pass on it leaves.
  struct Worker {
    explicit Worker(int threads) : ctx(threads) {}
    typename Model::Context ctx;
    std::map<Key, Plan> plans;
    typename Model::Saved saved;  // stays empty: inference saves nothing
    Tensor<Scalar> result;
  };
  struct State {
    explicit State(int threads) : together(threads) {}
    Worker together;                             ///< all threads
    std::vector<std::unique_ptr<Worker>> alone;  ///< one for each thread, once they are needed
    std::vector<Scalar> collected;               ///< the results of all parts
    PreparedWeights<Scalar> weights;             ///< of all workers
    std::uint64_t version = 0;                   ///< of the model that they were made of
    bool prepared[3] = {};                       ///< for each Output
  };

  static std::int64_t part_size(std::int64_t batch) {
    if constexpr (requires { Model::Context::images_per_part; })
      return std::clamp<std::int64_t>(batch / 4, 1, Model::Context::images_per_part);
    return batch;
  }

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

  /// Of a batch as `images`, whose data is not looked at.
  const Plan& plan_for(Worker& worker, const Input& images, Output output) {
    const Shape& shape = images.shape();
    const Key key{shape[0], shape[1], shape[2], images.has_pixels(), output};
    const auto found = worker.plans.find(key);
    if (found != worker.plans.end()) return found->second;
    Arena& arena = worker.ctx.arena();
    arena.begin_recording();
    pass(worker, images, output);
    return worker.plans.emplace(key, arena.end_recording()).first->second;
  }

  /// Makes the weights that a pass to this output asks for, if the model has changed.
  void prepare(const Input& images, Output output) {
    State& s = *state_;
    if (s.version != model_->version()) {
      s.weights.clear();
      std::fill(std::begin(s.prepared), std::end(s.prepared), false);
      s.version = model_->version();
    }
    bool& prepared = s.prepared[static_cast<std::size_t>(output)];
    if (prepared) return;
    Arena& arena = s.together.ctx.arena();
    arena.begin_recording();
    s.weights.set_preparing(true);
    try {
      pass(s.together, images, output);
    } catch (...) {  // a shape that does not fit: later passes must still only look
      s.weights.set_preparing(false);
      throw;
    }
    s.weights.set_preparing(false);
    arena.end_recording();
    prepared = true;
  }

  View<const Scalar> run(const Input& images, Output output) {
    check(images.shape());
    if constexpr (requires { Model::Context::prepares_weights; }) prepare(images, output);
    if constexpr (requires { Model::Context::images_per_part; }) {
      const std::int64_t batch = images.shape()[0], part = part_size(batch);
      if (part < batch) return run_in_parts(images, part, output);
    }
    Worker& worker = state_->together;
    worker.ctx.arena().begin_replay(plan_for(worker, images, output));
    pass(worker, images, output);
    return worker.ctx.download(View<const Scalar>(worker.result), state_->collected);
  }

  View<const Scalar> run_in_parts(const Input& images, std::int64_t part, Output output) {
    State& s = *state_;
    const std::int64_t batch = images.shape()[0], parts = (batch + part - 1) / part;
    const std::int64_t width = output_size(output);
    const bool parallel = parts >= s.together.ctx.threads();
    while (parallel && static_cast<int>(s.alone.size()) < s.together.ctx.threads())
      s.alone.push_back(std::make_unique<Worker>(1));
    // All memory is planned before the threads start.
    auto plan = [&](Worker& worker) {
      Arena& arena = worker.ctx.arena();
      for (const std::int64_t count : {part, (batch - 1) % part + 1})
        arena.reserve(plan_for(worker, images.part(0, count), output).bytes());
    };
    if (parallel)
      for (auto& worker : s.alone) plan(*worker);
    else
      plan(s.together);
    s.collected.resize(static_cast<std::size_t>(batch * width));

    auto run_part = [&](Worker& worker, std::int64_t i) {
      const std::int64_t begin = i * part;
      const Input slice = images.part(begin, std::min(part, batch - begin));
      worker.ctx.arena().begin_replay(plan_for(worker, slice, output));
      pass(worker, slice, output);
      std::copy(worker.result.begin(), worker.result.end(), s.collected.data() + begin * width);
    };
    if (parallel)
      s.together.ctx.parallel_for(parts, [&](std::int64_t i, int thread) {
        run_part(*s.alone[static_cast<std::size_t>(thread)], i);
      });
    else
      for (std::int64_t i = 0; i < parts; ++i) run_part(s.together, i);
    return {s.collected.data(), {batch, width}};
  }

  std::int64_t output_size(Output output) const {
    switch (output) {
      case Output::backbone:
        return model_->backbone().output_size();
      case Output::features:
        return model_->feature_size();
      case Output::logits:
        break;
    }
    return model_->class_num();
  }

  void pass(Worker& worker, const Input& images, Output output) {
    const typename Model::RunType run{.ctx = worker.ctx,
                                      .parameters = model_->trainable().data(),
                                      .statistics = model_->statistics().data(),
                                      .random = {model_->seed().value, 0, 0},
                                      .weights = &state_->weights,
                                      .storage = options_.activations};
    typename Input::Memory uploaded;
    const View<const Scalar> input = images.on_device(worker.ctx, uploaded);
    auto x = model_->backbone().forward(run, input, worker.saved.backbone);
    uploaded.reset();
    if (output == Output::backbone && x.shape.rank() != 2)
      throw ShapeError(text("backbone.", model_->backbone().name(), " gives maps ", x.shape,
                            ", which a session does not hand out; ask for features()"));
    if (output != Output::backbone) x = model_->neck().forward(run, x, worker.saved.neck);
    if (output == Output::logits) x = model_->head().forward(run, x, {}, worker.saved.head);
    worker.result = std::move(x);
  }

  const Model* model_;
  SessionOptions options_;
  std::unique_ptr<State> state_;  // keeps addresses when the session is moved
};

}  // namespace kindred
