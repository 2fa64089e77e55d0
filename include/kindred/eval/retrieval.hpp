#pragma once
// How well features find images of the same label: recall, mAP, R-Precision, MAP@R, mINP over the
// full ranking of the gallery, and the first k of that ranking.
//
// Ranking: similarity descending; of equal similarities the lower gallery index comes first.
// A gallery item is excluded for a query, as if it did not exist, if it is the query's own image
// (the same id; never guessed from rank or value) or has the query's label and camera.
// Two deliberate differences from PaddleClas, whose definitions these are otherwise: it gives
// excluded items the similarity 0, so that they keep a rank and push others down; and its mINP
// divides by the last rank counted from 0, which is infinite for a single hit in the first place.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/eval/nearest.hpp>
#include <kindred/eval/retrieval_result.hpp>
#include <kindred/eval/similarity.hpp>
#include <kindred/kernels/cpu/simd.hpp>

namespace kindred::eval {

namespace detail {

/// Number of s[i] > threshold, or >= threshold.
template <bool or_equal>
std::int64_t count_above(const float* s, std::int64_t n, float threshold) {
  using Vector = cpu::Vector<float>;
  constexpr std::int64_t width = cpu::vector_size<float>, lanes = 4;
  const auto above = [=](const auto& value, const auto& limit) {
    if constexpr (or_equal)
      return value >= limit;
    else
      return value > limit;
  };
  const Vector limit(threshold), one(1.f), zero(0.f);
  std::int64_t count = 0, i = 0;
  while (n - i >= lanes * width) {
    // A float counts exactly to 2^24; lanes are emptied long before.
    const std::int64_t end =
        i + std::min((n - i) / (lanes * width), std::int64_t{1} << 16) * lanes * width;
    std::array<Vector, lanes> sums{zero, zero, zero, zero};
    for (; i < end; i += lanes * width)
      for (std::int64_t v = 0; v < lanes; ++v) {
        const auto hit = above(Vector::load_unaligned(s + i + v * width), limit);
        sums[static_cast<std::size_t>(v)] += xsimd::select(hit, one, zero);
      }
    for (const Vector& sum : sums) {
      alignas(64) float parts[width];
      sum.store_unaligned(parts);
      for (const float part : parts) count += static_cast<std::int64_t>(part);
    }
  }
  for (; i < n; ++i) count += above(s[i], threshold);
  return count;
}

/// Whether a stands before b in the ranking by s.
inline bool before(const float* s, std::int64_t a, std::int64_t b) {
  return s[a] > s[b] || (s[a] == s[b] && a < b);
}

/// Ranks (from 1, ascending) of the items `positives` among s[0, n): one pass over s for each.
inline void rank_by_counting(const float* s, std::int64_t n,
                             const std::vector<std::int64_t>& positives,
                             std::vector<std::int64_t>& ranks) {
  ranks.clear();
  for (const std::int64_t p : positives)
    ranks.push_back(1 + count_above<true>(s, p, s[p]) +
                    count_above<false>(s + p + 1, n - p - 1, s[p]));
  std::sort(ranks.begin(), ranks.end());
}

/// The same for many positives: every item is counted for the best positive it stands before.
/// Reorders `positives`.
inline void rank_by_binning(const float* s, std::int64_t n, std::vector<std::int64_t>& positives,
                            std::vector<std::int64_t>& ranks) {
  const auto in_order = [s](std::int64_t a, std::int64_t b) { return before(s, a, b); };
  std::sort(positives.begin(), positives.end(), in_order);
  ranks.assign(positives.size(), 0);
  for (std::int64_t g = 0; g < n; ++g) {
    const auto next = std::upper_bound(positives.begin(), positives.end(), g, in_order);
    if (next != positives.end()) ++ranks[static_cast<std::size_t>(next - positives.begin())];
  }
  std::int64_t standing_before = 0;
  for (std::int64_t& rank : ranks) rank = 1 + (standing_before += rank);
}

/// Where binning overtakes counting (measured for 60,502 items, AVX-512).
inline constexpr std::size_t most_positives_to_count = 1024;

/// evaluate_retrieval with the similarities [G] of query q as adjust(q, similarities, thread)
/// leaves them.
template <class Adjust>
RetrievalResult evaluate_adjusted(const FeatureSet& query, const FeatureSet& gallery,
                                  const RetrievalOptions& options, Adjust&& adjust) {
  check_metrics(query, gallery, options);
  struct Lists {
    std::vector<std::int64_t> positives, ranks;
  };
  const Relations relations(query, gallery);
  SimilarityBlocks blocks(query.features.shape, gallery.features.shape, options);
  const std::int64_t queries = query.features.dim(0), items = gallery.features.dim(0);
  std::vector<Lists> lists(static_cast<std::size_t>(blocks.context().threads()));
  std::vector<std::int64_t> compared(static_cast<std::size_t>(queries));
  RetrievalResult result = empty_result(queries, options);

  const auto evaluate = [&](std::int64_t q, float* similarities, Lists& own) {
    compared[static_cast<std::size_t>(q)] = items - relations.exclude(q, similarities);
    relations.find_positives(q, similarities, own.positives);
    if (own.positives.size() <= most_positives_to_count)
      rank_by_counting(similarities, items, own.positives, own.ranks);
    else
      rank_by_binning(similarities, items, own.positives, own.ranks);
    note_query(result, q, own.ranks);
  };
  blocks.run(
      query.features, gallery.features, options.progress,
      [&](std::int64_t first, View<float> similarities) {
        blocks.context().parallel_for(similarities.dim(0), [&](std::int64_t row, int thread) {
          adjust(first + row, similarities.row(row), thread);
          evaluate(first + row, similarities.row(row), lists[static_cast<std::size_t>(thread)]);
        });
      });
  for (const std::int64_t count : compared) result.pairs += count;
  summarize(result);
  return result;
}

/// top_k with similarities as in evaluate_adjusted.
template <class Adjust>
TopK top_k_adjusted(const FeatureSet& query, const FeatureSet& gallery, std::int64_t k,
                    const RetrievalOptions& options, Adjust&& adjust) {
  check_sets(query, gallery);
  const std::int64_t queries = query.features.dim(0), items = gallery.features.dim(0);
  check_k(k, items);
  const Relations relations(query, gallery);
  SimilarityBlocks blocks(query.features.shape, gallery.features.shape, options);
  TopK result{k, {}, {}};
  result.indices.resize(static_cast<std::size_t>(queries * k));
  result.scores.resize(static_cast<std::size_t>(queries * k));
  std::vector<NearestList> lists(static_cast<std::size_t>(blocks.context().threads()),
                                 NearestList(k));
  blocks.run(query.features, gallery.features, options.progress,
             [&](std::int64_t first, View<float> similarities) {
               blocks.context().parallel_for(
                   similarities.dim(0), [&](std::int64_t row, int thread) {
                     const std::int64_t q = first + row;
                     adjust(q, similarities.row(row), thread);
                     relations.exclude(q, similarities.row(row));
                     NearestList& list = lists[static_cast<std::size_t>(thread)];
                     list.clear();
                     list.offer(similarities.row(row), items, 0);
                     list.write(result.indices.data() + q * k, result.scores.data() + q * k);
                   });
             });
  return result;
}

inline constexpr auto as_they_are = [](std::int64_t, float*, int) {};

}  // namespace detail

/// Ranks the whole gallery for every query and averages the metrics above. Memory does not grow
/// with Q x G (see retrieval_scratch_bytes); the result does not depend on the number of threads.
/// Throws ShapeError (shapes, missing labels), ConfigError (ranks below 1, cameras or ids of one
/// side only), NumericError (features that are not finite, with the row), DataError (no query has a
/// relevant item).
inline RetrievalResult evaluate_retrieval(const FeatureSet& query, const FeatureSet& gallery,
                                          const RetrievalOptions& options = {}) {
  return detail::evaluate_adjusted(query, gallery, options, detail::as_they_are);
}

}  // namespace kindred::eval
