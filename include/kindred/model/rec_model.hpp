#pragma once
// RecModel: backbone, neck, head and loss composed at compile time.

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kindred/core/concepts.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/model/session.hpp>
#include <kindred/model/train_session.hpp>

namespace kindred {

namespace detail {

/// All that the compiler can check of one composition; see core/concepts.hpp for the signatures.
template <class Backbone, class Neck, class Head, class Loss, class R>
struct CheckComposition {
  static_assert(!concepts::LossDescribed<Backbone> && !concepts::LossDescribed<Neck> &&
                    !concepts::LossDescribed<Head>,
                "a loss stands in the slot of a Backbone, a Neck or a Head; the order is "
                "RecModel<Backbone, Neck, Head, Loss>, and several losses go into loss::Combined");
  static_assert(
      !concepts::HeadForward<Loss, R>,
      "a head stands in the slot of the Loss; the order is RecModel<Backbone, Neck, Head, "
      "Loss>, with loss::CELoss to train a head");
  static_assert(
      concepts::Configurable<Backbone>,
      "Backbone needs a Config aggregate and a constructor (const Config&, const Scope&)");
  static_assert(concepts::Configurable<Neck>,
                "Neck needs a Config aggregate and a constructor (const Config&, const Scope&)");
  static_assert(concepts::Configurable<Head>,
                "Head needs a Config aggregate and a constructor (const Config&, const Scope&)");
  static_assert(concepts::Configurable<Loss>,
                "Loss needs a Config aggregate and a constructor (const Config&, const Scope&)");
  static_assert(concepts::Named<Backbone> && concepts::Named<Neck> && concepts::Named<Head> &&
                    concepts::Named<Loss>,
                "every component needs: static constexpr const char* name()");
  static_assert(concepts::Saves<Backbone, R> && concepts::Saves<Neck, R> &&
                    concepts::Saves<Head, R>,
                "Backbone, Neck and Head need: template <class T> struct Saved");
  static_assert(concepts::LayerForward<Backbone, R>,
                "Backbone lacks Tensor<T> forward(run, In<T> images, Saved<T>&) const");
  static_assert(concepts::LayerBackward<Backbone, R>,
                "Backbone lacks Tensor<T> backward(run, Tensor<T> dy, In<T> images, Saved<T>&) "
                "const");
  static_assert(concepts::HasOutputSize<Backbone>, "Backbone lacks int64 output_size() const");
  static_assert(concepts::LayerForward<Neck, R>,
                "Neck lacks Tensor<T> forward(run, In<T> x, Saved<T>&) const");
  static_assert(concepts::LayerBackward<Neck, R>,
                "Neck lacks Tensor<T> backward(run, Tensor<T> dy, In<T> x, Saved<T>&) const");
  static_assert(concepts::HasInputSize<Neck> && concepts::HasOutputSize<Neck>,
                "Neck lacks int64 input_size() const or output_size() const");
  static_assert(concepts::HeadForward<Head, R>,
                "Head lacks Tensor<T> forward(run, In<T> x, labels, Saved<T>&) const");
  static_assert(concepts::HeadBackward<Head, R>,
                "Head lacks Tensor<T> backward(run, Tensor<T> dlogits, In<T> x, labels, Saved<T>&) "
                "const");
  static_assert(concepts::HasInputSize<Head> && concepts::HasClassNum<Head>,
                "Head lacks int64 input_size() const or class_num() const");
  static_assert(
      concepts::LossEvaluate<Loss, R>,
      "Loss lacks void evaluate(run, LossInput<T>, LossGradient<T>, View<T> report) const");
  static_assert(concepts::LossDescribed<Loss>,
                "Loss lacks entries(), describe(LossReport*), logit_use() or reads(FeatureFrom)");
  static_assert(Backbone::output_rank == Neck::input_rank,
                "this Neck cannot follow this Backbone: one works on feature vectors [B,D], the "
                "other on feature maps [B,H,W,C]; pool in the Backbone or choose a Neck of the "
                "same rank");
  static constexpr bool passed = true;
};

}  // namespace detail

/// A network that turns images into features, with the classifier and the loss that train it.
///
///   images [B,H,W,3] -> Backbone -> Neck -> features [B,D] -> Head -> logits [B,C]; Loss on all.
///
/// The model owns its parameters and nothing else: `session()` gives the memory of inference,
/// `train_session()` that of training. While no train session runs, the model is read-only and any
/// number of sessions may use it from as many threads.
/// Source: RecModel of PaddleClas, ppcls/arch/__init__.py; outputs are named as there.
template <class Backbone_, class Neck_, class Head_, class Loss_, class Device_ = Cpu,
          class Scalar_ = float>
class RecModel {
 public:
  using Backbone = Backbone_;
  using Neck = Neck_;
  using Head = Head_;
  using Loss = Loss_;
  using Device = Device_;
  using Scalar = Scalar_;
  using Context = typename Device::Context;
  using RunType = Run<Context, Scalar>;
  /// An array of the host that kernels of the device can use too: moments of an optimizer.
  using Array = std::vector<Scalar, typename Device::template Allocator<Scalar>>;
  static_assert(detail::CheckComposition<Backbone, Neck, Head, Loss, RunType>::passed);

  struct Config {
    typename Backbone::Config backbone{};
    typename Neck::Config neck{};
    typename Head::Config head{};
    typename Loss::Config loss{};
  };

  /// What the forward of all slots leaves for the backward.
  struct Saved {
    typename Backbone::template Saved<Scalar> backbone;
    typename Neck::template Saved<Scalar> neck;
    typename Head::template Saved<Scalar> head;
  };

  /// Builds the network and draws its parameters from `seed`. Throws ConfigError, and ShapeError if
  /// the widths of neighbouring slots differ.
  RecModel(const Config& config, Seed seed)
      : backbone_(config.backbone, Scope(table_) / "backbone"),
        neck_(config.neck, Scope(table_) / "neck"),
        head_(config.head, Scope(table_) / "head"),
        loss_(config.loss, (Scope(table_) / "loss").of_loss(Loss::name())),
        seed_(seed) {
    check_widths();
    check_update_in_tile();
    trainable_ = allocate(table_.trainable_size());
    statistics_ = allocate(table_.buffer_size());
    initialize();
  }
  RecModel(RecModel&&) noexcept = default;
  RecModel& operator=(RecModel&&) noexcept = default;

  /// The memory of inference; one per thread.
  Session<RecModel> session(const SessionOptions& options = {}) const {
    return Session<RecModel>(*this, options);
  }
  /// The memory of training: gradients and saved activations. Training changes the model.
  TrainSession<RecModel> train_session(const SessionOptions& options = {}) {
    return TrainSession<RecModel>(*this, options);
  }

  const ParameterTable& parameters() const { return table_; }
  /// All trainable values, in the order and with the offsets of parameters().
  std::span<Scalar> trainable() {
    changed();
    return {trainable_.get(), size(table_.trainable_size())};
  }
  std::span<const Scalar> trainable() const {
    return {trainable_.get(), size(table_.trainable_size())};
  }
  /// All running statistics.
  std::span<Scalar> statistics() {
    changed();
    return {statistics_.get(), size(table_.buffer_size())};
  }
  std::span<const Scalar> statistics() const {
    return {statistics_.get(), size(table_.buffer_size())};
  }
  /// The values of one parameter or buffer; throws ConfigError if there is none of that name.
  View<Scalar> parameter(const std::string& name) {
    const ParameterInfo* info = table_.find(name);
    if (info == nullptr) throw ConfigError(text("the model has no parameter named ", name));
    changed();
    Scalar* base = info->kind == ParameterKind::buffer ? statistics_.get() : trainable_.get();
    return {base + info->offset, info->shape};
  }

  /// Grows whenever somebody may be about to write parameters or statistics: each time that the
  /// accessors above hand out memory that is not const. Sessions prepare their weights anew when it
  /// has. Who keeps such memory and writes to it later calls changed() after it.
  std::uint64_t version() const { return version_; }
  void changed() { ++version_; }

  Seed seed() const { return seed_; }
  const Backbone& backbone() const { return backbone_; }
  const Neck& neck() const { return neck_; }
  const Head& head() const { return head_; }
  const Loss& loss() const { return loss_; }
  std::int64_t feature_size() const { return neck_.output_size(); }
  std::int64_t class_num() const { return head_.class_num(); }

  /// Whether training builds the [B,C] logits; a margin head with CELoss does not.
  bool builds_logits() const {
    if constexpr (concepts::LogitFreeHead<Head, RunType>) {
      if constexpr (requires { head_.logit_free(); }) {
        if (!head_.logit_free()) return loss_.logit_use() != loss::LogitUse::none;
      }
      return loss_.logit_use() == loss::LogitUse::full;
    } else {
      return loss_.logit_use() != loss::LogitUse::none;
    }
  }

  /// One training pass: `report` gets the losses, run.gradients accumulates their derivatives.
  /// `teacher` is what distillation losses compare with.
  void forward_backward(const RunType& run, View<const Scalar> images,
                        View<const std::int64_t> labels, Saved& saved, View<Scalar> report,
                        const loss::TeacherOutput<Scalar>& teacher = {}) const {
    auto base = backbone_.forward(run, images, saved.backbone);
    auto features = neck_.forward(run, base, saved.neck);
    auto dfeatures = run.make(features.shape, "RecModel.dfeatures");
    kernels::fill(run.ctx, Scalar(0), dfeatures);
    Tensor<Scalar> dbase;
    if (loss_.reads(loss::FeatureFrom::backbone)) {
      dbase = run.make(base.shape, "RecModel.dbackbone");
      kernels::fill(run.ctx, Scalar(0), dbase);
    }
    losses(run, base, features, labels, teacher, saved, {dfeatures, dbase, {}}, report);
    features.reset();
    auto through_neck = neck_.backward(run, std::move(dfeatures), base, saved.neck);
    if (!dbase.empty()) {
      kernels::scale_add(run.ctx, Scalar(1), dbase, through_neck);
      dbase.reset();
    }
    base.reset();
    backbone_.backward(run, std::move(through_neck), images, saved.backbone);
  }

 private:
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

  static std::shared_ptr<Scalar> allocate(std::int64_t n) {
    return std::static_pointer_cast<Scalar>(Device::allocate(size(n) * sizeof(Scalar)));
  }

  void check_widths() const {
    auto meet = [](const char* slot, const char* name, std::int64_t takes, const char* before,
                   const char* before_name, std::int64_t gives) {
      if (takes != gives)
        throw ShapeError(text(slot, '.', name, ": expects features [B, ", takes, "], but ", before,
                              '.', before_name, " gives [B, ", gives,
                              "]; set the input size of the ", slot, " to ", gives));
    };
    check_ranks();
    meet("neck", neck_.name(), neck_.input_size(), "backbone", backbone_.name(),
         backbone_.output_size());
    meet("head", head_.name(), head_.input_size(), "neck", neck_.name(), neck_.output_size());
  }

  /// What CheckComposition asks of types, of slots that are filled when the program runs; and that
  /// no loss reads a map.
  void check_ranks() const {
    int given = Backbone::output_rank, taken = Neck::input_rank;
    if constexpr (requires { backbone_.held_output_rank(); }) given = backbone_.held_output_rank();
    if constexpr (requires { neck_.held_input_rank(); }) taken = neck_.held_input_rank();
    const auto kind = [](int rank) {
      return rank == 2 ? "feature vectors [B,D]" : "feature maps [B,H,W,C]";
    };
    if (given != taken)
      throw ConfigError(text("neck.", neck_.name(), " works on ", kind(taken), ", but backbone.",
                             backbone_.name(), " gives ", kind(given),
                             "; choose a neck or a backbone of the other kind"));
    if (given != 2 && loss_.reads(loss::FeatureFrom::backbone))
      throw ConfigError(text("loss: a loss reads the backbone's output, but backbone.",
                             backbone_.name(), " gives ", kind(given),
                             "; set feature_from to features"));
  }

  /// A head whose gradient is not stored must be the last word on it.
  void check_update_in_tile() const {
    if (table_.updated_in_tile() == nullptr) return;
    if (loss_.logit_use() == loss::LogitUse::cross_entropy && !builds_logits()) return;
    throw ConfigError(text("head.", head_.name(), ": update_in_tile takes the optimizer's step on ",
                           table_.updated_in_tile()->name, " within the cross-entropy, but ",
                           loss_.logit_use() == loss::LogitUse::none
                               ? "no loss reads the head; add CELoss"
                               : "another loss needs the logits [B,C] and their gradient",
                           ", or set update_in_tile to false"));
  }

  void initialize() {
    std::fill_n(trainable_.get(), table_.trainable_size(), Scalar(0));  // padding included
    std::fill_n(statistics_.get(), table_.buffer_size(), Scalar(0));
    for (const ParameterInfo& info : table_.entries())
      info.initializer.fill(parameter(info.name), {seed_.value, stream_of(info.name), 0});
  }

  void losses(const RunType& run, View<const Scalar> base, View<const Scalar> features,
              View<const std::int64_t> labels, const loss::TeacherOutput<Scalar>& teacher,
              Saved& saved, loss::LossGradient<Scalar> gradient, View<Scalar> report) const {
    loss::LossInput<Scalar> in{features, base, {}, labels, nullptr, teacher};
    if (!builds_logits()) {
      if constexpr (concepts::LogitFreeHead<Head, RunType>) {
        const MarginCrossEntropy margin(run, head_, table_.updated_in_tile() != nullptr, in,
                                        gradient.features);
        in.logit_free = &margin;
        loss_.evaluate(run, in, gradient, report);
      } else {
        loss_.evaluate(run, in, gradient, report);
      }
      return;
    }
    auto logits = head_.forward(run, features, labels, saved.head);
    auto dlogits = run.make(logits.shape, "RecModel.dlogits");
    kernels::fill(run.ctx, Scalar(0), dlogits);
    in.logits = logits;
    gradient.logits = dlogits;
    loss_.evaluate(run, in, gradient, report);
    logits.reset();
    auto d = head_.backward(run, std::move(dlogits), features, labels, saved.head);
    kernels::scale_add(run.ctx, Scalar(1), d, gradient.features);
  }

  /// Hands the head's logit-free cross-entropy to the loss that asks for it.
  class MarginCrossEntropy final : public loss::LogitFreeCrossEntropy<Scalar> {
   public:
    MarginCrossEntropy(const RunType& run, const Head& head, bool updates_in_tile,
                       const loss::LossInput<Scalar>& in, View<Scalar> dfeatures)
        : run_(run),
          head_(head),
          updates_in_tile_(updates_in_tile),
          features_(in.features),
          labels_(in.labels),
          d_(dfeatures) {}
    void operator()(Scalar epsilon, Scalar weight, View<Scalar> value) const override {
      if (std::exchange(called_, true) && updates_in_tile_)
        throw ConfigError(text("head.", head_.name(),
                               ": update_in_tile takes one step on the centres, but two losses are "
                               "CELoss; keep one of them, or set update_in_tile to false"));
      if constexpr (concepts::LogitFreeHead<Head, RunType>)
        head_.margin_cross_entropy(run_, features_, labels_, epsilon, weight, value, d_);
    }

   private:
    const RunType& run_;
    const Head& head_;
    bool updates_in_tile_;
    View<const Scalar> features_;
    View<const std::int64_t> labels_;
    View<Scalar> d_;
    mutable bool called_ = false;
  };

  ParameterTable table_;
  Backbone backbone_;
  Neck neck_;
  Head head_;
  Loss loss_;
  Seed seed_;
  std::shared_ptr<Scalar> trainable_, statistics_;
  std::uint64_t version_ = 1;
};

}  // namespace kindred
