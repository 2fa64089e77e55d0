#pragma once
// Triplets with a wide angle.

#include <kindred/miner/miner.hpp>

namespace kindred::miner {

/// Triplets (i, p, n) whose angle at the negative, atan(|x_i - x_p| / (2 |x_n - (x_i + x_p) / 2|)),
/// is above `angle` degrees, on normalised features. Source: Wang et al., "Deep Metric Learning
/// with Angular Loss", ICCV 2017; pytorch-metric-learning AngularMiner, which asks for normalised
/// distances and then measures the features as they are. Throws ConfigError unless angle is in
/// [0, 90).
class AngularMiner {
 public:
  struct Config {
    double angle = 20;  ///< degrees
  };

  static constexpr const char* name() { return "AngularMiner"; }
  static constexpr Matrix matrix = Matrix::squared_distance;

  explicit AngularMiner(const Config& config) : config_(config) {
    if (!(config.angle >= 0 && config.angle < 90))
      throw ConfigError(text(name(), ": angle must be in [0, 90) degrees, got ", config.angle));
  }

  template <class T>
  auto triplet(const Mining<T>& mining) const {
    const double tangent = std::tan(config_.angle / 180 * 3.14159265358979323846);
    return Wider<T>{mining, T(tangent * tangent)};
  }

  template <class T>
  struct Wider {
    Mining<T> mining;
    T t;  ///< tan^2 angle
    KINDRED_HD bool operator()(std::int64_t i, std::int64_t p, std::int64_t n) const {
      const T *d2 = mining.row(i), *of_p = mining.row(p);
      // 4 |x_n - (x_i + x_p) / 2|^2, from the three sides.
      return d2[p] > t * (T(2) * d2[n] + T(2) * of_p[n] - d2[p]);
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::miner
