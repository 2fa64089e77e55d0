#pragma once
// ElasticMargin head: the margin of every image is drawn anew in every step.

#include <kindred/core/random.hpp>
#include <kindred/head/margin_head.hpp>

namespace kindred {

/// Whether a margin is added to the angle, as ArcFace has it, or taken off the cosine, as CosFace.
enum class MarginForm { angle, cosine };

/// "angle" or "cosine".
inline const char* name_of(MarginForm form) {
  return form == MarginForm::angle ? "angle" : "cosine";
}

/// The margin of row i is margin + sigma times the i-th standard normal number of `key`; with plus
/// these numbers are handed out in order, the largest to the row with the smallest cosine to its
/// class.
template <class T>
struct ElasticMarginPolicy : MarginPolicy<T> {
  static constexpr int row_values = 2;  ///< the margin; with plus, all margins in order
  T margin, sigma;
  MarginForm form;
  RandomKey key;
  bool plus;

  ElasticMarginPolicy(double mean, double deviation, double s, MarginForm f, const RandomKey& k,
                      bool in_order = false)
      : MarginPolicy<T>(s),
        margin(static_cast<T>(mean)),
        sigma(static_cast<T>(deviation)),
        form(f),
        key(k),
        plus(in_order) {}

  KINDRED_HD void begin_row(const MarginSample<T>& sample, T* row) const {
    const auto words = philox(key, static_cast<std::uint64_t>(sample.row));
    const T u = T(1) - static_cast<T>(uniform_from_bits(words[0]));  // (0, 1]
    const T v = static_cast<T>(uniform_from_bits(words[1]));
    const T normal = std::sqrt(T(-2) * std::log(u)) * std::cos(T(6.283185307179586) * v);
    row[0] = margin + sigma * normal;
  }
  int row_passes() const { return plus ? 2 : 0; }
  /// First every margin goes to its place among all, then every row takes the one of its rank.
  KINDRED_HD void row_pass(int pass, const MarginBatch<T>& batch, std::int64_t i, T* values,
                           std::int64_t stride) const {
    T* const in_order = values + stride;
    const auto place_of = [&](const T* numbers, bool descending) {
      std::int64_t place = 0;
      for (std::int64_t j = 0; j < batch.size; ++j)
        place += (descending ? numbers[j] > numbers[i] : numbers[j] < numbers[i]) ||
                 (numbers[j] == numbers[i] && j < i);
      return place;
    };
    if (pass == 0)
      in_order[place_of(values, false)] = values[i];
    else
      values[i] = in_order[place_of(batch.cosines, true)];
  }
  KINDRED_HD MarginTarget<T> target(T c, const T* row) const {
    if (form == MarginForm::cosine) return {c - row[0], T(1)};
    const auto psi = AdditiveAngle<T>(row[0], false, T(0))(c);
    return {psi.value, psi.derivative};
  }
};

namespace head {

/// cos_c = x/|x| . w_c/|w_c|; logits = scale * (cos, with the label's replaced by cos(theta + m_i)
/// (ElasticFace-Arc; cos - m_i sin(m_i) once theta + m_i > pi) or by cos - m_i (ElasticFace-Cos)),
/// where m_i is drawn from Normal(margin, sigma) for every row and step. The numbers depend on the
/// seed, the step and the row alone, so a resumed run draws the same. With `plus` (ElasticFace+)
/// the margins of a batch are handed out in order, the largest to the row with the smallest cosine
/// to its class, as the paper says; its code gives row i the margin at the place that the row of
/// the i-th largest cosine has in the batch, which is another permutation. At evaluation the
/// unscaled cosines. x [B, embedding_size], centres [class_num, embedding_size]. Source: Boutros et
/// al., "ElasticFace" (CVPRW 2022) and its code, which has no branch for theta + m_i > pi; not in
/// PaddleClas.
class ElasticMargin : public MarginHead<ElasticMargin> {
 public:
  struct Config {
    std::int64_t embedding_size = 0;
    std::int64_t class_num = 0;
    double margin = 0.5;  ///< mean; radians for MarginForm::angle, the paper has 0.35 for cosine
    double sigma = 0.0125;
    double scale = 64;
    MarginForm form = MarginForm::angle;
    bool plus = false;            ///< larger margins for rows farther from their class
    bool update_in_tile = false;  ///< the optimizer in the backward pass, see MarginHead
  };

  static constexpr const char* name() { return "ElasticMargin"; }

  ElasticMargin(const Config& config, const Scope& scope)
      : MarginHead(config.embedding_size, config.class_num,
                   scope.updated_in_tile(config.update_in_tile)),
        config_(config),
        stream_(stream_of(scope.prefix() + ".ElasticMargin")) {
    require(config.margin >= 0 && config.margin < 3.14159, "margin must be in [0, pi)",
            config.margin);
    require(config.sigma >= 0, "sigma must be >= 0", config.sigma);
    require(config.scale > 0, "scale must be > 0", config.scale);
  }

  template <class Context, class T>
  auto policy(const Run<Context, T>& run) const {
    return ElasticMarginPolicy<T>(config_.margin, config_.sigma, config_.scale, config_.form,
                                  {run.random.seed, stream_, run.random.step}, config_.plus);
  }

 private:
  Config config_;
  std::uint64_t stream_;
};

}  // namespace head
}  // namespace kindred
