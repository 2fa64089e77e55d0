#pragma once
// What every loss is given and gives back.

#include <kindred/core/run.hpp>

namespace kindred::loss {

/// Which output of the model a loss on features reads.
enum class FeatureFrom { features, backbone };

/// What a loss does with the logits of the head.
enum class LogitUse {
  none,           ///< reads features only
  cross_entropy,  ///< softmax cross-entropy with integer labels: a margin head can do it logit-free
  full,           ///< needs the matrix
};

/// Mean softmax cross-entropy computed by the head itself, class tile by class tile, without the
/// [B,C] logits: writes the mean loss to `value` and accumulates weight * gradient.
template <class T>
class LogitFreeCrossEntropy {
 public:
  virtual void operator()(T epsilon, T weight, View<T> value) const = 0;

 protected:
  ~LogitFreeCrossEntropy() = default;
};

/// Outputs of another model for the same batch, which distillation losses compare with.
template <class T>
struct TeacherOutput {
  View<const T> features{};  ///< [B,D]
  View<const T> logits{};    ///< [B,C]
};

/// Which outputs of a teacher a loss compares with, or a teacher computes.
struct TeacherUse {
  bool features = false;
  bool logits = false;
  bool any() const { return features || logits; }
};

/// Outputs of the model for one batch. Absent arrays have data == nullptr.
template <class T>
struct LossInput {
  View<const T> features;           ///< [B,D]
  View<const T> backbone;           ///< [B,D']; the same as features without a neck
  View<const T> logits;             ///< [B,C]
  View<const std::int64_t> labels;  ///< [B]
  const LogitFreeCrossEntropy<T>* logit_free = nullptr;  ///< set when the head replaces the logits
  TeacherOutput<T> teacher{};                            ///< empty without a teacher

  View<const T> at(FeatureFrom from) const {
    return from == FeatureFrom::features ? features : backbone;
  }
};

/// Where a loss accumulates weight * its gradient.
template <class T>
struct LossGradient {
  View<T> features, backbone, logits;

  View<T> at(FeatureFrom from) const { return from == FeatureFrom::features ? features : backbone; }
};

/// What a loss reports, in the memory of the device: two numbers for each entry.
/// [0] the unweighted loss, [1] how many rows or pairs were active in it.
inline constexpr std::int64_t report_size = 2;

/// One entry of a loss report on the host.
struct LossReport {
  const char* name = "";
  double weight = 1;
  double value = 0;   ///< weight * loss, as PaddleClas' CombinedLoss reports it
  double active = 0;  ///< rows or pairs that contributed
};

}  // namespace kindred::loss
