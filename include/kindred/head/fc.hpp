#pragma once
// FC head: a linear classifier on the features.

#include <kindred/core/run.hpp>
#include <kindred/neck/fc.hpp>

namespace kindred::head {

/// logits = x W + b; labels are not used. x [B, embedding_size] -> [B, class_num].
/// Source: PaddleClas ppcls/arch/gears/fc.py (one class serves as neck and as head there, too).
class FC {
 public:
  using Config = neck::FC::Config;
  template <class T>
  using Saved = neck::FC::Saved<T>;

  static constexpr const char* name() { return "FC"; }

  FC(const Config& config, const Scope& scope) : fc_(config, scope) {}

  std::int64_t input_size() const { return fc_.input_size(); }
  std::int64_t class_num() const { return fc_.output_size(); }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, View<const std::int64_t>,
                    Saved<T>& saved) const {
    return fc_.forward(run, x, saved);
  }
  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dlogits, In<T> x,
                     View<const std::int64_t>, Saved<T>& saved) const {
    return fc_.backward(run, std::move(dlogits), x, saved);
  }

 private:
  neck::FC fc_;
};

}  // namespace kindred::head
