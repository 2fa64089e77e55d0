#pragma once
// Similarities of queries with a whole gallery, a block of queries at a time, and who may be
// compared with whom. Shared by the retrieval metrics and by top_k.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/core/error.hpp>
#include <kindred/core/shape.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/gemm.hpp>

namespace kindred::eval {

/// Features [N, D] with what is known of their images; what is empty is unknown.
struct FeatureSet {
  View<const float> features;
  std::span<const std::int64_t> labels{};   ///< class or identity
  std::span<const std::int64_t> cameras{};  ///< an item of the same label and camera is excluded
  std::span<const std::int64_t> ids{};      ///< of the image; the query's own image is excluded
};

/// How queries are compared with the gallery.
struct RetrievalOptions {
  std::vector<std::int64_t> recall_at{1, 2, 4, 8};
  bool normalize = true;  ///< similarity is the cosine; otherwise the dot product
  int threads = 0;        ///< 0: all that the machine offers; the results do not depend on it
  std::int64_t block_bytes = std::int64_t{128} << 20;  ///< of similarities held at a time
  std::function<void(std::int64_t done, std::int64_t queries)> progress{};
};

namespace detail {

inline constexpr float excluded = -std::numeric_limits<float>::infinity();

inline void check_set(const char* name, const FeatureSet& set) {
  if (set.features.shape.rank() != 2)
    throw ShapeError(text(name, " features: expected [N, D], got ", set.features.shape));
  if (set.features.size() == 0)
    throw ShapeError(text(name, " features are empty: ", set.features.shape));
  const auto check = [&](const char* what, std::size_t count) {
    if (count != 0 && static_cast<std::int64_t>(count) != set.features.dim(0))
      throw ShapeError(text(name, ' ', what, ": expected ", set.features.dim(0), ", got ", count));
  };
  check("labels", set.labels.size());
  check("cameras", set.cameras.size());
  check("ids", set.ids.size());
}

/// Throws ShapeError for sets that cannot be compared, ConfigError for half-known columns.
inline void check_sets(const FeatureSet& query, const FeatureSet& gallery) {
  check_set("query", query);
  check_set("gallery", gallery);
  if (query.features.dim(1) != gallery.features.dim(1))
    throw ShapeError(text("query features ", query.features.shape, " and gallery features ",
                          gallery.features.shape, " have different lengths"));
  if (query.cameras.empty() != gallery.cameras.empty() || query.ids.empty() != gallery.ids.empty())
    throw ConfigError("cameras, and ids, must be given for query and gallery or for neither");
  if (!query.cameras.empty() && (query.labels.empty() || gallery.labels.empty()))
    throw ConfigError("excluding by camera needs the labels of query and gallery");
}

/// ||x||_2 in double, which cannot overflow.
inline double norm(const float* x, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::sqrt(sum);
}

/// Returns the largest norm of a row; throws NumericError naming the first row that is not finite.
inline double check_finite(cpu::Context& ctx, const char* name, View<const float> features) {
  const std::int64_t rows = features.dim(0), columns = features.dim(1);
  std::vector<double> norms(static_cast<std::size_t>(rows));
  ctx.parallel_ranges(rows, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      norms[static_cast<std::size_t>(i)] = norm(features.row(i), columns);
  });
  for (std::size_t i = 0; i < norms.size(); ++i)
    if (!std::isfinite(norms[i]))
      throw NumericError(text("row ", i, " of the ", name, " features is not finite"));
  return *std::max_element(norms.begin(), norms.end());
}

/// y = x / max(||x||_2, 1e-12) for every row, as F.normalize; in double, so that the norm of large
/// features does not overflow.
inline void normalize_rows(cpu::Context& ctx, std::int64_t rows, std::int64_t columns,
                           const float* x, float* y) {
  ctx.parallel_ranges(rows, 64, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float* from = x + i * columns;
      const double divisor = std::max(norm(from, columns), 1e-12);
      for (std::int64_t c = 0; c < columns; ++c)
        y[i * columns + c] = static_cast<float>(static_cast<double>(from[c]) / divisor);
    }
  });
}

/// Which positions of a gallery have a value: its label, its id.
class PositionsByValue {
 public:
  explicit PositionsByValue(std::span<const std::int64_t> values)
      : values_(values.begin(), values.end()), positions_(values.size()) {
    std::iota(positions_.begin(), positions_.end(), std::int64_t{0});
    std::stable_sort(positions_.begin(), positions_.end(), [&](std::int64_t a, std::int64_t b) {
      return values[static_cast<std::size_t>(a)] < values[static_cast<std::size_t>(b)];
    });
    std::sort(values_.begin(), values_.end());
  }
  /// In ascending order.
  std::span<const std::int64_t> operator()(std::int64_t value) const {
    const auto [begin, end] = std::equal_range(values_.begin(), values_.end(), value);
    return std::span(positions_)
        .subspan(static_cast<std::size_t>(begin - values_.begin()),
                 static_cast<std::size_t>(end - begin));
  }

 private:
  std::vector<std::int64_t> values_, positions_;
};

/// Says for every query which gallery items are excluded and which of the others are relevant.
class Relations {
 public:
  Relations(const FeatureSet& query, const FeatureSet& gallery)
      : query_(query), gallery_(gallery), by_label_(gallery.labels), by_id_(gallery.ids) {}

  /// Sets the similarity of what is excluded for query q to -infinity; returns how many they are.
  std::int64_t exclude(std::int64_t q, float* similarities) const {
    const auto i = static_cast<std::size_t>(q);
    std::int64_t count = 0;
    const auto drop = [&](std::int64_t g) {
      count += similarities[g] != excluded;
      similarities[g] = excluded;
    };
    if (!query_.ids.empty())
      for (const std::int64_t g : by_id_(query_.ids[i])) drop(g);
    if (!query_.cameras.empty())
      for (const std::int64_t g : by_label_(query_.labels[i]))
        if (gallery_.cameras[static_cast<std::size_t>(g)] == query_.cameras[i]) drop(g);
    return count;
  }
  /// The relevant items among those that are left, in ascending order.
  void find_positives(std::int64_t q, const float* similarities,
                      std::vector<std::int64_t>& positives) const {
    positives.clear();
    for (const std::int64_t g : by_label_(query_.labels[static_cast<std::size_t>(q)]))
      if (similarities[g] != excluded) positives.push_back(g);
  }

 private:
  FeatureSet query_, gallery_;
  PositionsByValue by_label_, by_id_;
};

/// Computes the similarities of [first, first + rows) with the gallery, for one block after
/// another.
class SimilarityBlocks {
 public:
  SimilarityBlocks(const Shape& query, const Shape& gallery, const RetrievalOptions& options)
      : ctx_(options.threads),
        queries_(query[0]),
        gallery_(gallery[0]),
        columns_(gallery[1]),
        normalize_(options.normalize) {
    constexpr std::int64_t least = 16, most = 4096;
    const std::int64_t row_bytes = gallery_ * static_cast<std::int64_t>(sizeof(float));
    rows_ = std::min(queries_, std::clamp(options.block_bytes / row_bytes, least, most));
    full_ = plan(rows_);
    last_ = plan((queries_ - 1) % rows_ + 1);
  }

  cpu::Context& context() { return ctx_; }
  /// Bytes of scratch: the normalised gallery and one block.
  std::size_t bytes() const {
    const std::int64_t copy = normalize_ ? gallery_ * columns_ : 0;
    return static_cast<std::size_t>(copy) * sizeof(float) + std::max(full_.bytes(), last_.bytes());
  }

  /// Calls f(first, similarities [rows, G]) for every block of queries, in order. Throws
  /// NumericError for features that are not finite or whose similarities overflow.
  template <class F>
  void run(View<const float> query, View<const float> gallery,
           const std::function<void(std::int64_t, std::int64_t)>& progress, F&& f) {
    const double largest =
        check_finite(ctx_, "query", query) * check_finite(ctx_, "gallery", gallery);
    // No partial sum of a dot product exceeds the product of the norms (Cauchy-Schwarz).
    if (!normalize_ && largest > 0.5 * static_cast<double>(std::numeric_limits<float>::max()))
      throw NumericError("the similarities overflow; set normalize = true or scale the features");
    std::vector<float> normalized;
    if (normalize_) {
      normalized.resize(static_cast<std::size_t>(gallery.size()));
      normalize_rows(ctx_, gallery_, columns_, gallery.data, normalized.data());
      gallery.data = normalized.data();
    }
    for (std::int64_t first = 0; first < queries_; first += rows_) {
      const std::int64_t rows = std::min(rows_, queries_ - first);
      ctx_.arena().begin_replay(rows == rows_ ? full_ : last_);
      pass({query.row(first), {rows, columns_}}, gallery,
           [&](View<float> similarities) { f(first, similarities); });
      if (progress) progress(first + rows, queries_);
    }
  }

 private:
  Plan plan(std::int64_t rows) {
    ctx_.arena().begin_recording();
    pass({nullptr, {rows, columns_}}, {nullptr, {gallery_, columns_}}, [](View<float>) {});
    return ctx_.arena().end_recording();
  }
  template <class F>
  void pass(View<const float> query, View<const float> gallery, F&& f) {
    const std::int64_t rows = query.dim(0);
    Tensor<float> normalized;
    if (normalize_) {
      normalized = ctx_.make<float>({rows, columns_}, "normalised queries");
      normalize_rows(ctx_, rows, columns_, query.data, normalized.data);
      query.data = normalized.data;
    }
    auto similarities = ctx_.make<float>({rows, gallery_}, "similarities");
    kernels::gemm<cpu::Context, float>(ctx_, Transpose::no, Transpose::yes, query, gallery,
                                       similarities);
    f(similarities);
  }

  cpu::Context ctx_;
  std::int64_t queries_, gallery_, columns_;
  bool normalize_;
  std::int64_t rows_ = 0;
  Plan full_, last_;
};

}  // namespace detail

/// Bytes that evaluate_retrieval and top_k take above their arguments and results, for features of
/// these shapes.
inline std::size_t retrieval_scratch_bytes(const Shape& query, const Shape& gallery,
                                           const RetrievalOptions& options = {}) {
  const auto lists = static_cast<std::size_t>(gallery[0]) * 4 * sizeof(std::int64_t) +
                     static_cast<std::size_t>(std::max(query[0], gallery[0])) * sizeof(double);
  return detail::SimilarityBlocks(query, gallery, options).bytes() + lists;
}

}  // namespace kindred::eval
