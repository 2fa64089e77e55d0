#pragma once
// One positive and one negative of each row, easy or hard.

#include <array>
#include <limits>

#include <kindred/miner/miner.hpp>

namespace kindred::miner {

/// Which positive or negative of a row: the hardest (farthest positive, nearest negative), the
/// easiest, the hardest of those easier than the other side's choice, or all of them.
enum class Strategy { hard, semihard, easy, all };

namespace detail {

template <class T>
struct EasyHardRow {
  Mining<T> mining;
  Strategy pos, neg;
  T pos_low, pos_high, neg_low, neg_high;

  template <class Group>
  KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
    const Mining<T>& m = mining;
    const T* d = m.row(i);
    constexpr T infinity = std::numeric_limits<T>::infinity();
    const auto choose_positive = [&](T below) {
      return extreme(group, m.batch, d, pos != Strategy::easy, [&](std::int64_t j) {
        return m.positive(i, j) && d[j] >= pos_low && d[j] <= pos_high && d[j] < below;
      });
    };
    const auto choose_negative = [&](T above) {
      return extreme(group, m.batch, d, neg == Strategy::easy, [&](std::int64_t j) {
        return m.negative(i, j) && d[j] >= neg_low && d[j] <= neg_high && d[j] > above;
      });
    };
    std::int64_t p = -1, n = -1;
    if (pos == Strategy::semihard) {
      n = choose_negative(-infinity);
      if (n >= 0) p = choose_positive(d[n]);
    } else {
      p = choose_positive(infinity);
      n = neg != Strategy::semihard ? choose_negative(-infinity)
          : p >= 0                  ? choose_negative(d[p])
                                    : -1;
    }
    const bool either = pos == Strategy::all || neg == Strategy::all;
    const bool keep_p = p >= 0 && (n >= 0 || either), keep_n = n >= 0 && (p >= 0 || either);
    T* selected = m.selected_row(i);
    group.for_each(m.batch, [&](std::int64_t j) {
      const bool in = m.positive(i, j)   ? pos == Strategy::all || (keep_p && j == p)
                      : m.negative(i, j) ? neg == Strategy::all || (keep_n && j == n)
                                         : false;
      selected[j] = T(in);
    });
  }

 private:
  template <class Group, class Keep>
  KINDRED_HD static std::int64_t extreme(const Group& group, std::int64_t batch, const T* d,
                                         bool largest, Keep&& keep) {
    const auto value = [&](std::int64_t j) { return d[j]; };
    return largest ? group.argmax(batch, keep, value) : group.argmin(batch, keep, value);
  }
};

}  // namespace detail

/// Of each row the pairs to the positive and the negative that the strategies name, by the
/// Euclidean distance of normalised features; rows without either are left out, unless a strategy
/// is `all`. Distances outside of the allowed ranges are not chosen, but by `all`. Of equal ones
/// the first index. Source: pytorch-metric-learning BatchEasyHardMiner; Xuan et al., "Improved
/// Embeddings with Easy Positive Triplet Mining", WACV 2020. Throws ConfigError for semihard on
/// both sides or beside `all`.
class BatchEasyHardMiner {
 public:
  struct Config {
    Strategy pos_strategy = Strategy::easy;
    Strategy neg_strategy = Strategy::semihard;
    std::array<double, 2> allowed_pos_range{0, 4};  ///< no distance is above 2
    std::array<double, 2> allowed_neg_range{0, 4};
  };

  static constexpr const char* name() { return "BatchEasyHardMiner"; }
  static constexpr Matrix matrix = Matrix::distance;

  explicit BatchEasyHardMiner(const Config& config) : config_(config) {
    const Strategy p = config.pos_strategy, n = config.neg_strategy;
    if ((p == Strategy::semihard && (n == Strategy::semihard || n == Strategy::all)) ||
        (n == Strategy::semihard && p == Strategy::all))
      throw ConfigError(text(name(), ": semihard needs easy or hard on the other side"));
  }

  template <class T>
  auto row(const Mining<T>& mining) const {
    const auto &p = config_.allowed_pos_range, &n = config_.allowed_neg_range;
    return detail::EasyHardRow<T>{
        mining, config_.pos_strategy, config_.neg_strategy, T(p[0]), T(p[1]), T(n[0]), T(n[1])};
  }

 private:
  Config config_;
};

}  // namespace kindred::miner
