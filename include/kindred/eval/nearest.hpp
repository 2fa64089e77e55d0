#pragma once
// The first k of the ranking of the gallery for every query: similarity descending; of equal
// similarities the lower gallery index comes first; excluded items are left out.
//
// The selection reads every similarity while it is in L1: a tile of the product, some rows of a
// panel of queries by a strip of the gallery, goes at once to the lists of its queries. A strip of
// the packed gallery stays in L2 for all panels of a chunk of queries.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/eval/similarity.hpp>
#include <kindred/kernels/cpu/simd.hpp>

namespace kindred::eval {
namespace detail {

/// An item of the gallery and its similarity to a query.
struct Neighbor {
  float score;
  std::int64_t index;
  /// Whether it stands before another one in the ranking.
  bool operator<(const Neighbor& other) const {
    return score > other.score || (score == other.score && index < other.index);
  }
};

/// The k best of the items that are offered in ascending order of their indices. Those that may
/// be among them are collected; when twice as many and more are there, the k best are kept, which
/// costs less than a heap.
class NearestList {
 public:
  explicit NearestList(std::int64_t k)
      : k_(static_cast<std::size_t>(k)), list_(2 * k_ + spare + static_cast<std::size_t>(group)) {}

  void clear() {
    count_ = 0;
    worst_ = excluded;
  }
  /// s[i] is the similarity of item first + i; -infinity never enters.
  void offer(const float* s, std::int64_t n, std::int64_t first) {
    std::int64_t i = 0;
    for (; i + group <= n; i += group) {
      Vector v[vectors];
      for (std::int64_t j = 0; j < vectors; ++j) v[j] = Vector::load_unaligned(s + i + j * width);
      const Vector best = xsimd::max(xsimd::max(v[0], v[1]), xsimd::max(v[2], v[3]));
      if (!xsimd::any(best > Vector(worst_))) continue;
      for (std::int64_t j = i; j < i + group; j += width)
        if (xsimd::any(Vector::load_unaligned(s + j) > Vector(worst_)))
          append(s + j, width, first + j);
      if (count_ >= 2 * k_ + spare) keep_best();
    }
    append(s + i, n - i, first + i);
    if (count_ >= 2 * k_ + spare) keep_best();
  }
  /// Sorts what was found; -1 and -infinity fill the rest.
  void write(std::int64_t* indices, float* scores) {
    if (count_ > k_) keep_best();
    std::sort(list_.begin(), end());
    for (std::size_t i = 0; i < k_; ++i) {
      indices[i] = i < count_ ? list_[i].index : -1;
      scores[i] = i < count_ ? list_[i].score : excluded;
    }
  }

 private:
  using Vector = cpu::Vector<float>;
  static constexpr std::int64_t width = cpu::vector_size<float>, vectors = 4,
                                group = vectors * width;
  static constexpr std::size_t spare = 64;

  std::vector<Neighbor>::iterator end() {
    return list_.begin() + static_cast<std::ptrdiff_t>(count_);
  }
  /// Without a branch, which would be mispredicted at every hit. A later item of a similarity that
  /// is equal to the worst stands behind it.
  void append(const float* s, std::int64_t n, std::int64_t first) {
    Neighbor* list = list_.data();
    std::size_t count = count_;
    for (std::int64_t i = 0; i < n; ++i) {
      list[count] = {s[i], first + i};
      count += s[i] > worst_;
    }
    count_ = count;
  }
  void keep_best() {
    const auto last = list_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
    std::nth_element(list_.begin(), last, end());
    count_ = k_;
    worst_ = last->score;
  }

  std::size_t k_, count_ = 0;
  float worst_ = excluded;
  std::vector<Neighbor> list_;  ///< the first count_ of them
};

/// A query: its list, and what must not enter it, in ascending order.
struct NearestOfQuery {
  NearestList list;
  std::vector<std::int64_t> excluded_items{};
  std::size_t next = 0;  ///< of the excluded items that are still to come

  explicit NearestOfQuery(std::int64_t k) : list(k) {}

  void begin(std::int64_t q, const Relations& relations) {
    list.clear();
    next = 0;
    excluded_items.clear();
    relations.for_each_excluded(q, [&](std::int64_t g) { excluded_items.push_back(g); });
    std::sort(excluded_items.begin(), excluded_items.end());
  }
  void offer(float* s, std::int64_t n, std::int64_t first) {
    for (; next < excluded_items.size() && excluded_items[next] < first + n; ++next)
      if (excluded_items[next] >= first) s[excluded_items[next] - first] = excluded;
    list.offer(s, n, first);
  }
};

/// How queries x gallery are cut into chunks for the threads; by the shape alone.
struct NearestCut {
  std::int64_t rows;   ///< queries of a chunk
  std::int64_t strip;  ///< items of the gallery whose packed columns stay in L2
  std::int64_t range;  ///< items of a chunk: all of them, unless there are few queries
  std::int64_t ranges;

  NearestCut(std::int64_t queries, std::int64_t items, std::int64_t columns, std::int64_t k) {
    using Tile = cpu::GemmTile<float>;
    constexpr std::int64_t cached = 1 << 17, listed = 1 << 18, most_panels = 64, chunks = 16;
    strip = std::clamp<std::int64_t>(cached / columns / Tile::columns, 1, 16) * Tile::columns;
    // The more rows, the less often the gallery comes from memory; but their lists lie in cache.
    const std::int64_t most =
        std::clamp<std::int64_t>(listed / k / Tile::rows, 1, most_panels) * Tile::rows;
    rows = cpu::round_up(cpu::divide_up(queries, cpu::divide_up(queries, most)), Tile::rows);
    const std::int64_t wanted = cpu::divide_up(chunks, cpu::divide_up(queries, rows));
    range = cpu::round_up(std::max(cpu::divide_up(items, wanted), 4 * k), strip);
    ranges = cpu::divide_up(items, range);
  }
};

/// The search of top_k.
class NearestSearch {
 public:
  NearestSearch(const FeatureSet& query, const FeatureSet& gallery, std::int64_t k,
                const RetrievalOptions& options)
      : ctx_(options.threads),
        query_(query.features),
        items_(gallery.features.dim(0)),
        k_(k),
        normalize_(options.normalize),
        relations_(query, gallery),
        cut_(query_.dim(0), items_, query_.dim(1), k),
        gallery_(gallery.features.shape, normalize_) {
    check_comparable(ctx_, query_, gallery.features, normalize_);
    memory_ = gallery_.pack(ctx_, gallery.features);
  }

  TopK run(const std::function<void(std::int64_t, std::int64_t)>& progress) {
    const std::int64_t queries = query_.dim(0), between_reports = 32 * cut_.rows;
    std::vector<Scratch> scratch;
    for (int i = 0; i < ctx_.threads(); ++i) scratch.emplace_back(*this);
    TopK found = space_for(queries * cut_.ranges);
    for (std::int64_t first = 0; first < queries; first += between_reports) {
      const std::int64_t end = std::min(queries, first + between_reports);
      ctx_.parallel_for(cpu::divide_up(end - first, cut_.rows) * cut_.ranges,
                        [&](std::int64_t i, int thread) {
                          const std::int64_t q = first + i / cut_.ranges * cut_.rows;
                          search(q, std::min(cut_.rows, end - q), i % cut_.ranges,
                                 scratch[static_cast<std::size_t>(thread)], found);
                        });
      if (progress) progress(end, queries);
    }
    return cut_.ranges == 1 ? found : merge(found);
  }

 private:
  /// What one thread needs.
  struct Scratch {
    std::shared_ptr<void> memory;
    float *panels, *tile, *unit;
    std::vector<NearestOfQuery> queries;

    explicit Scratch(const NearestSearch& s) {
      const std::int64_t columns = s.query_.dim(1),
                         size = cpu::PackedA<float>::size(s.cut_.rows, columns),
                         tile_size = cpu::GemmTile<float>::rows * s.tile_stride();
      memory = cpu::allocate(
          static_cast<std::size_t>(size + tile_size + (s.normalize_ ? s.cut_.rows * columns : 0)) *
          sizeof(float));
      panels = static_cast<float*>(memory.get());
      tile = panels + size;
      unit = tile + tile_size;
      queries.assign(static_cast<std::size_t>(s.cut_.rows), NearestOfQuery(s.k_));
    }
  };
  /// Rows of a tile; not a multiple of a large power of two.
  std::int64_t tile_stride() const { return cut_.strip + cpu::GemmTile<float>::width; }

  TopK space_for(std::int64_t lists) const {
    TopK top{k_, {}, {}};
    top.indices.resize(static_cast<std::size_t>(lists * k_));
    top.scores.resize(static_cast<std::size_t>(lists * k_));
    return top;
  }

  /// The k nearest of one range of the gallery for queries [first, first + rows).
  void search(std::int64_t first, std::int64_t rows, std::int64_t range, Scratch& own,
              TopK& found) const {
    const std::int64_t columns = query_.dim(1), begin = range * cut_.range,
                       end = std::min(items_, begin + cut_.range);
    const float* x = query_.row(first);
    if (normalize_) {
      normalize_rows(rows, columns, x, own.unit);
      x = own.unit;
    }
    const cpu::PackedA<float> panels(own.panels, rows, columns);
    panels.pack({x, columns});
    for (std::int64_t i = 0; i < rows; ++i) of(own, i).begin(first + i, relations_);
    for (std::int64_t g = begin; g < end; g += cut_.strip) {
      const std::int64_t n = std::min(cut_.strip, end - g);
      cpu::gemm_panels(panels, *gallery_, g, n, own.tile, tile_stride(),
                       [&](std::int64_t row, std::int64_t count) {
                         for (std::int64_t i = 0; i < count; ++i)
                           of(own, row + i).offer(own.tile + i * tile_stride(), n, g);
                       });
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t to = ((first + i) * cut_.ranges + range) * k_;
      of(own, i).list.write(found.indices.data() + to, found.scores.data() + to);
    }
  }
  static NearestOfQuery& of(Scratch& own, std::int64_t i) {
    return own.queries[static_cast<std::size_t>(i)];
  }

  /// The first k of the lists of all ranges of a query.
  TopK merge(const TopK& found) {
    const std::int64_t of_query = cut_.ranges * k_;
    TopK merged = space_for(query_.dim(0));
    ctx_.parallel_for(query_.dim(0), [&](std::int64_t q) {
      const auto in_order = [&](std::int64_t a, std::int64_t b) {
        return Neighbor{found.scores[size(a)], found.indices[size(a)]} <
               Neighbor{found.scores[size(b)], found.indices[size(b)]};
      };
      std::vector<std::int64_t> order(size(of_query));
      std::iota(order.begin(), order.end(), q * of_query);
      std::partial_sort(order.begin(), order.begin() + k_, order.end(), in_order);
      for (std::int64_t i = 0; i < k_; ++i) {
        merged.indices[size(q * k_ + i)] = found.indices[size(order[size(i)])];
        merged.scores[size(q * k_ + i)] = found.scores[size(order[size(i)])];
      }
    });
    return merged;
  }
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

  cpu::Context ctx_;
  View<const float> query_;
  std::int64_t items_, k_;
  bool normalize_;
  Relations relations_;
  NearestCut cut_;
  PackedGallery gallery_;
  std::shared_ptr<void> memory_;  ///< of the packed gallery
};

}  // namespace detail

/// The k gallery items most similar to each query, in the order and with the exclusions of
/// evaluate_retrieval; labels are needed only with cameras. Throws as evaluate_retrieval, and
/// ConfigError unless 1 <= k <= G. The result does not depend on the number of threads. Memory:
/// the packed gallery and a few MiB for every thread.
inline TopK top_k(const FeatureSet& query, const FeatureSet& gallery, std::int64_t k,
                  const RetrievalOptions& options = {}) {
  detail::check_sets(query, gallery);
  detail::check_k(k, gallery.features.dim(0));
  return detail::NearestSearch(query, gallery, k, options).run(options.progress);
}

}  // namespace kindred::eval
