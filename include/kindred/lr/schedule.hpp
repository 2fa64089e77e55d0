#pragma once
// Learning-rate schedules: a rate for every training step. The rules and their names are those of
// PaddleClas, ppcls/optimizer/learning_rate.py, which wraps paddle.optimizer.lr.
//
// What they share: a linear warmup from `warmup_start` over `warmup_epochs`, after which the rule
// starts at its own time 0, so that milestones come later by the warmup, as in PaddleClas; and
// `by_epoch`, which lets the rate change after whole epochs only (the warmup too).

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include <kindred/core/error.hpp>

namespace kindred::lr {

/// Where training stands: a schedule is a function of this alone, so a resumed run needs no state.
struct Progress {
  std::int64_t step = 0;             ///< optimizer steps done so far
  std::int64_t steps_per_epoch = 1;  ///< optimizer steps in one epoch
  std::int64_t epochs = 1;           ///< length of the whole training
  std::span<const double> scores{};  ///< first metric of every evaluation so far
};

template <class S>
concept Schedule = requires(const S& schedule, const Progress& progress) {
  { schedule.name() } -> std::convertible_to<const char*>;
  { schedule.at(progress) } -> std::convertible_to<double>;
};

namespace detail {

inline constexpr double pi = 3.14159265358979323846;

/// Time as a rule sees it.
struct Clock {
  double t = 0;       ///< steps, or epochs with by_epoch, since the end of the warmup
  double epoch = 1;   ///< of these in an epoch
  double length = 0;  ///< of these from the end of the warmup to the end of training
};

/// start + (end - start) t / W during the warmup, rule(Clock) after it. Throws ConfigError for a
/// warmup that does not end before the training does; PaddleClas shortens it with a warning.
template <class S, class Rule>
double after_warmup(const S& s, double end, const Progress& p, Rule&& rule) {
  if (s.warmup_epochs < 0 || (s.warmup_epochs > 0 && s.warmup_epochs >= p.epochs))
    throw ConfigError(text("lr.", S::name(), ": warmup_epochs = ", s.warmup_epochs,
                           " must be in [0, epochs) with ", p.epochs, " epochs"));
  const std::int64_t epoch = s.by_epoch ? 1 : p.steps_per_epoch;
  const std::int64_t now = s.by_epoch ? p.step / p.steps_per_epoch : p.step;
  const std::int64_t warmup = s.warmup_epochs * epoch;
  if (now < warmup)
    return s.warmup_start +
           (end - s.warmup_start) * static_cast<double>(now) / static_cast<double>(warmup);
  return rule(Clock{static_cast<double>(now - warmup), static_cast<double>(epoch),
                    static_cast<double>(p.epochs * epoch - warmup)});
}

}  // namespace detail

/// The same rate at every step.
struct Constant {
  double base = 0.1;

  static constexpr const char* name() { return "Constant"; }
  double at(const Progress&) const { return base; }
};

/// The same rate at every step after the warmup.
struct ConstLR {
  double base = 0.1;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "ConstLR"; }
  double at(const Progress& p) const {
    return detail::after_warmup(*this, base, p, [&](const detail::Clock&) { return base; });
  }
};

/// A polynomial from base to end_lr over the whole training:
///   (base - end_lr) (1 - min(t, T) / T)^power + end_lr.
/// With by_epoch the warmup lasts warmup_epochs; in PaddleClas it lasts steps_per_epoch times that.
struct Linear {
  double base = 0.1;
  double end_lr = 0;
  double power = 1;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "Linear"; }
  double at(const Progress& p) const {
    return detail::after_warmup(*this, base, p, [&](const detail::Clock& c) {
      return (base - end_lr) * std::pow(1 - std::min(c.t, c.length) / c.length, power) + end_lr;
    });
  }
};

/// Half a cosine from base to eta_min: eta_min + (base - eta_min) (1 + cos(pi t / T)) / 2.
struct Cosine {
  double base = 0.1;
  double eta_min = 0;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "Cosine"; }
  double at(const Progress& p) const {
    return detail::after_warmup(*this, base, p, [&](const detail::Clock& c) {
      return eta_min + (base - eta_min) * (1 + std::cos(detail::pi * c.t / c.length)) / 2;
    });
  }
};

/// How the cycles of lr::Cyclic shrink: not at all, by half each cycle, or by exp_gamma each step.
enum class CyclicMode { triangular, triangular2, exp_range };

/// Up from base to max_lr in step_size_up steps (epochs with by_epoch) and down again in
/// step_size_down, over and over; the height above base is scaled by 1, 2^-(cycle - 1) or
/// exp_gamma^t. Source: Smith, "Cyclical Learning Rates", WACV 2017.
struct Cyclic {
  double base = 0.01;   ///< PaddleClas: base_learning_rate
  double max_lr = 0.1;  ///< PaddleClas: max_learning_rate
  std::int64_t step_size_up = 1000;
  std::int64_t step_size_down = 0;  ///< 0: as step_size_up
  CyclicMode mode = CyclicMode::triangular;
  double exp_gamma = 1;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "Cyclic"; }
  double at(const Progress& p) const {
    if (step_size_up < 1 || step_size_down < 0)
      throw ConfigError(text("lr.Cyclic: step_size_up = ", step_size_up, " must be >= 1, and ",
                             "step_size_down = ", step_size_down, " >= 0"));
    return detail::after_warmup(*this, base, p, [&](const detail::Clock& c) {
      const auto up = static_cast<double>(step_size_up);
      const double whole = up + (step_size_down > 0 ? static_cast<double>(step_size_down) : up);
      const double cycle = std::floor(c.t / whole), place = c.t / whole - cycle;
      const double rise = up / whole;
      const double height = place <= rise ? place / rise : (1 - place) / (1 - rise);
      const double scale = mode == CyclicMode::triangular    ? 1
                           : mode == CyclicMode::triangular2 ? std::pow(0.5, cycle)
                                                             : std::pow(exp_gamma, c.t);
      return base + (max_lr - base) * height * scale;
    });
  }
};

/// base gamma^floor(t / step_size), step_size in epochs.
struct Step {
  double base = 0.1;
  double step_size = 30;
  double gamma = 0.1;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "Step"; }
  double at(const Progress& p) const {
    return detail::after_warmup(*this, base, p, [&](const detail::Clock& c) {
      const double size = std::floor(step_size * c.epoch);
      if (!(size >= 1))
        throw ConfigError(text("lr.Step: step_size = ", step_size, " epochs is less than a step"));
      return base * std::pow(gamma, std::floor(c.t / size));
    });
  }
};

/// values[i] in the i-th of the intervals that the increasing decay_epochs separate.
struct Piecewise {
  std::vector<double> decay_epochs{};
  std::vector<double> values{0.1};  ///< one more than decay_epochs
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "Piecewise"; }
  double at(const Progress& p) const {
    if (values.size() != decay_epochs.size() + 1 || !std::ranges::is_sorted(decay_epochs))
      throw ConfigError(text("lr.Piecewise: ", decay_epochs.size(), " decay_epochs, which must ",
                             "increase, need one value more, got ", values.size()));
    return detail::after_warmup(*this, values[0], p, [&](const detail::Clock& c) {
      const auto after = std::ranges::upper_bound(decay_epochs, c.t / c.epoch);
      return values[static_cast<std::size_t>(after - decay_epochs.begin())];
    });
  }
};

/// base gamma^k after k of the increasing milestones, in epochs.
struct MultiStepDecay {
  double base = 0.1;
  std::vector<double> milestones{};
  double gamma = 0.1;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "MultiStepDecay"; }
  double at(const Progress& p) const {
    if (!std::ranges::is_sorted(milestones))
      throw ConfigError("lr.MultiStepDecay: milestones must increase");
    return detail::after_warmup(*this, base, p, [&](const detail::Clock& c) {
      const auto after = std::ranges::upper_bound(milestones, c.t / c.epoch);
      return base * std::pow(gamma, static_cast<double>(after - milestones.begin()));
    });
  }
};

/// Whether a score is better when it is smaller or greater.
enum class PlateauMode { min, max };
/// Whether a score must be better by threshold * best or by threshold.
enum class PlateauThreshold { relative, absolute };

/// The rate falls by `factor` when the score (the first metric of an evaluation) was not better
/// than the best for more than `patience` evaluations; then `cooldown` evaluations are not looked
/// at. Not below min_lr, and not by less than epsilon. As in PaddleClas mode is min by default,
/// though its scores, recalls, are better when greater. Scores count from the first, the warmup
/// included; in PaddleClas a warmup makes the rate constant, and without by_epoch: True it fails.
struct ReduceOnPlateau {
  double base = 0.1;
  PlateauMode mode = PlateauMode::min;
  double factor = 0.1;
  std::int64_t patience = 10;
  double threshold = 1e-4;
  PlateauThreshold threshold_mode = PlateauThreshold::relative;
  std::int64_t cooldown = 0;
  double min_lr = 0;
  double epsilon = 1e-8;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;
  bool by_epoch = false;

  static constexpr const char* name() { return "ReduceOnPlateau"; }
  double at(const Progress& p) const {
    if (!(factor < 1))
      throw ConfigError(text("lr.ReduceOnPlateau: factor = ", factor, " must be below 1"));
    return detail::after_warmup(*this, base, p,
                                [&](const detail::Clock&) { return after_scores(p.scores); });
  }

 private:
  double after_scores(std::span<const double> scores) const {
    double rate = base, best = 0;
    bool any = false;
    std::int64_t bad = 0, resting = 0;
    for (const double score : scores) {
      if (resting > 0) {
        --resting;
        continue;
      }
      if (!any || better(score, best)) {
        best = score;
        any = true;
        bad = 0;
      } else if (++bad > patience) {
        resting = cooldown;
        bad = 0;
        const double lower = std::max(rate * factor, min_lr);
        if (rate - lower > epsilon) rate = lower;
      }
    }
    return rate;
  }
  bool better(double score, double best) const {
    const double by = threshold_mode == PlateauThreshold::relative ? best * threshold : threshold;
    return mode == PlateauMode::min ? score < best - by : score > best + by;
  }
};

/// A cosine that does not reach zero: base max(0, cos(pi num_cycles t / T)) after
/// num_warmup_steps steps, base step / num_warmup_steps before them; T the steps after them.
/// Source: Sohn et al., "FixMatch", NeurIPS 2020.
struct CosineFixmatch {
  double base = 0.1;
  std::int64_t num_warmup_steps = 0;
  double num_cycles = 7. / 16;

  static constexpr const char* name() { return "CosineFixmatch"; }
  double at(const Progress& p) const {
    if (num_warmup_steps < 0)
      throw ConfigError(
          text("lr.CosineFixmatch: num_warmup_steps = ", num_warmup_steps, " must be >= 0"));
    const auto warmup = static_cast<double>(num_warmup_steps), t = static_cast<double>(p.step);
    if (t < warmup) return base * t / warmup;
    const double length =
        std::max(1., static_cast<double>(p.epochs * p.steps_per_epoch - num_warmup_steps));
    return base * std::max(0., std::cos(detail::pi * num_cycles * (t - warmup) / length));
  }
};

/// Between two rates: half a cosine, or a straight line.
enum class AnnealStrategy { cos, linear };

/// From max_lr / divide_factor up to max_lr in the first phase_pct of all steps, then down to
/// end_lr; with three_phase first back to the initial rate, as fast as it went up. A phase ends one
/// step early, as in Paddle. Source: Smith and Topin, "Super-Convergence", 2018.
struct OneCycleLR {
  double max_lr = 0.1;  ///< PaddleClas: max_learning_rate
  double divide_factor = 25;
  double end_lr = 1e-10;  ///< PaddleClas: end_learning_rate
  double phase_pct = 0.3;
  AnnealStrategy anneal_strategy = AnnealStrategy::cos;
  bool three_phase = false;
  std::int64_t warmup_epochs = 0;
  double warmup_start = 0;

  static constexpr const char* name() { return "OneCycleLR"; }
  static constexpr bool by_epoch = false;  // phases are parts of all steps
  double at(const Progress& p) const {
    if (!(phase_pct >= 0 && phase_pct <= (three_phase ? 0.5 : 1)) || !(divide_factor > 0))
      throw ConfigError(text("lr.OneCycleLR: phase_pct = ", phase_pct, " must be in [0, ",
                             three_phase ? "0.5" : "1", "], divide_factor = ", divide_factor,
                             " above 0"));
    return detail::after_warmup(*this, max_lr, p, [&](const detail::Clock& c) {
      const auto steps = static_cast<double>(p.epochs * p.steps_per_epoch);
      const double initial = max_lr / divide_factor;
      const double top = phase_pct * steps - 1, back = 2 * phase_pct * steps - 2;
      if (c.t <= top) return anneal(initial, max_lr, c.t / top);
      if (!three_phase) return anneal(max_lr, end_lr, (c.t - top) / (steps - 1 - top));
      if (c.t <= back) return anneal(max_lr, initial, (c.t - top) / (back - top));
      return anneal(initial, end_lr, (c.t - back) / (steps - 1 - back));
    });
  }

 private:
  double anneal(double from, double to, double part) const {
    if (anneal_strategy == AnnealStrategy::linear) return (to - from) * part + from;
    return to + (from - to) / 2 * (std::cos(detail::pi * part) + 1);
  }
};

/// A schedule chosen at run time.
struct AnySchedule {
  using Rule = std::variant<Constant, ConstLR, Linear, Cosine, Cyclic, Step, Piecewise,
                            MultiStepDecay, ReduceOnPlateau, CosineFixmatch, OneCycleLR>;
  Rule rule;

  template <class S>
  requires std::constructible_from<Rule, const S&> AnySchedule(const S& schedule)
      : rule(schedule) {}

  const char* name() const {
    return std::visit([](const auto& s) { return s.name(); }, rule);
  }
  double at(const Progress& p) const {
    return std::visit([&p](const auto& s) { return s.at(p); }, rule);
  }
};

}  // namespace kindred::lr
