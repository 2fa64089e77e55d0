#pragma once
// Similarities of queries with a whole gallery, a block of queries at a time, and who may be
// compared with whom. Shared by the retrieval metrics and by top_k.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/core/error.hpp>
#include <kindred/core/shape.hpp>
#include <kindred/eval/feature_set.hpp>
#include <kindred/eval/retrieval_result.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/gemm.hpp>

namespace kindred::eval {

namespace detail {

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
inline void normalize_rows(std::int64_t rows, std::int64_t columns, const float* x, float* y) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* from = x + i * columns;
    const double divisor = std::max(norm(from, columns), 1e-12);
    for (std::int64_t c = 0; c < columns; ++c)
      y[i * columns + c] = static_cast<float>(static_cast<double>(from[c]) / divisor);
  }
}

/// Says for every query which gallery items are excluded and which of the others are relevant.
class Relations {
 public:
  Relations(const FeatureSet& query, const FeatureSet& gallery)
      : query_(query), gallery_(gallery), by_label_(gallery.labels), by_id_(gallery.ids) {}

  /// Calls f(g) for every gallery item g that is excluded for query q, for some of them twice.
  template <class F>
  void for_each_excluded(std::int64_t q, F&& f) const {
    const auto i = static_cast<std::size_t>(q);
    if (!query_.ids.empty())
      for (const std::int64_t g : by_id_(query_.ids[i])) f(g);
    if (!query_.cameras.empty())
      for (const std::int64_t g : by_label_(query_.labels[i]))
        if (gallery_.cameras[static_cast<std::size_t>(g)] == query_.cameras[i]) f(g);
  }
  /// The gallery items of the query's label, excluded ones among them, in ascending order.
  std::span<const std::int64_t> same_label(std::int64_t q) const {
    return by_label_(query_.labels[static_cast<std::size_t>(q)]);
  }
  /// Sets the similarity of what is excluded for query q to -infinity; returns how many they are.
  std::int64_t exclude(std::int64_t q, float* similarities) const {
    std::int64_t count = 0;
    for_each_excluded(q, [&](std::int64_t g) {
      count += similarities[g] != excluded;
      similarities[g] = excluded;
    });
    return count;
  }
  /// The relevant items among those that are left, in ascending order.
  void find_positives(std::int64_t q, const float* similarities,
                      std::vector<std::int64_t>& positives) const {
    positives.clear();
    for (const std::int64_t g : same_label(q))
      if (similarities[g] != excluded) positives.push_back(g);
  }

 private:
  FeatureSet query_, gallery_;
  PositionsByValue by_label_, by_id_;
};

/// Throws NumericError for features that are not finite or whose similarities overflow.
inline void check_comparable(cpu::Context& ctx, View<const float> query, View<const float> gallery,
                             bool normalize) {
  const double largest = check_finite(ctx, "query", query) * check_finite(ctx, "gallery", gallery);
  // No partial sum of a dot product exceeds the product of the norms (Cauchy-Schwarz).
  if (!normalize && largest > 0.5 * static_cast<double>(std::numeric_limits<float>::max()))
    throw NumericError("the similarities overflow; set normalize = true or scale the features");
}

/// The transposed gallery, normalised if so wished, packed for the products once.
class PackedGallery {
 public:
  PackedGallery(const Shape& gallery, bool normalize)
      : items_(gallery[0]),
        columns_(gallery[1]),
        normalize_(normalize),
        packed_(nullptr, columns_, items_) {}

  std::size_t bytes() const { return static_cast<std::size_t>(packed_.size()) * sizeof(float); }
  const cpu::PackedB<float>& operator*() const { return packed_; }

  /// Returns the memory that it lies in; `strip` of the gallery's rows are packed at a time.
  [[nodiscard]] std::shared_ptr<void> pack(cpu::Context& ctx, View<const float> gallery) {
    auto memory = cpu::allocate(bytes());
    packed_.data = static_cast<float*>(memory.get());
    constexpr std::int64_t strip = 8 * cpu::GemmTile<float>::columns;
    std::vector<float> normalized(
        static_cast<std::size_t>(normalize_ ? ctx.threads() * strip * columns_ : 0));
    ctx.parallel_for((items_ + strip - 1) / strip, [&](std::int64_t i, int thread) {
      const std::int64_t first = i * strip, rows = std::min(strip, items_ - first);
      const float* from = gallery.row(first);
      if (normalize_) {
        float* to = normalized.data() + thread * strip * columns_;
        normalize_rows(rows, columns_, from, to);
        from = to;
      }
      const cpu::ColumnsOfB<float> transposed{from, columns_};
      for (std::int64_t part = 0; part < packed_.cut.parts; ++part)
        transposed.pack(packed_.cut.begin(part), packed_.cut.size(part), 0, rows,
                        packed_.at(part, first));
    });
    return memory;
  }

 private:
  std::int64_t items_, columns_;
  bool normalize_;
  cpu::PackedB<float> packed_;
};

/// Computes the similarities of [first, first + rows) with the whole gallery, for one block after
/// another.
class SimilarityBlocks {
 public:
  SimilarityBlocks(const Shape& query, const Shape& gallery, const RetrievalOptions& options)
      : ctx_(options.threads),
        queries_(query[0]),
        items_(gallery[0]),
        columns_(gallery[1]),
        normalize_(options.normalize),
        gallery_(gallery, options.normalize) {
    constexpr std::int64_t least = 16, most = 4096;
    const std::int64_t row_bytes = items_ * static_cast<std::int64_t>(sizeof(float));
    rows_ = std::min(queries_, std::clamp(options.block_bytes / row_bytes, least, most));
    full_ = plan(rows_);
    last_ = plan((queries_ - 1) % rows_ + 1);
  }

  cpu::Context& context() { return ctx_; }
  /// Bytes of scratch: the packed gallery and one block.
  std::size_t bytes() const { return gallery_.bytes() + std::max(full_.bytes(), last_.bytes()); }

  /// Calls f(first, similarities [rows, G]) for every block of queries, in order. Throws as
  /// check_comparable.
  template <class F>
  void run(View<const float> query, View<const float> gallery,
           const std::function<void(std::int64_t, std::int64_t)>& progress, F&& f) {
    check_comparable(ctx_, query, gallery, normalize_);
    const auto memory = gallery_.pack(ctx_, gallery);
    for (std::int64_t first = 0; first < queries_; first += rows_) {
      const std::int64_t rows = std::min(rows_, queries_ - first);
      ctx_.arena().begin_replay(rows == rows_ ? full_ : last_);
      pass({query.row(first), {rows, columns_}},
           [&](View<float> similarities) { f(first, similarities); });
      if (progress) progress(first + rows, queries_);
    }
  }

 private:
  Plan plan(std::int64_t rows) {
    ctx_.arena().begin_recording();
    pass({nullptr, {rows, columns_}}, [](View<float>) {});
    return ctx_.arena().end_recording();
  }
  template <class F>
  void pass(View<const float> query, F&& f) {
    const std::int64_t rows = query.dim(0);
    Tensor<float> normalized;
    if (normalize_) {
      normalized = ctx_.make<float>({rows, columns_}, "normalised queries");
      ctx_.parallel_ranges(rows, 64, [&](std::int64_t begin, std::int64_t end) {
        normalize_rows(end - begin, columns_, query.row(begin), normalized.row(begin));
      });
      query.data = normalized.data;
    }
    auto similarities = ctx_.make<float>({rows, items_}, "similarities");
    cpu::gemm_packed(ctx_, rows, items_, columns_, query.data, columns_, *gallery_,
                     similarities.data, items_);
    f(similarities);
  }

  cpu::Context ctx_;
  std::int64_t queries_, items_, columns_;
  bool normalize_;
  PackedGallery gallery_;
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
