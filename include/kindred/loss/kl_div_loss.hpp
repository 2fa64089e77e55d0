#pragma once
// Knowledge distillation by the Kullback-Leibler divergence.

#include <kindred/loss/distillation_loss.hpp>

namespace kindred::loss {

/// L = T^2 mean_i KL(softmax(t_i / T) || softmax(s_i / T)), s and t the logits [B,C] of student and
/// teacher, T the temperature. Source: Hinton et al., "Distilling the Knowledge in a Neural
/// Network", 2015; PaddleClas ppcls/loss/kldivloss.py. Throws ConfigError unless T > 0.
class KLDivLoss : public DistillationLoss<KLDivLoss> {
 public:
  struct Config {
    double weight = 1;
    double temperature = 4;
    DistillationKey key = DistillationKey::logits;
  };

  static constexpr const char* name() { return "KLDivLoss"; }

  explicit KLDivLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.temperature > 0))
      throw ConfigError(text(name(), ": temperature must be positive, got ", config.temperature));
  }
  const Config& config() const { return config_; }
  DistillationKey key() const { return config_.key; }

  template <class T>
  auto row(const Comparison<T>& all) const {
    return Row<T>{all, T(config_.temperature)};
  }

  template <class T>
  struct Row {
    Comparison<T> all;
    T temperature;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T *s = all.student_row(i), *t = all.teacher_row(i);
      const std::int64_t n = all.columns;
      const auto every = [](std::int64_t) { return true; };
      const T ls =
          log_sum_exp(group, n, false, every, [&](std::int64_t j) { return s[j] / temperature; });
      const T lt =
          log_sum_exp(group, n, false, every, [&](std::int64_t j) { return t[j] / temperature; });
      const auto log_p = [&](std::int64_t j) { return s[j] / temperature - ls; };
      const auto log_q = [&](std::int64_t j) { return t[j] / temperature - lt; };
      const T kl =
          group.sum(n, [&](std::int64_t j) { return std::exp(log_q(j)) * (log_q(j) - log_p(j)); });
      T* d = all.gradient_row(i);
      group.for_each(n, [&](std::int64_t j) {
        d[j] += all.factor * temperature * (std::exp(log_p(j)) - std::exp(log_q(j)));
      });
      all.finish(group, i, temperature * temperature * kl);
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
