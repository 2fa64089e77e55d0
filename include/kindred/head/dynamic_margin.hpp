#pragma once
// DynamicMargin head: rare classes get a larger angular margin.

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <kindred/head/margin_head.hpp>

namespace kindred {

/// AdditiveAngle of the margin of the label's class.
template <class T>
struct DynamicMarginPolicy : MarginPolicy<T> {
  static constexpr int row_values = 1;  ///< the margin
  const T* margins;                     ///< of every class
  std::int64_t centers;

  DynamicMarginPolicy(const T* of_classes, double s, std::int64_t k)
      : MarginPolicy<T>(s), margins(of_classes), centers(k) {}

  KINDRED_HD std::int64_t sub_centers() const { return centers; }
  KINDRED_HD void begin_row(const MarginSample<T>& sample, T* row) const {
    row[0] = margins[sample.label];
  }
  KINDRED_HD MarginTarget<T> target(T c, const T* row) const {
    const auto psi = AdditiveAngle<T>(row[0], false, T(0))(c);
    return {psi.value, psi.derivative};
  }
};

namespace head {

/// cos_c = largest of x/|x| . w_ck/|w_ck| over the K = sub_centers centres of class c; logits =
/// scale * (cos, with the label's replaced by cos(theta + m_y), or cos - m_y sin(m_y) once
/// theta + m_y > pi), m_c = a n_c^-lambda + b with n_c the number of training images of class c.
/// At evaluation the unscaled cosines.
/// x [B, embedding_size], centres [class_num K, embedding_size], buffer margin [class_num],
/// radians. Throws ConfigError unless there is a count >= 1 for each class, a, lambda, b >= 0, a +
/// b < pi and scale > 0; DataError for a label outside [0, class_num).
/// Source: Ha et al., "Google Landmark Recognition 2020 Competition Third Place Solution" (2020),
/// there with K = 3; not in PaddleClas.
class DynamicMargin : public MarginHead<DynamicMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    std::vector<std::int64_t> class_counts;  ///< n_c >= 1, one for each class
    double a = 0.5, lambda = 0.25, b = 0.05;
    std::int64_t sub_centers = 1;
    double scale = 64;
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "DynamicMargin"; }

  /// How often each class is among the labels of the training images; 1 for a class that is not.
  /// Throws DataError for a label outside [0, class_num).
  static std::vector<std::int64_t> count(const std::vector<std::int64_t>& labels,
                                         std::int64_t class_num) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(class_num));
    for (const std::int64_t label : labels) {
      if (label < 0 || label >= class_num)
        throw DataError(
            text("head.DynamicMargin: label ", label, " is not below class_num ", class_num));
      ++counts[static_cast<std::size_t>(label)];
    }
    for (std::int64_t& n : counts) n = std::max<std::int64_t>(n, 1);
    return counts;
  }

  DynamicMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile), config.sub_centers),
        scale_(config.scale),
        sub_centers_(config.sub_centers) {
    require(static_cast<std::int64_t>(config.class_counts.size()) == config.class_num,
            "class_counts must have one count for each class", config.class_counts.size());
    require(config.a >= 0, "a must be >= 0", config.a);
    require(config.lambda >= 0, "lambda must be >= 0", config.lambda);
    require(config.b >= 0 && config.a + config.b < 3.14159, "a + b must be in [0, pi)",
            config.a + config.b);
    require(config.scale > 0, "scale must be > 0", config.scale);
    std::vector<double> margins;
    margins.reserve(config.class_counts.size());
    for (const std::int64_t count : config.class_counts) {
      require(count >= 1, "every count of class_counts must be >= 1", count);
      margins.push_back(config.a * std::pow(static_cast<double>(count), -config.lambda) + config.b);
    }
    margins_ = scope.declare("margin", {config.class_num}, ParameterKind::buffer,
                             Initializer::values(std::move(margins)));
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>& run) const {
    return DynamicMarginPolicy<T>(run.buffer(margins_).data, scale_, sub_centers_);
  }

 private:
  double scale_;
  std::int64_t sub_centers_;
  ParameterRef margins_;
};

}  // namespace head
}  // namespace kindred
