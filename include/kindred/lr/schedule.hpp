#pragma once
// Learning-rate schedules: a rate for every training step.

#include <cmath>
#include <concepts>
#include <cstdint>

#include <kindred/core/error.hpp>

namespace kindred::lr {

/// Where training stands: a schedule is a function of this alone, so a resumed run needs no state.
struct Progress {
  std::int64_t step = 0;             ///< optimizer steps done so far
  std::int64_t steps_per_epoch = 1;  ///< optimizer steps in one epoch
  std::int64_t epochs = 1;           ///< length of the whole training
};

template <class S>
concept Schedule = requires(const S& schedule, const Progress& progress) {
  { schedule.at(progress) } -> std::convertible_to<double>;
};

/// The same rate at every step.
struct Constant {
  double base = 0.1;

  static constexpr const char* name() { return "Constant"; }
  double at(const Progress&) const { return base; }
};

/// Linear warmup, then half a cosine down to eta_min:
///   t < W: start + (base - start) t / W, W = warmup_epochs * steps_per_epoch
///   else:  eta_min + (base - eta_min) (1 + cos(pi (t - W) / (T - W))) / 2, T = all steps.
/// Source: PaddleClas ppcls/optimizer/learning_rate.py (Cosine, by_epoch False).
struct Cosine {
  double base = 0.1;
  double eta_min = 0;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;

  static constexpr const char* name() { return "Cosine"; }
  double at(const Progress& p) const {
    const std::int64_t warmup = warmup_epochs * p.steps_per_epoch;
    const std::int64_t rest = p.epochs * p.steps_per_epoch - warmup;
    if (warmup_epochs < 0 || rest <= 0)
      throw ConfigError(text("lr.Cosine: warmup_epochs = ", warmup_epochs,
                             " must be in [0, epochs) with ", p.epochs, " epochs"));
    if (p.step < warmup)
      return warmup_start +
             (base - warmup_start) * static_cast<double>(p.step) / static_cast<double>(warmup);
    const double t = static_cast<double>(p.step - warmup) / static_cast<double>(rest);
    return eta_min + (base - eta_min) * (1 + std::cos(3.14159265358979323846 * t)) / 2;
  }
};

}  // namespace kindred::lr
