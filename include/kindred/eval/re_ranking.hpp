#pragma once
// Better rankings from the features that are there: k-reciprocal re-ranking and alpha query
// expansion. Both compare everything with everything, but hold neighbours alone.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/eval/retrieval.hpp>
#include <kindred/eval/similarity.hpp>

namespace kindred::eval {

/// Settings of k-reciprocal re-ranking; the defaults are those of PaddleClas.
struct ReRanking {
  std::int64_t k1 = 20;  ///< neighbours that must be mutual
  std::int64_t k2 = 6;   ///< neighbours whose encodings are averaged; 1: none but its own
  double lambda = 0.3;   ///< share of the original distance
};

namespace detail {

/// Sparse encodings of all N images of query and gallery together, and the final distances.
class KReciprocal {
 public:
  KReciprocal(const FeatureSet& query, const FeatureSet& gallery, const ReRanking& config,
              const RetrievalOptions& options)
      : config_(config), queries_(query.features.dim(0)), items_(gallery.features.dim(0)) {
    check(options);
    const std::int64_t columns = query.features.dim(1);
    RetrievalOptions raw = options;
    raw.normalize = false;
    SimilarityBlocks blocks({total(), columns}, {total(), columns}, raw);
    cpu::Context& ctx = blocks.context();
    std::vector<float> unit(size(total() * columns));
    check_finite(ctx, "query", query.features);
    check_finite(ctx, "gallery", gallery.features);
    normalize_rows(queries_, columns, query.features.data, unit.data());
    normalize_rows(items_, columns, gallery.features.data, unit.data() + queries_ * columns);
    const View<const float> all{unit.data(), {total(), columns}};
    find_neighbors(blocks, all);
    encode(ctx, all);
    average(ctx);
    index();
    sums_.assign(size(ctx.threads()), std::vector<float>(size(items_)));
  }

  /// Turns the cosines of query q with the gallery into negative final distances.
  void adjust(std::int64_t q, float* similarities, int thread) {
    std::vector<float>& sums = sums_[size(thread)];
    std::fill(sums.begin(), sums.end(), 0.f);
    for (const Entry& e : encodings_[size(q)])
      for (std::size_t i = begin_[size(e.image)]; i < begin_[size(e.image) + 1]; ++i)
        sums[size(column_[i].image)] += std::min(e.weight, column_[i].weight);
    const double lambda = config_.lambda;
    for (std::int64_t g = 0; g < items_; ++g) {
      const double common = static_cast<double>(sums[size(g)]);
      const double jaccard = 1 - common / (2 - common);
      const double original = (2 - 2 * static_cast<double>(similarities[g])) / farthest_[size(q)];
      similarities[g] = static_cast<float>(-((1 - lambda) * jaccard + lambda * original));
    }
  }

 private:
  struct Entry {
    std::int64_t image;
    float weight;
  };
  using Encoding = std::vector<Entry>;  // by ascending image
  using Images = std::vector<std::int64_t>;

  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
  std::int64_t total() const { return queries_ + items_; }

  void check(const RetrievalOptions& options) const {
    if (!options.normalize)
      throw ConfigError("re-ranking compares by cosine: set normalize = true");
    if (config_.k1 < 1 || config_.k1 >= total())
      throw ConfigError(text("re-ranking: expected k1 from 1 to ", total() - 1,
                             " (query and gallery without one), got ", config_.k1));
    if (config_.k2 < 1 || config_.k2 > config_.k1 + 1)
      throw ConfigError(text("re-ranking: expected k2 from 1 to ", config_.k1 + 1,
                             " (k1 + 1), got ", config_.k2));
    if (!(config_.lambda >= 0 && config_.lambda <= 1))
      throw ConfigError(text("re-ranking: expected lambda in [0, 1], got ", config_.lambda));
  }

  /// The first k1 + 1 of the ranking of every image, itself among them, and its farthest distance.
  void find_neighbors(SimilarityBlocks& blocks, View<const float> all) {
    const std::int64_t k = config_.k1 + 1;
    neighbors_.resize(size(total() * k));
    farthest_.resize(size(total()));
    const auto threads = size(blocks.context().threads());
    std::vector<NearestList> lists(threads, NearestList(k));
    std::vector<std::vector<float>> scores(threads, std::vector<float>(size(k)));
    blocks.run(all, all, {}, [&](std::int64_t first, View<float> similarities) {
      blocks.context().parallel_for(similarities.dim(0), [&](std::int64_t r, int thread) {
        const float* row = similarities.row(r);
        NearestList& list = lists[size(thread)];
        list.clear();
        list.offer(row, total(), 0);
        list.write(neighbors_.data() + (first + r) * k, scores[size(thread)].data());
        const float least = *std::min_element(row, row + total());
        // All images the same: every distance is 0, whatever it is divided by.
        farthest_[size(first + r)] = std::max(2 - 2 * static_cast<double>(least), 1e-12);
      });
    });
  }

  const std::int64_t* ranking(std::int64_t image) const {
    return neighbors_.data() + image * (config_.k1 + 1);
  }
  /// R(p, k): those of the first k + 1 that have p among their own first k + 1.
  void reciprocal(std::int64_t p, std::int64_t k, Images& out) const {
    out.clear();
    for (std::int64_t i = 0; i <= k; ++i) {
      const std::int64_t q = ranking(p)[i], *of_q = ranking(q);
      if (std::find(of_q, of_q + k + 1, p) != of_q + k + 1) out.push_back(q);
    }
  }

  /// V_p over R*(p, k1): R(p, k1) and every R(q, k1 / 2) of its members that lies in it by more
  /// than two thirds; exp(-distance), divided by the sum.
  void encode(cpu::Context& ctx, View<const float> all) {
    encodings_.resize(size(total()));
    struct Scratch {
      Images own, of_member, set;
    };
    std::vector<Scratch> scratch(size(ctx.threads()));
    // Halves to even, as numpy.around.
    const auto half = static_cast<std::int64_t>(std::nearbyint(double(config_.k1) / 2));
    ctx.parallel_for(total(), [&](std::int64_t p, int thread) {
      auto& [own, of_member, set] = scratch[size(thread)];
      reciprocal(p, config_.k1, own);
      set = own;
      for (const std::int64_t q : own) {
        reciprocal(q, half, of_member);
        const auto common = std::count_if(of_member.begin(), of_member.end(), [&](std::int64_t m) {
          return std::find(own.begin(), own.end(), m) != own.end();
        });
        if (3 * common > 2 * static_cast<std::int64_t>(of_member.size()))
          set.insert(set.end(), of_member.begin(), of_member.end());
      }
      std::sort(set.begin(), set.end());
      set.erase(std::unique(set.begin(), set.end()), set.end());
      weigh(all, p, set, encodings_[size(p)]);
    });
  }
  void weigh(View<const float> all, std::int64_t p, const Images& set, Encoding& out) const {
    double sum = 0;
    for (const std::int64_t j : set) {
      double cosine = 0;
      for (std::int64_t c = 0; c < all.dim(1); ++c)
        cosine += static_cast<double>(all.row(p)[c]) * static_cast<double>(all.row(j)[c]);
      const double weight = std::exp(-(2 - 2 * cosine) / farthest_[size(p)]);
      out.push_back({j, static_cast<float>(weight)});
      sum += weight;
    }
    for (Entry& e : out) e.weight = static_cast<float>(static_cast<double>(e.weight) / sum);
  }

  /// V_p becomes the mean of the V of its first k2.
  void average(cpu::Context& ctx) {
    if (config_.k2 == 1) return;
    std::vector<Encoding> mean(encodings_.size());
    ctx.parallel_for(total(), [&](std::int64_t p) {
      Encoding& own = mean[size(p)];
      for (std::int64_t i = 0; i < config_.k2; ++i)
        own.insert(own.end(), encodings_[size(ranking(p)[i])].begin(),
                   encodings_[size(ranking(p)[i])].end());
      std::stable_sort(own.begin(), own.end(),
                       [](const Entry& a, const Entry& b) { return a.image < b.image; });
      std::size_t last = 0;
      for (std::size_t i = 1; i < own.size(); ++i)
        if (own[i].image == own[last].image)
          own[last].weight += own[i].weight;
        else
          own[++last] = own[i];
      own.resize(own.empty() ? 0 : last + 1);
      for (Entry& e : own) e.weight /= static_cast<float>(config_.k2);
    });
    encodings_ = std::move(mean);
  }

  /// The encodings of the gallery by column: which of its items (counted from its first) have an
  /// image in their encoding.
  void index() {
    begin_.assign(size(total()) + 1, 0);
    for (std::int64_t g = 0; g < items_; ++g)
      for (const Entry& e : encodings_[size(queries_ + g)]) ++begin_[size(e.image) + 1];
    for (std::size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
    column_.resize(begin_.back());
    std::vector<std::size_t> next(begin_.begin(), begin_.end() - 1);
    for (std::int64_t g = 0; g < items_; ++g)
      for (const Entry& e : encodings_[size(queries_ + g)])
        column_[next[size(e.image)]++] = {g, e.weight};
    encodings_.resize(size(queries_));
  }

  ReRanking config_;
  std::int64_t queries_, items_;
  Images neighbors_;              // [N, k1 + 1]
  std::vector<double> farthest_;  // [N]
  std::vector<Encoding> encodings_;
  std::vector<std::size_t> begin_;  // where the column of an image begins
  std::vector<Entry> column_;
  std::vector<std::vector<float>> sums_;  // [G] for each thread
};

}  // namespace detail

/// evaluate_retrieval on the k-reciprocal distances of Zhong et al., "Re-ranking Person
/// Re-identification with k-reciprocal Encoding", CVPR 2017: (1 - lambda) Jaccard + lambda d with d
/// = (2 - 2 cos) / (the largest of the row), over query and gallery together. As PaddleClas
/// (ppcls/engine/evaluation/retrieval.py), which keeps the encodings in half precision; of equal
/// similarities the lower index, queries first, is the nearer. Exclusions apply to the final
/// ranking alone, as there: a set that is query and gallery is in the encodings twice.
/// Memory beyond evaluate_retrieval, with N = Q + G: N D normalised features, N (k1 + 1)
/// neighbours, at most N k2 times the size of R* encodings of 16 bytes; never N x N. Time: N x N
/// similarities instead of Q x G.
/// Throws as evaluate_retrieval, and ConfigError for settings out of range or without normalize.
inline RetrievalResult evaluate_re_ranked(const FeatureSet& query, const FeatureSet& gallery,
                                          const ReRanking& re_ranking = {},
                                          const RetrievalOptions& options = {}) {
  detail::check_sets(query, gallery);
  detail::KReciprocal encodings(query, gallery, re_ranking, options);
  return detail::evaluate_adjusted(
      query, gallery, options,
      [&](std::int64_t q, float* row, int thread) { encodings.adjust(q, row, thread); });
}

/// top_k by the same distances; the scores are their negatives.
inline TopK re_ranked_top_k(const FeatureSet& query, const FeatureSet& gallery, std::int64_t k,
                            const ReRanking& re_ranking = {},
                            const RetrievalOptions& options = {}) {
  detail::check_sets(query, gallery);
  detail::KReciprocal encodings(query, gallery, re_ranking, options);
  return detail::top_k_adjusted(
      query, gallery, k, options,
      [&](std::int64_t q, float* row, int thread) { encodings.adjust(q, row, thread); });
}

/// Alpha query expansion: x + sum over its k most similar gallery items g of max(cos, 0)^alpha g,
/// all normalised, the sum normalised again: [Q, D]. Expanding a set from itself with ids does it
/// for a gallery. Memory: the result, its k neighbours, and one block of similarities.
/// Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI
/// 2018; FastReID's aqe with qe_k = k + 1 on a set that is expanded from itself. Throws as top_k,
/// and ConfigError for a negative alpha or without normalize.
inline std::vector<float> alpha_query_expansion(const FeatureSet& query, const FeatureSet& gallery,
                                                std::int64_t k = 10, double alpha = 3,
                                                const RetrievalOptions& options = {}) {
  if (!(alpha >= 0) || !options.normalize)
    throw ConfigError(text("alpha_query_expansion: alpha ", alpha,
                           " must not be negative, and it compares by cosine: normalize = true"));
  const TopK nearest = top_k(query, gallery, k, options);
  const std::int64_t queries = query.features.dim(0), columns = query.features.dim(1);
  std::vector<float> expanded(static_cast<std::size_t>(queries * columns));
  cpu::Context ctx(options.threads);
  const auto add = [&](const float* from, double weight, std::vector<double>& sum) {
    const double scale = weight / std::max(detail::norm(from, columns), 1e-12);
    for (std::int64_t c = 0; c < columns; ++c)
      sum[static_cast<std::size_t>(c)] += scale * static_cast<double>(from[c]);
  };
  ctx.parallel_for(queries, [&](std::int64_t q) {
    std::vector<double> sum(static_cast<std::size_t>(columns));
    add(query.features.row(q), 1, sum);
    for (std::int64_t i = q * k; i < (q + 1) * k; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (nearest.indices[at] < 0) break;
      const double cosine = std::max(static_cast<double>(nearest.scores[at]), 0.0);
      add(gallery.features.row(nearest.indices[at]), std::pow(cosine, alpha), sum);
    }
    double length = 0;
    for (const double v : sum) length += v * v;
    length = std::max(std::sqrt(length), 1e-12);
    for (std::int64_t c = 0; c < columns; ++c)
      expanded[static_cast<std::size_t>(q * columns + c)] =
          static_cast<float>(sum[static_cast<std::size_t>(c)] / length);
  });
  return expanded;
}

}  // namespace kindred::eval
