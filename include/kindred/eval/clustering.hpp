#pragma once
// Clusters of features and how well they agree with labels.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/core/error.hpp>
#include <kindred/core/random.hpp>
#include <kindred/core/shape.hpp>
#include <kindred/eval/similarity.hpp>

namespace kindred::eval {

struct KMeansOptions {
  std::int64_t clusters = 0;
  std::int64_t max_iterations = 100;
  Seed seed{};
  int threads = 0;  ///< 0: all that the machine offers; the results do not depend on it
};

struct KMeansResult {
  std::vector<float> centers;             ///< [K, D]
  std::vector<std::int64_t> assignments;  ///< [N], of the nearest centre, the first of equal ones
  double inertia = 0;                     ///< sum of the squared distances to the own centre
  std::int64_t iterations = 0;
  bool converged = false;  ///< no assignment changed in the last iteration
};

namespace detail {

/// Lloyd's iterations. Distances are of single precision (|c|^2 - 2 x.c orders them), means and
/// inertia of double.
class KMeans {
 public:
  KMeans(View<const float> x, const KMeansOptions& options)
      : x_(x),
        options_(options),
        blocks_(x.shape, {options.clusters, x.dim(1)},
                {.normalize = false, .threads = options.threads}),
        ctx_(blocks_.context()),
        distances_(size(x.dim(0))) {
    check_finite(ctx_, "k_means", x);
    result_.assignments.assign(size(x.dim(0)), -1);
  }

  KMeansResult run(std::vector<float> centers) {
    result_.centers = std::move(centers);
    while (result_.iterations < options_.max_iterations && !result_.converged) {
      ++result_.iterations;
      result_.converged = !assign();
      if (!result_.converged) update();
    }
    if (!result_.converged) assign();
    for (const double d : distances_) result_.inertia += d;
    return std::move(result_);
  }

  /// k-means++: each centre is a row drawn with probability proportional to its squared distance
  /// from the nearest centre so far; the first one uniformly.
  std::vector<float> draw_centers() {
    const std::int64_t rows = x_.dim(0), columns = x_.dim(1);
    std::vector<float> centers;
    std::vector<double> nearest(size(rows), std::numeric_limits<double>::infinity());
    RandomSequence random({options_.seed.value, stream_of("k-means++"), 0});
    auto row = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(rows)));
    for (std::int64_t k = 0;; ++k) {
      centers.insert(centers.end(), x_.row(row), x_.row(row) + columns);
      if (k + 1 == options_.clusters) return centers;
      const float* center = centers.data() + k * columns;
      ctx_.parallel_ranges(rows, chunk, [&](std::int64_t i, std::int64_t end) {
        for (; i < end; ++i) nearest[size(i)] = std::min(nearest[size(i)], squared(i, center));
      });
      double sum = 0;
      for (const double d : nearest) sum += d;
      double left = random.uniform() * sum;
      // If all rows are centres already, any other will do: the one behind.
      if (sum == 0) row = (row + 1) % rows;
      for (std::int64_t i = 0; sum > 0 && i < rows; ++i) {
        if (nearest[size(i)] == 0) continue;
        row = i;
        if ((left -= nearest[size(i)]) < 0) break;
      }
    }
  }

 private:
  static constexpr std::int64_t chunk = 64;
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

  double squared(std::int64_t i, const float* center) const {
    const float* row = x_.row(i);
    double sum = 0;
    for (std::int64_t c = 0; c < x_.dim(1); ++c) {
      const double d = static_cast<double>(row[c]) - static_cast<double>(center[c]);
      sum += d * d;
    }
    return sum;
  }

  /// Gives every row its nearest centre; returns whether any changed.
  bool assign() {
    const std::int64_t clusters = options_.clusters, columns = x_.dim(1);
    std::vector<float> half_norms;
    for (std::int64_t k = 0; k < clusters; ++k) {
      const double length = norm(result_.centers.data() + k * columns, columns);
      half_norms.push_back(static_cast<float>(length * length / 2));
    }
    const View<const float> centers{result_.centers.data(), {clusters, columns}};
    blocks_.run(x_, centers, {}, [&](std::int64_t first, View<float> products) {
      ctx_.parallel_for(products.dim(0), [&](std::int64_t r) {
        const float* product = products.row(r);
        std::int64_t best = 0;
        for (std::int64_t k = 1; k < clusters; ++k)
          if (product[k] - half_norms[size(k)] > product[best] - half_norms[size(best)]) best = k;
        moved_[size(first + r)] = result_.assignments[size(first + r)] != best;
        result_.assignments[size(first + r)] = best;
        distances_[size(first + r)] = squared(first + r, result_.centers.data() + best * columns);
      });
    });
    return std::any_of(moved_.begin(), moved_.end(), [](std::uint8_t m) { return m != 0; });
  }

  /// Moves every centre to the mean of its rows; one without rows to the row farthest from its
  /// centre, the first of equal ones, which then counts as the centre's own.
  void update() {
    const std::int64_t clusters = options_.clusters, columns = x_.dim(1);
    std::vector<std::vector<std::int64_t>> members(size(clusters));
    for (std::size_t i = 0; i < result_.assignments.size(); ++i)
      members[size(result_.assignments[i])].push_back(static_cast<std::int64_t>(i));
    for (std::int64_t k = 0; k < clusters; ++k) {
      if (!members[size(k)].empty()) continue;
      const auto farthest = std::max_element(distances_.begin(), distances_.end());
      const std::int64_t row = farthest - distances_.begin();
      auto& old = members[size(result_.assignments[size(row)])];
      old.erase(std::find(old.begin(), old.end(), row));
      members[size(k)] = {row};
      result_.assignments[size(row)] = k;
      *farthest = 0;
    }
    ctx_.parallel_for(clusters, [&](std::int64_t k) {
      const auto& own = members[size(k)];
      for (std::int64_t c = 0; c < columns && !own.empty(); ++c) {
        double sum = 0;
        for (const std::int64_t i : own) sum += static_cast<double>(x_.row(i)[c]);
        result_.centers[size(k * columns + c)] =
            static_cast<float>(sum / static_cast<double>(own.size()));
      }
    });
  }

  View<const float> x_;
  KMeansOptions options_;
  SimilarityBlocks blocks_;
  cpu::Context& ctx_;
  KMeansResult result_;
  std::vector<double> distances_;  // squared, to the own centre
  std::vector<std::uint8_t> moved_ = std::vector<std::uint8_t>(distances_.size());
};

inline void check_k_means(View<const float> x, const KMeansOptions& options) {
  if (x.shape.rank() != 2 || x.size() == 0)
    throw ShapeError(text("k_means: expected features [N, D], got ", x.shape));
  if (options.clusters < 1 || options.clusters > x.dim(0))
    throw ConfigError(text("k_means: expected 1 to ", x.dim(0), " clusters (the features), got ",
                           options.clusters));
  if (options.max_iterations < 1)
    throw ConfigError(
        text("k_means: max_iterations ", options.max_iterations, " must be positive"));
}

}  // namespace detail

/// Lloyd's k-means of x [N,D] from the given centres [K,D]. The same bits for any number of
/// threads. Memory above the result: similarities of one block of rows with all centres. Throws
/// ShapeError, ConfigError, NumericError (features that are not finite, with the row).
inline KMeansResult k_means(View<const float> x, const KMeansOptions& options,
                            View<const float> centers) {
  detail::check_k_means(x, options);
  check_shape("k_means: centers", centers.shape, {options.clusters, x.dim(1)});
  return detail::KMeans(x, options).run({centers.begin(), centers.end()});
}

/// The same from centres drawn by k-means++ (Arthur and Vassilvitskii, SODA 2007) with the seed.
inline KMeansResult k_means(View<const float> x, const KMeansOptions& options) {
  detail::check_k_means(x, options);
  detail::KMeans k_means(x, options);
  return k_means.run(k_means.draw_centers());
}

/// How much two partitions of the same items say about each other.
struct ClusteringScores {
  double mutual_information = 0;  ///< I(U; V), in nats
  double nmi = 0;                 ///< I / ((H(U) + H(V)) / 2)
  double ami = 0;                 ///< (I - E I) / ((H(U) + H(V)) / 2 - E I), E by chance
};

namespace detail {

/// Sizes of the classes of a partition, and of its common parts with another one.
struct Contingency {
  std::map<std::int64_t, std::int64_t> a, b;
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> both;
  double n = 0;
};

inline double entropy(const std::map<std::int64_t, std::int64_t>& sizes, double n) {
  double h = 0;
  for (const auto& [label, count] : sizes) {
    const double p = static_cast<double>(count) / n;
    h -= p * std::log(p);
  }
  return h;
}

/// Expectation of the mutual information over random partitions with these class sizes
/// (hypergeometric): Vinh, Epps and Bailey, "Information Theoretic Measures for Clusterings
/// Comparison", JMLR 2010, equation 24a. Equal sizes are computed once.
inline double expected_mutual_information(const Contingency& t) {
  std::map<std::int64_t, double> sizes_a, sizes_b;  // size -> how many classes have it
  for (const auto& [label, count] : t.a) ++sizes_a[count];
  for (const auto& [label, count] : t.b) ++sizes_b[count];
  const auto n = static_cast<std::int64_t>(t.n);
  std::vector<double> log_factorial(static_cast<std::size_t>(n) + 1);
  for (std::size_t i = 1; i < log_factorial.size(); ++i)
    log_factorial[i] = log_factorial[i - 1] + std::log(static_cast<double>(i));
  const auto lf = [&](std::int64_t i) { return log_factorial[static_cast<std::size_t>(i)]; };
  double sum = 0;
  for (const auto& [a, times_a] : sizes_a)
    for (const auto& [b, times_b] : sizes_b) {
      double one = 0;
      for (std::int64_t k = std::max<std::int64_t>(1, a + b - n); k <= std::min(a, b); ++k) {
        const double log_probability = lf(a) + lf(b) + lf(n - a) + lf(n - b) - lf(n) - lf(k) -
                                       lf(a - k) - lf(b - k) - lf(n - a - b + k);
        const double share = static_cast<double>(k) / t.n;
        one += share *
               std::log(share * t.n * t.n / (static_cast<double>(a) * static_cast<double>(b))) *
               std::exp(log_probability);
      }
      sum += times_a * times_b * one;
    }
  return sum;
}

}  // namespace detail

/// NMI and AMI with the arithmetic mean of the entropies, as scikit-learn's defaults. Two
/// partitions of one class each, or of one item each, agree: 1. Throws ShapeError for different or
/// no items.
inline ClusteringScores clustering_scores(std::span<const std::int64_t> labels,
                                          std::span<const std::int64_t> assignments) {
  if (labels.size() != assignments.size() || labels.empty())
    throw ShapeError(text("clustering_scores: ", labels.size(), " labels and ", assignments.size(),
                          " assignments"));
  detail::Contingency t;
  t.n = static_cast<double>(labels.size());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    ++t.a[labels[i]];
    ++t.b[assignments[i]];
    ++t.both[{labels[i], assignments[i]}];
  }
  if (t.a.size() == t.b.size() && (t.a.size() == 1 || t.a.size() == labels.size()))
    return {detail::entropy(t.a, t.n), 1, 1};
  ClusteringScores s;
  for (const auto& [pair, count] : t.both) {
    const double a = static_cast<double>(t.a[pair.first]),
                 b = static_cast<double>(t.b[pair.second]);
    const double c = static_cast<double>(count);
    s.mutual_information += c / t.n * std::log(c * t.n / (a * b));
  }
  const double mean = (detail::entropy(t.a, t.n) + detail::entropy(t.b, t.n)) / 2;
  const double chance = detail::expected_mutual_information(t);
  s.nmi = s.mutual_information / mean;
  // 0 / 0 where chance reaches the most that is possible: the smallest positive divisor instead.
  const double range = mean - chance;
  const double epsilon = std::numeric_limits<double>::epsilon();
  s.ami = (s.mutual_information - chance) /
          (range < 0 ? std::min(range, -epsilon) : std::max(range, epsilon));
  return s;
}

/// NMI and AMI of k-means clusters, as many as there are labels, with the labels: the clustering
/// metrics of pytorch-metric-learning. Features are clustered as they are; normalise them before if
/// they are compared by cosine. Throws as k_means and clustering_scores.
inline ClusteringScores evaluate_clustering(const FeatureSet& set, KMeansOptions options = {}) {
  if (set.features.shape.rank() != 2 ||
      static_cast<std::int64_t>(set.labels.size()) != set.features.dim(0))
    throw ShapeError(text("evaluate_clustering: features ", set.features.shape, ", but ",
                          set.labels.size(), " labels"));
  if (options.clusters == 0) {
    std::vector<std::int64_t> labels(set.labels.begin(), set.labels.end());
    std::sort(labels.begin(), labels.end());
    options.clusters = std::unique(labels.begin(), labels.end()) - labels.begin();
  }
  return clustering_scores(set.labels, k_means(set.features, options).assignments);
}

}  // namespace kindred::eval
