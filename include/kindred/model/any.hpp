#pragma once
// Components chosen at run time: type-erased slots that satisfy the concepts of every slot, so that
// a model named by a file is one more composition, RecModel<AnyBackbone, AnyNeck, AnyHead,
// AnyLoss>.

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <kindred/core/concepts.hpp>
#include <kindred/core/run.hpp>
#include <kindred/loss/loss.hpp>
#include <kindred/miner/miner.hpp>

namespace kindred::any {

/// What a component saved, made by the component at its first forward and reused from then on.
class Saved {
 public:
  template <class S>
  S& as() {
    if (!state_) state_ = {new S{}, [](void* p) { delete static_cast<S*>(p); }};
    return *static_cast<S*>(state_.get());
  }

 private:
  std::unique_ptr<void, void (*)(void*)> state_{nullptr, [](void*) {}};
};

/// A backbone or a neck of any type.
template <class Context, class T>
class Layer {
 public:
  struct Interface {
    virtual ~Interface() = default;
    virtual const char* name() const = 0;
    virtual std::int64_t input_size() const = 0;
    virtual std::int64_t output_size() const = 0;
    virtual int input_rank() const = 0;
    virtual int output_rank() const = 0;
    virtual Tensor<T> forward(const Run<Context, T>&, In<T>, any::Saved&) const = 0;
    virtual Tensor<T> backward(const Run<Context, T>&, Tensor<T>, In<T>, any::Saved&) const = 0;
  };
  /// How to make the component; see component().
  struct Config {
    std::function<std::unique_ptr<Interface>(const Scope&)> make;
  };
  template <class>
  using Saved = any::Saved;

  static constexpr int input_rank = 2, output_rank = 2;

  Layer(const Config& config, const Scope& scope) : layer_(config.make(scope)) {}

  const char* name() const { return layer_->name(); }
  std::int64_t input_size() const { return layer_->input_size(); }
  std::int64_t output_size() const { return layer_->output_size(); }
  /// The ranks of the component held here; input_rank and output_rank are what the compiler knows.
  int held_input_rank() const { return layer_->input_rank(); }
  int held_output_rank() const { return layer_->output_rank(); }
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, any::Saved& saved) const {
    return layer_->forward(run, x, saved);
  }
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, any::Saved& saved) const {
    return layer_->backward(run, std::move(dy), x, saved);
  }

  /// The Config that makes a C from its own settings. (Defined outside of the class, so that
  /// `extern template` can move the code of a component into a translation unit of its own.)
  template <class C>
  static Config component(const typename C::Config& config);

 private:
  template <class C>
  struct Of final : Interface {
    Of(const typename C::Config& config, const Scope& scope) : component(config, scope) {}
    const char* name() const override { return component.name(); }
    std::int64_t input_size() const override {
      if constexpr (concepts::HasInputSize<C>)
        return component.input_size();
      else
        return 0;  // a backbone takes images
    }
    std::int64_t output_size() const override { return component.output_size(); }
    int input_rank() const override {
      if constexpr (requires { C::input_rank; })
        return C::input_rank;
      else
        return 4;  // a backbone takes images
    }
    int output_rank() const override {
      if constexpr (requires { C::output_rank; })
        return C::output_rank;
      else
        return 2;  // a neck gives features
    }
    Tensor<T> forward(const Run<Context, T>& run, In<T> x, any::Saved& saved) const override {
      return component.forward(run, x, saved.as<typename C::template Saved<T>>());
    }
    Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x,
                       any::Saved& saved) const override {
      return component.backward(run, std::move(dy), x, saved.as<typename C::template Saved<T>>());
    }
    C component;
  };

  std::unique_ptr<Interface> layer_;
};

template <class Context, class T>
template <class C>
auto Layer<Context, T>::component(const typename C::Config& config) -> Config {
  return {[config](const Scope& scope) { return std::make_unique<Of<C>>(config, scope); }};
}

/// A head of any type.
template <class Context, class T>
class Head {
 public:
  using Labels = View<const std::int64_t>;
  struct Interface {
    virtual ~Interface() = default;
    virtual const char* name() const = 0;
    virtual std::int64_t input_size() const = 0;
    virtual std::int64_t class_num() const = 0;
    virtual bool logit_free() const = 0;
    virtual Tensor<T> forward(const Run<Context, T>&, In<T>, Labels, any::Saved&) const = 0;
    virtual Tensor<T> backward(const Run<Context, T>&, Tensor<T>, In<T>, Labels,
                               any::Saved&) const = 0;
    virtual void margin_cross_entropy(const Run<Context, T>&, In<T>, Labels, T, T, View<T>,
                                      View<T>) const = 0;
  };
  struct Config {
    std::function<std::unique_ptr<Interface>(const Scope&)> make;
  };
  template <class>
  using Saved = any::Saved;

  Head(const Config& config, const Scope& scope) : head_(config.make(scope)) {}

  const char* name() const { return head_->name(); }
  std::int64_t input_size() const { return head_->input_size(); }
  std::int64_t class_num() const { return head_->class_num(); }
  /// Whether the head held here has margin_cross_entropy.
  bool logit_free() const { return head_->logit_free(); }
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Labels labels, any::Saved& saved) const {
    return head_->forward(run, x, labels, saved);
  }
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dlogits, In<T> x, Labels labels,
                     any::Saved& saved) const {
    return head_->backward(run, std::move(dlogits), x, labels, saved);
  }
  void margin_cross_entropy(const Run<Context, T>& run, In<T> x, Labels labels, T epsilon, T weight,
                            View<T> value, View<T> dx) const {
    head_->margin_cross_entropy(run, x, labels, epsilon, weight, value, dx);
  }

  template <class C>
  static Config component(const typename C::Config& config);

 private:
  template <class C>
  struct Of final : Interface {
    static constexpr bool is_logit_free = concepts::LogitFreeHead<C, Run<Context, T>>;

    Of(const typename C::Config& config, const Scope& scope) : component(config, scope) {}
    const char* name() const override { return component.name(); }
    std::int64_t input_size() const override { return component.input_size(); }
    std::int64_t class_num() const override { return component.class_num(); }
    bool logit_free() const override { return is_logit_free; }
    Tensor<T> forward(const Run<Context, T>& run, In<T> x, Labels labels,
                      any::Saved& saved) const override {
      return component.forward(run, x, labels, saved.as<typename C::template Saved<T>>());
    }
    Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dlogits, In<T> x, Labels labels,
                       any::Saved& saved) const override {
      return component.backward(run, std::move(dlogits), x, labels,
                                saved.as<typename C::template Saved<T>>());
    }
    void margin_cross_entropy(const Run<Context, T>& run, In<T> x, Labels labels, T epsilon,
                              T weight, View<T> value, View<T> dx) const override {
      if constexpr (is_logit_free)
        component.margin_cross_entropy(run, x, labels, epsilon, weight, value, dx);
      else
        throw Error(text("head.", name(), " has no margin_cross_entropy; ask logit_free() first"));
    }
    C component;
  };

  std::unique_ptr<Interface> head_;
};

template <class Context, class T>
template <class C>
auto Head<Context, T>::component(const typename C::Config& config) -> Config {
  return {[config](const Scope& scope) { return std::make_unique<Of<C>>(config, scope); }};
}

/// A miner of any type, to stand before a loss in loss::Mined. What a miner of triplets chooses
/// comes through as the pairs that are in one.
template <class Context, class T>
class Miner {
 public:
  using Labels = View<const std::int64_t>;
  struct Interface {
    virtual ~Interface() = default;
    virtual bool counts() const = 0;
    virtual void choose(const Run<Context, T>&, View<const T>, Labels, View<T>) const = 0;
  };
  struct Config {
    std::function<std::unique_ptr<Interface>()> make;
  };

  explicit Miner(const Config& config) : miner_(config.make()) {}

  static constexpr const char* name() { return "Miner"; }
  /// Whether what it writes are numbers of triplets, not choices alone.
  bool counts() const { return miner_->counts(); }
  void choose(const Run<Context, T>& run, View<const T> x, Labels labels, View<T> selected) const {
    miner_->choose(run, x, labels, selected);
  }

  template <class C>
  static Config component(const typename C::Config& config) {
    return {[config] { return std::make_unique<Of<C>>(config); }};
  }

 private:
  template <class C>
  struct Of final : Interface {
    explicit Of(const typename C::Config& config) : component(config) {}
    bool counts() const override {
      return miner::MinesTriplets<C, T> || requires { C::counts_triplets; };
    }
    void choose(const Run<Context, T>& run, View<const T> x, Labels labels,
                View<T> selected) const override {
      miner::mine_into(run, component, x, labels, selected, [](const auto&) {});
    }
    C component;
  };

  std::unique_ptr<Interface> miner_;
};

/// The sum of any number of losses of any type.
template <class Context, class T>
class Losses {
 public:
  struct Interface {
    virtual ~Interface() = default;
    virtual std::int64_t entries() const = 0;
    virtual loss::LogitUse logit_use() const = 0;
    virtual bool reads(loss::FeatureFrom) const = 0;
    virtual loss::TeacherUse teacher_use() const = 0;
    virtual void describe(loss::LossReport*) const = 0;
    virtual void evaluate(const Run<Context, T>&, const loss::LossInput<T>&,
                          const loss::LossGradient<T>&, View<T>) const = 0;
  };
  struct Config {
    std::vector<std::function<std::unique_ptr<Interface>(const Scope&)>> make;
  };

  static constexpr const char* name() { return "Losses"; }

  Losses(const Config& config, const Scope& scope) {
    if (config.make.empty()) throw ConfigError("no loss was given");
    for (std::size_t i = 0; i < config.make.size(); ++i)
      losses_.push_back(config.make[i](scope / std::to_string(i)));
  }

  std::int64_t entries() const {
    std::int64_t n = 0;
    for (const auto& loss : losses_) n += loss->entries();
    return n;
  }
  loss::LogitUse logit_use() const {
    auto most = loss::LogitUse::none;
    for (const auto& loss : losses_) most = std::max(most, loss->logit_use());
    return most;
  }
  bool reads(loss::FeatureFrom from) const {
    return std::any_of(losses_.begin(), losses_.end(),
                       [from](const auto& loss) { return loss->reads(from); });
  }
  /// Which outputs of a teacher the losses compare with.
  loss::TeacherUse teacher_use() const {
    loss::TeacherUse all;
    for (const auto& loss : losses_) {
      const loss::TeacherUse one = loss->teacher_use();
      all = {all.features || one.features, all.logits || one.logits};
    }
    return all;
  }
  void describe(loss::LossReport* report) const {
    for (const auto& loss : losses_) {
      loss->describe(report);
      report += loss->entries();
    }
  }
  void evaluate(const Run<Context, T>& run, const loss::LossInput<T>& in,
                const loss::LossGradient<T>& gradient, View<T> report) const {
    T* place = report.data;
    for (const auto& loss : losses_) {
      loss->evaluate(run, in, gradient, View<T>{place, {loss->entries() * loss::report_size}});
      place += loss->entries() * loss::report_size;
    }
  }

  /// Adds a C to the losses of `config`.
  template <class C>
  static void add(Config& config, const typename C::Config& settings);

 private:
  template <class C>
  struct Of final : Interface {
    Of(const typename C::Config& config, const Scope& scope)
        : component(config, scope.of_loss(C::name())) {}
    std::int64_t entries() const override { return component.entries(); }
    loss::LogitUse logit_use() const override { return component.logit_use(); }
    bool reads(loss::FeatureFrom from) const override { return component.reads(from); }
    loss::TeacherUse teacher_use() const override {
      if constexpr (requires { component.teacher_use(); })
        return component.teacher_use();
      else
        return {};
    }
    void describe(loss::LossReport* report) const override { component.describe(report); }
    void evaluate(const Run<Context, T>& run, const loss::LossInput<T>& in,
                  const loss::LossGradient<T>& gradient, View<T> report) const override {
      component.evaluate(run, in, gradient, report);
    }
    C component;
  };

  std::vector<std::unique_ptr<Interface>> losses_;
};

template <class Context, class T>
template <class C>
void Losses<Context, T>::add(Config& config, const typename C::Config& settings) {
  config.make.push_back(
      [settings](const Scope& scope) { return std::make_unique<Of<C>>(settings, scope); });
}

}  // namespace kindred::any
