#pragma once
// Search and retrieval metrics on packed binary codes.
//
// Hamming distances are small integers, so most of a ranking is ties, and a metric that follows one
// order of them measures that order. The metrics here are expectations over all orders of equal
// distances (McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently
// in the Presence of Tied Scores", ECIR 2008); the search returns the lower index first.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iomanip>
#include <limits>
#include <ostream>
#include <span>
#include <sstream>
#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/eval/binary_codes.hpp>
#include <kindred/eval/similarity.hpp>

namespace kindred::eval {

/// Packed codes [N, bytes] with what is known of their images, as FeatureSet.
struct CodeSet {
  View<const std::uint8_t> codes;
  std::span<const std::int64_t> labels{};
  std::span<const std::int64_t> cameras{};
  std::span<const std::int64_t> ids{};
};

/// The k nearest codes of every query, by distance and then by index.
struct HammingTopK {
  std::int64_t k = 0;
  std::vector<std::int64_t> indices;    ///< [Q, k], into the gallery; -1 where fewer are left
  std::vector<std::int64_t> distances;  ///< [Q, k]; -1 with index -1
};

struct HammingOptions {
  std::vector<std::int64_t> recall_at{1, 2, 4, 8};
  std::vector<std::int64_t> precision_at{};
  std::int64_t radius = 2;
  int threads = 0;  ///< 0: all that the machine offers; the results do not depend on it
  std::function<void(std::int64_t done, std::int64_t queries)> progress{};
};

/// Means over the queries that have relevant items.
struct HammingResult {
  std::vector<std::int64_t> recall_at, precision_at;
  std::vector<double> recall;     ///< expected share of queries with a hit in the first k
  std::vector<double> precision;  ///< expected hits in the first k, divided by k
  double mAP = 0;                 ///< expected average precision of the whole ranking
  std::int64_t radius = 0;
  double precision_in_radius = 0;  ///< hits / items with distance <= radius; no items: 0
  double recall_in_radius = 0;     ///< hits with distance <= radius / R
  /// The same for every radius from 0 to the number of bits: the precision-recall curve.
  std::vector<double> precision_curve, recall_curve;
  std::int64_t queries = 0, queries_without_positives = 0;
  std::int64_t empty_balls = 0;            ///< queries with positives but no item in the radius
  std::vector<double> average_precisions;  ///< [Q]; 0 without positives

  friend std::ostream& operator<<(std::ostream& out, const HammingResult& r) {
    std::ostringstream line;
    line << std::fixed << std::setprecision(5);
    for (std::size_t i = 0; i < r.recall.size(); ++i)
      line << "recall@" << r.recall_at[i] << ' ' << r.recall[i] << ", ";
    for (std::size_t i = 0; i < r.precision.size(); ++i)
      line << "precision@" << r.precision_at[i] << ' ' << r.precision[i] << ", ";
    line << "mAP " << r.mAP << ", in radius " << r.radius << ": precision " << r.precision_in_radius
         << ", recall " << r.recall_in_radius << " (" << r.queries << " queries, "
         << r.queries_without_positives << " without positives, " << r.empty_balls
         << " with nothing in the radius)";
    return out << line.str();
  }
};

namespace detail {

/// The checks of FeatureSet, on codes.
inline void check_codes(const char* name, const CodeSet& set) {
  if (set.codes.shape.rank() != 2 || set.codes.size() == 0)
    throw ShapeError(text(name, " codes: expected [N, bytes], got ", set.codes.shape));
  if (set.codes.dim(1) > most_code_bytes)
    throw ShapeError(
        text(name, " codes have ", set.codes.dim(1), " bytes; at most ", most_code_bytes));
}

/// What Relations reads of a set of codes.
inline FeatureSet relations_of(const CodeSet& set) {
  return {.features = {nullptr, {set.codes.dim(0), set.codes.dim(1)}},
          .labels = set.labels,
          .cameras = set.cameras,
          .ids = set.ids};
}

inline Relations relations_between(const CodeSet& query, const CodeSet& gallery) {
  check_codes("query", query);
  check_codes("gallery", gallery);
  if (query.codes.dim(1) != gallery.codes.dim(1))
    throw ShapeError(text("query codes ", query.codes.shape, " and gallery codes ",
                          gallery.codes.shape, " have different lengths"));
  check_sets(relations_of(query), relations_of(gallery));
  return {relations_of(query), relations_of(gallery)};
}

/// A distance and an index in one number: the order of the ranking.
using RankKey = std::uint64_t;
inline constexpr int index_bits = 48;
inline constexpr std::uint16_t excluded_distance = 0xFFFF;

/// The first k of a ranking, from distances that come in ascending order of index.
class NearestCodes {
 public:
  explicit NearestCodes(std::int64_t k) : k_(static_cast<std::size_t>(k)) {}

  void clear() {
    heap_.clear();
    worst_ = excluded_distance;
  }
  /// Distances of the items first, first + 1, ...
  void offer(const std::uint16_t* distances, std::int64_t n, std::int64_t first) {
    constexpr std::int64_t group = 64;
    std::int64_t i = 0;
    for (; i + group <= n; i += group) {
      std::uint16_t least = excluded_distance;
      for (std::int64_t j = i; j < i + group; ++j) least = std::min(least, distances[j]);
      if (least < worst_)
        for (std::int64_t j = i; j < i + group; ++j) offer(distances[j], first + j);
    }
    for (; i < n; ++i) offer(distances[i], first + i);
  }
  const std::vector<RankKey>& keys() const { return heap_; }

 private:
  void offer(std::uint16_t distance, std::int64_t index) {
    if (distance >= worst_) return;  // a later item of equal distance stands behind
    if (heap_.size() == k_) {
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    heap_.push_back(RankKey{distance} << index_bits | static_cast<RankKey>(index));
    std::push_heap(heap_.begin(), heap_.end());
    if (heap_.size() == k_) worst_ = static_cast<std::uint16_t>(heap_.front() >> index_bits);
  }

  std::size_t k_;
  std::vector<RankKey> heap_;
  std::uint16_t worst_ = excluded_distance;
};

/// How a search is cut into pieces of work: a few queries against a segment of the gallery, whose
/// codes pass through the core's cache once for all of them. By shapes alone.
struct HammingTiles {
  static constexpr std::int64_t queries = 8, block = 4096, segment = std::int64_t{1} << 18;
  std::int64_t segments, group;  // of the gallery; queries whose partial results are held at a time

  HammingTiles(std::int64_t items, std::int64_t k) : segments((items + segment - 1) / segment) {
    constexpr std::int64_t most_keys = std::int64_t{1} << 22;
    group = std::clamp<std::int64_t>(most_keys / (segments * k) / queries * queries, queries, 1024);
  }
};

/// The nearest of one segment for a few queries.
inline void search_segment(const CodeSet& query, const CodeSet& gallery, const Relations& relations,
                           std::int64_t first_query, std::int64_t queries, std::int64_t begin,
                           std::int64_t end, NearestCodes* nearest) {
  std::array<std::uint16_t, HammingTiles::block> distances;
  const std::int64_t bytes = gallery.codes.dim(1);
  for (std::int64_t i = 0; i < queries; ++i) nearest[i].clear();
  for (std::int64_t b = begin; b < end; b += HammingTiles::block) {
    const std::int64_t n = std::min(HammingTiles::block, end - b);
    for (std::int64_t i = 0; i < queries; ++i) {
      hamming_distances(query.codes.row(first_query + i), gallery.codes.row(b), bytes, n,
                        distances.data());
      relations.for_each_excluded(first_query + i, [&](std::int64_t g) {
        if (g >= b && g < b + n) distances[static_cast<std::size_t>(g - b)] = excluded_distance;
      });
      nearest[i].offer(distances.data(), n, b);
    }
  }
}

}  // namespace detail

/// The k codes of the gallery nearest to each query by Hamming distance, of equal ones the lower
/// index first; excluded are those of top_k. An exact scan of all codes. Memory above arguments and
/// results: at most 32 MiB for each query tile's partial results and one block of distances for
/// each thread. Throws ShapeError (shapes, codes of different lengths), ConfigError unless
/// 1 <= k <= G.
inline HammingTopK hamming_top_k(const CodeSet& query, const CodeSet& gallery, std::int64_t k,
                                 int threads = 0) {
  using detail::HammingTiles, detail::RankKey;
  const detail::Relations relations = detail::relations_between(query, gallery);
  const std::int64_t queries = query.codes.dim(0), items = gallery.codes.dim(0);
  if (k < 1 || k > items)
    throw ConfigError(
        text("hamming_top_k: expected k from 1 to ", items, " (the gallery), got ", k));
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  cpu::Context ctx(threads);
  const HammingTiles tiles(items, k);
  HammingTopK result{k, {}, {}};
  result.indices.assign(size(queries * k), -1);
  result.distances.assign(size(queries * k), -1);
  std::vector<detail::NearestCodes> nearest(size(ctx.threads() * HammingTiles::queries),
                                            detail::NearestCodes(k));
  std::vector<std::vector<RankKey>> parts(size(std::min(tiles.group, queries) * tiles.segments));
  for (std::int64_t first = 0; first < queries; first += tiles.group) {
    const std::int64_t rows = std::min(tiles.group, queries - first);
    const std::int64_t query_tiles = (rows + HammingTiles::queries - 1) / HammingTiles::queries;
    ctx.parallel_for(query_tiles * tiles.segments, [&](std::int64_t chunk, int thread) {
      const std::int64_t q = chunk / tiles.segments * HammingTiles::queries;
      const std::int64_t s = chunk % tiles.segments, begin = s * HammingTiles::segment;
      const std::int64_t count = std::min(HammingTiles::queries, rows - q);
      detail::NearestCodes* own = nearest.data() + thread * HammingTiles::queries;
      detail::search_segment(query, gallery, relations, first + q, count, begin,
                             std::min(items, begin + HammingTiles::segment), own);
      for (std::int64_t i = 0; i < count; ++i)
        parts[size((q + i) * tiles.segments + s)] = own[i].keys();
    });
    ctx.parallel_for(rows, [&](std::int64_t i) {
      std::vector<RankKey>& all = parts[size(i * tiles.segments)];
      for (std::int64_t s = 1; s < tiles.segments; ++s) {
        const auto& more = parts[size(i * tiles.segments + s)];
        all.insert(all.end(), more.begin(), more.end());
      }
      std::sort(all.begin(), all.end());
      for (std::size_t j = 0; j < std::min(size(k), all.size()); ++j) {
        result.indices[size((first + i) * k) + j] =
            static_cast<std::int64_t>(all[j] & ((RankKey{1} << detail::index_bits) - 1));
        result.distances[size((first + i) * k) + j] =
            static_cast<std::int64_t>(all[j] >> detail::index_bits);
      }
    });
  }
  return result;
}

namespace detail {

/// For every distance of one query, how many items and how many relevant ones have it.
struct DistanceCounts {
  std::vector<std::int64_t> items, hits;
};

/// H(n) = 1 + 1/2 + ... + 1/n for n = 0 to `most`.
inline std::vector<double> harmonic_numbers(std::int64_t most) {
  std::vector<double> h(static_cast<std::size_t>(most) + 1);
  for (std::size_t n = 1; n < h.size(); ++n) h[n] = h[n - 1] + 1 / static_cast<double>(n);
  return h;
}

/// Calls f(items, hits, items before, hits before) for every distance that occurs, in order.
template <class F>
void for_each_tie(const DistanceCounts& counts, F&& f) {
  std::int64_t before = 0, hits_before = 0;
  for (std::size_t d = 0; d < counts.items.size(); ++d) {
    if (counts.items[d] == 0) continue;
    f(counts.items[d], counts.hits[d], before, hits_before);
    before += counts.items[d];
    hits_before += counts.hits[d];
  }
}

/// With n items of a distance, r of them relevant, behind N items with P hits, the item at place i
/// of them is relevant with probability r / n and then has P + 1 + (i - 1) (r - 1) / (n - 1)
/// expected hits up to itself; the sum of that / (N + i) over i in closed form.
inline double expected_average_precision(const DistanceCounts& counts, std::int64_t positives,
                                         const std::vector<double>& harmonic) {
  double sum = 0;
  for_each_tie(counts, [&](std::int64_t items, std::int64_t hits, std::int64_t before,
                           std::int64_t hits_before) {
    if (hits == 0) return;
    const double n = static_cast<double>(items), r = static_cast<double>(hits);
    const double slope = items > 1 ? (r - 1) / (n - 1) : 0;
    const double inverse = harmonic[static_cast<std::size_t>(before + items)] -
                           harmonic[static_cast<std::size_t>(before)];  // sum of 1 / (N + i)
    sum += r / n *
           ((static_cast<double>(hits_before) + 1) * inverse +
            slope * (n - (static_cast<double>(before) + 1) * inverse));
  });
  return sum / static_cast<double>(positives);
}

/// Expected hits among the first k.
inline double expected_hits(const DistanceCounts& counts, std::int64_t k) {
  double sum = 0;
  for_each_tie(
      counts, [&](std::int64_t items, std::int64_t hits, std::int64_t before, std::int64_t) {
        const std::int64_t taken = std::clamp<std::int64_t>(k - before, 0, items);
        sum += static_cast<double>(hits) * static_cast<double>(taken) / static_cast<double>(items);
      });
  return sum;
}

/// Probability of a hit among the first k: 1 minus that of drawing none without replacement.
inline double hit_probability(const DistanceCounts& counts, std::int64_t k) {
  double none = 1;
  for_each_tie(counts,
               [&](std::int64_t items, std::int64_t hits, std::int64_t before, std::int64_t) {
                 const std::int64_t taken = std::clamp<std::int64_t>(k - before, 0, items);
                 if (hits == 0 || taken == 0) return;
                 if (taken > items - hits) none = 0;
                 for (std::int64_t i = 0; i < taken && none > 0; ++i)
                   none *= static_cast<double>(items - hits - i) / static_cast<double>(items - i);
               });
  return 1 - none;
}

/// Counts the distances of query q; `distances` [G] is scratch.
inline void count_distances(const CodeSet& query, const CodeSet& gallery,
                            const Relations& relations, std::int64_t q,
                            std::vector<std::uint16_t>& distances, DistanceCounts& counts) {
  const std::int64_t items = gallery.codes.dim(0), bytes = gallery.codes.dim(1);
  counts.items.assign(static_cast<std::size_t>(8 * bytes + 1), 0);
  counts.hits = counts.items;
  hamming_distances(query.codes.row(q), gallery.codes.data, bytes, items, distances.data());
  for (const std::uint16_t d : distances) ++counts.items[d];
  relations.for_each_excluded(q, [&](std::int64_t g) {
    std::uint16_t& d = distances[static_cast<std::size_t>(g)];
    if (d != excluded_distance) --counts.items[d];
    d = excluded_distance;
  });
  for (const std::int64_t g : relations.same_label(q)) {
    const std::uint16_t d = distances[static_cast<std::size_t>(g)];
    if (d != excluded_distance) ++counts.hits[d];
  }
}

/// Adds one query, in order of the queries.
inline void add_query(HammingResult& result, const DistanceCounts& counts,
                      const std::vector<double>& harmonic) {
  ++result.queries;
  std::int64_t positives = 0;
  for (const std::int64_t hits : counts.hits) positives += hits;
  if (positives == 0) {
    ++result.queries_without_positives;
    result.average_precisions.push_back(0);
    return;
  }
  const double ap = expected_average_precision(counts, positives, harmonic);
  result.average_precisions.push_back(ap);
  result.mAP += ap;
  for (std::size_t i = 0; i < result.recall.size(); ++i)
    result.recall[i] += hit_probability(counts, result.recall_at[i]);
  for (std::size_t i = 0; i < result.precision.size(); ++i)
    result.precision[i] +=
        expected_hits(counts, result.precision_at[i]) / static_cast<double>(result.precision_at[i]);
  std::int64_t within = 0, hits = 0;
  for (std::size_t d = 0; d < counts.items.size(); ++d) {
    within += counts.items[d];
    hits += counts.hits[d];
    if (within > 0) result.precision_curve[d] += static_cast<double>(hits) / double(within);
    result.recall_curve[d] += static_cast<double>(hits) / static_cast<double>(positives);
    if (static_cast<std::int64_t>(d) == result.radius) result.empty_balls += within == 0;
  }
}

}  // namespace detail

/// Tie-aware retrieval metrics of packed codes; exclusions as in evaluate_retrieval. Throws
/// ShapeError (shapes, missing labels), ConfigError (ranks below 1, a radius outside [0, bits],
/// cameras or ids of one side only), DataError (no query has a relevant item).
inline HammingResult evaluate_hamming(const CodeSet& query, const CodeSet& gallery,
                                      const HammingOptions& options = {}) {
  const detail::Relations relations = detail::relations_between(query, gallery);
  if (query.labels.empty() || gallery.labels.empty())
    throw ShapeError("Hamming metrics need the labels of query and gallery");
  const std::int64_t queries = query.codes.dim(0), items = gallery.codes.dim(0);
  const std::int64_t bits = 8 * gallery.codes.dim(1);
  for (const auto* ranks : {&options.recall_at, &options.precision_at})
    for (const std::int64_t k : *ranks)
      if (k < 1) throw ConfigError(text("Hamming metrics: expected ranks from 1, got ", k));
  if (options.radius < 0 || options.radius > bits)
    throw ConfigError(text("Hamming metrics: expected a radius from 0 to ", bits, " (the bits), ",
                           "got ", options.radius));
  HammingResult result;
  result.recall_at = options.recall_at;
  result.precision_at = options.precision_at;
  result.radius = options.radius;
  result.recall.assign(options.recall_at.size(), 0);
  result.precision.assign(options.precision_at.size(), 0);
  result.precision_curve.assign(static_cast<std::size_t>(bits) + 1, 0);
  result.recall_curve = result.precision_curve;

  constexpr std::int64_t block = 256;  // queries counted in parallel, added up in order
  cpu::Context ctx(options.threads);
  const std::vector<double> harmonic = detail::harmonic_numbers(items);
  std::vector<detail::DistanceCounts> counts(static_cast<std::size_t>(std::min(block, queries)));
  std::vector<std::vector<std::uint16_t>> distances(
      static_cast<std::size_t>(ctx.threads()),
      std::vector<std::uint16_t>(static_cast<std::size_t>(items)));
  for (std::int64_t first = 0; first < queries; first += block) {
    const std::int64_t rows = std::min(block, queries - first);
    ctx.parallel_for(rows, [&](std::int64_t i, int thread) {
      detail::count_distances(query, gallery, relations, first + i,
                              distances[static_cast<std::size_t>(thread)],
                              counts[static_cast<std::size_t>(i)]);
    });
    for (std::int64_t i = 0; i < rows; ++i)
      detail::add_query(result, counts[static_cast<std::size_t>(i)], harmonic);
    if (options.progress) options.progress(first + rows, queries);
  }
  const auto counted = static_cast<double>(result.queries - result.queries_without_positives);
  if (counted == 0)
    throw DataError("no query has a relevant gallery item; do query and gallery share labels?");
  result.mAP /= counted;
  for (auto* means :
       {&result.recall, &result.precision, &result.precision_curve, &result.recall_curve})
    for (double& mean : *means) mean /= counted;
  result.precision_in_radius = result.precision_curve[static_cast<std::size_t>(options.radius)];
  result.recall_in_radius = result.recall_curve[static_cast<std::size_t>(options.radius)];
  return result;
}

}  // namespace kindred::eval
