#pragma once
// What all margin heads share: the centres, the logits, and cross-entropy without logits.

#include <type_traits>

#include <kindred/core/run.hpp>
#include <kindred/kernels/margin_softmax.hpp>

namespace kindred::head {

/// Base of a margin head (CRTP). `Head` has name() and
///   template <class Context, class T> auto policy(const Run<Context, T>&) const,
/// a policy of kernels/margin_policy.hpp. x [B, embedding_size]; centres
/// [class_num K, embedding_size], the K centres of a class one after the other (files hold Paddle's
/// transpose). At evaluation the unscaled cosines, without a margin.
///
/// Config::update_in_tile (YAML: Arch.Head.update_in_tile): the optimizer's step on the centres is
/// taken within the pass that computes their gradient, a tile at a time, and the gradient is never
/// stored. It spares class_num K embedding_size numbers of memory (512 MB at a million classes of
/// 128 numbers) and, per step, writing and reading them several times; every result is the same to
/// the bit, so checkpoints fit both. Worth it when the centres outweigh the rest of the model. In
/// return (each a ConfigError that says so): CELoss must be the one loss that reads the logits,
/// update_freq must be 1, and a training pass needs to know the optimizer's step, as Trainer does.
/// The promise "a NaN stops training before the update" holds for whatever makes the loss of the
/// head or a gradient of a centre infinite or NaN: then no centre changes, see
/// kernels::margin_softmax_update. A gradient that becomes so only further back, in neck or
/// backbone, or in another loss, stops training too, before any other parameter is updated; the
/// centres have had that step, and the last checkpoint is good.
template <class Head>
class MarginHead {
 public:
  template <class T>
  struct Saved {};

  std::int64_t input_size() const { return embedding_size_; }
  std::int64_t class_num() const { return class_num_; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, View<const std::int64_t> labels,
                    Saved<T>&) const {
    auto logits = run.make({x.dim(0), class_num_}, "margin head: logits");
    if (run.training && labels.data != nullptr)
      kernels::margin_logits_forward(run.ctx, policy(run), x, run.parameter(centers_), labels.data,
                                     logits);
    else
      kernels::margin_logits(run.ctx, x, run.parameter(centers_), logits,
                             centers_.shape[0] / class_num_);
    return logits;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dlogits, In<T> x,
                     View<const std::int64_t> labels, Saved<T>&) const {
    if (update_in_tile())
      throw ConfigError(text("head.", Head::name(),
                             ": with update_in_tile there is no gradient of logits; set it to "
                             "false"));
    auto dx = run.make(x.shape, "margin head: dx");
    kernels::margin_logits_backward(run.ctx, policy(run), dlogits, x, run.parameter(centers_),
                                    labels.data, dx, run.gradient(centers_));
    return dx;
  }

  /// Softmax cross-entropy of the logits without building them: value = mean loss,
  /// dx += weight * gradient, gradient of the centres accumulated or, with update_in_tile, given to
  /// run.row_update. Throws ConfigError if there is none.
  template <class Context, class T>
  void margin_cross_entropy(const Run<Context, T>& run, In<T> x, View<const std::int64_t> labels,
                            std::type_identity_t<T> epsilon, std::type_identity_t<T> weight,
                            View<T> value, View<T> dx) const {
    const auto centers = run.parameter(centers_);
    if (!update_in_tile())
      return kernels::margin_softmax(run.ctx, policy(run), x, centers, labels.data, epsilon, weight,
                                     value, dx, run.gradient(centers_));
    if (run.row_update == nullptr)
      throw ConfigError(text("head.", Head::name(),
                             ": update_in_tile needs the optimizer's step within the pass: train "
                             "with Trainer, or give TrainSession an optim::RowStep; or set "
                             "update_in_tile to false"));
    kernels::margin_softmax_update(run.ctx, policy(run), x, centers, labels.data, epsilon, weight,
                                   value, dx, *run.row_update, View<T>{run.row_update_taken, {1}});
  }

  /// Whether the centres are updated within the pass that computes their gradient.
  bool update_in_tile() const { return centers_.gradient_offset < 0; }

 protected:
  /// update_in_tile: scope.updated_in_tile().
  MarginHead(std::int64_t embedding_size, std::int64_t class_num, const Scope& scope,
             std::int64_t sub_centers = 1, const char* parameter = "weight")
      : embedding_size_(embedding_size), class_num_(class_num) {
    if (embedding_size < 1 || class_num < 1)
      throw ConfigError(text("head.", Head::name(),
                             ": embedding_size and class_num must be >= 1, got ", embedding_size,
                             " and ", class_num));
    require(sub_centers >= 1, "sub-centres must be >= 1", sub_centers);
    centers_ =
        scope.declare(parameter, {class_num * sub_centers, embedding_size}, ParameterKind::center,
                      Initializer::xavier_normal(embedding_size, class_num * sub_centers),
                      FileLayout::transposed);
  }

  /// Throws ConfigError "head.NAME: `what`, got `value`" unless `holds`.
  template <class Value>
  static void require(bool holds, const char* what, const Value& value) {
    if (!holds) throw ConfigError(text("head.", Head::name(), ": ", what, ", got ", value));
  }

 private:
  template <class Context, class T>
  auto policy(const Run<Context, T>& run) const {
    return static_cast<const Head*>(this)->policy(run);
  }

  std::int64_t embedding_size_, class_num_;
  ParameterRef centers_;
};

}  // namespace kindred::head
