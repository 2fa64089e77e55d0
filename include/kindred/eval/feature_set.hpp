#pragma once
// What queries and gallery are, on every device, and what a search for the nearest gives.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/shape.hpp>

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
  std::vector<std::int64_t> precision_at{};
  bool normalize = true;  ///< similarity is the cosine; otherwise the dot product
  int threads = 0;        ///< 0: all that the machine offers; the results do not depend on it
  std::int64_t block_bytes = std::int64_t{128} << 20;  ///< of similarities held at a time
  std::function<void(std::int64_t done, std::int64_t queries)> progress{};
};

/// The first k of the ranking of every query.
struct TopK {
  std::int64_t k = 0;
  std::vector<std::int64_t> indices;  ///< [Q, k], into the gallery; -1 where fewer are left
  std::vector<float> scores;          ///< [Q, k], similarities; -infinity with index -1
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

inline void check_k(std::int64_t k, std::int64_t items) {
  if (k < 1 || k > items)
    throw ConfigError(text("top_k: expected k from 1 to ", items, " (the gallery), got ", k));
}

}  // namespace detail
}  // namespace kindred::eval
