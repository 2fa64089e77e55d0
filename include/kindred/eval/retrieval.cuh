#pragma once
// The search for the nearest, and the retrieval metrics, of eval/retrieval.hpp on a GPU: it has the
// similarities, the order and the ranks; means over the ranks of relevant items are the host's.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include <kindred/eval/feature_set.hpp>
#include <kindred/eval/retrieval_result.hpp>
#include <kindred/kernels/cuda/gemm.cuh>
#include <kindred/kernels/cuda/pair_rows.cuh>
#include <kindred/kernels/cuda/ranks.cuh>
#include <kindred/kernels/cuda/top_k.cuh>

namespace kindred::eval {

namespace detail {

template <class T>
std::shared_ptr<T> device_array(std::int64_t n) {
  return std::static_pointer_cast<T>(
      cuda::allocate_device(static_cast<std::size_t>(n) * sizeof(T)));
}
template <class T>
void copy_to(cuda::Context& ctx, T* to, const T* from, std::int64_t n) {
  cuda::check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(n) * sizeof(T), cudaMemcpyDefault,
                              ctx.stream()),
              "cudaMemcpyAsync");
}
/// A copy on the device; nullptr for no elements.
template <class T>
std::shared_ptr<T> upload(cuda::Context& ctx, const T* from, std::int64_t n) {
  if (n == 0) return nullptr;
  std::shared_ptr<T> to = device_array<T>(n);
  copy_to(ctx, to.get(), from, n);
  return to;
}

/// norm = ||x||_2 in double, which cannot overflow; x is divided by max(norm, 1e-12) if `divide`.
struct NormalizeFeatures {
  std::int64_t columns;
  bool divide;
  float* x;
  double* norms;
  template <class Group>
  __device__ void operator()(const Group& group, std::int64_t i) const {
    float* row = x + i * columns;
    const double norm = std::sqrt(group.sum(columns, [&](std::int64_t c) {
      return static_cast<double>(row[c]) * static_cast<double>(row[c]);
    }));
    group.once([&] { norms[i] = norm; });
    if (!divide) return;
    const double divisor = norm > 1e-12 ? norm : 1e-12;
    group.for_each(columns, [&](std::int64_t c) {
      row[c] = static_cast<float>(static_cast<double>(row[c]) / divisor);
    });
  }
};

/// Features on the device, divided by their norms if `normalize`.
struct DeviceFeatures {
  std::shared_ptr<float> data;
  double largest = 0;  ///< norm of a row

  /// Throws NumericError naming the first row that is not finite.
  DeviceFeatures(cuda::Context& ctx, const char* name, View<const float> features, bool normalize)
      : data(upload(ctx, features.data, features.size())) {
    const std::int64_t rows = features.dim(0);
    const auto norms = device_array<double>(rows);
    cuda::for_pair_rows(ctx, rows, features.dim(1),
                        NormalizeFeatures{features.dim(1), normalize, data.get(), norms.get()});
    std::vector<double> host(static_cast<std::size_t>(rows));
    copy_to(ctx, host.data(), static_cast<const double*>(norms.get()), rows);
    ctx.synchronize();
    for (std::size_t i = 0; i < host.size(); ++i)
      if (!std::isfinite(host[i]))
        throw NumericError(text("row ", i, " of the ", name, " features is not finite"));
    largest = *std::max_element(host.begin(), host.end());
  }
};

/// What is known of the images of one side, on the device; null where it is unknown.
struct DeviceColumns {
  std::shared_ptr<std::int64_t> labels, cameras, ids;
  DeviceColumns(cuda::Context& ctx, const FeatureSet& set)
      : labels(column(ctx, set.labels)),
        cameras(column(ctx, set.cameras)),
        ids(column(ctx, set.ids)) {}

 private:
  static std::shared_ptr<std::int64_t> column(cuda::Context& ctx,
                                              std::span<const std::int64_t> values) {
    return upload(ctx, values.data(), static_cast<std::int64_t>(values.size()));
  }
};

/// Makes the similarity of the item -infinity if it is the query's own image, or has its label and
/// its camera.
struct ExcludeItems {
  struct Columns {
    const std::int64_t *labels, *cameras, *ids;
    explicit Columns(const DeviceColumns& c)
        : labels(c.labels.get()), cameras(c.cameras.get()), ids(c.ids.get()) {}
  };
  Columns query, gallery;
  std::int64_t first, items;
  float* similarities;
  __device__ void operator()(std::int64_t row, std::int64_t g) const {
    const std::int64_t q = first + row;
    const bool own = query.ids != nullptr && query.ids[q] == gallery.ids[g];
    const bool seen = query.cameras != nullptr && query.cameras[q] == gallery.cameras[g] &&
                      query.labels[q] == gallery.labels[g];
    if (own || seen) similarities[row * items + g] = -std::numeric_limits<float>::infinity();
  }
};

/// The similarities of queries with a whole gallery on the device, a block of queries at a time;
/// -infinity where an item is excluded.
class DeviceSimilarities {
 public:
  /// Throws NumericError for features that are not finite or whose similarities overflow.
  DeviceSimilarities(const FeatureSet& query, const FeatureSet& gallery,
                     const RetrievalOptions& options)
      : options_(options),
        queries_(query.features.dim(0)),
        items_(gallery.features.dim(0)),
        columns_(query.features.dim(1)),
        excludes_(!query.ids.empty() || !query.cameras.empty()),
        query_(ctx_, "query", query.features, options.normalize),
        gallery_(ctx_, "gallery", gallery.features, options.normalize),
        of_queries_(ctx_, query),
        of_items_(ctx_, gallery) {
    // No partial sum of a dot product exceeds the product of the norms (Cauchy-Schwarz).
    if (!options.normalize && query_.largest * gallery_.largest >
                                  0.5 * static_cast<double>(std::numeric_limits<float>::max()))
      throw NumericError("the similarities overflow; set normalize = true or scale the features");
    const std::int64_t row_bytes = items_ * static_cast<std::int64_t>(sizeof(float));
    rows_ = std::min(queries_, std::clamp<std::int64_t>(options.block_bytes / row_bytes, 16, 4096));
  }

  cuda::Context& context() { return ctx_; }
  /// Queries of a block; the last one may have fewer.
  std::int64_t rows() const { return rows_; }

  /// Calls f(first, similarities [rows, G]), which launches what reads them, for every block of
  /// queries, in order; then waits and calls finish(first, rows).
  template <class F, class Finish>
  void run(F&& f, Finish&& finish) {
    const Plan full = plan(rows_), last = plan((queries_ - 1) % rows_ + 1);
    for (std::int64_t first = 0; first < queries_; first += rows_) {
      const std::int64_t count = std::min(rows_, queries_ - first);
      ctx_.arena().begin_replay(count == rows_ ? full : last);
      pass(first, count, f);
      ctx_.synchronize();
      finish(first, count);
      if (options_.progress) options_.progress(first + count, queries_);
    }
  }

 private:
  Plan plan(std::int64_t count) {
    ctx_.arena().begin_recording();
    pass(0, count, [](std::int64_t, View<float>) {});
    return ctx_.arena().end_recording();
  }
  template <class F>
  void pass(std::int64_t first, std::int64_t count, F&& f) {
    auto s = ctx_.make<float>({count, items_}, "similarities");
    cuda::gemm(ctx_, Transpose::no, Transpose::yes, count, items_, columns_,
               static_cast<const float*>(query_.data.get()) + first * columns_, columns_,
               static_cast<const float*>(gallery_.data.get()), columns_, s.data, items_, false);
    if (excludes_)
      cuda::for_each_pair(ctx_, "similarities", count, items_,
                          ExcludeItems{ExcludeItems::Columns(of_queries_),
                                       ExcludeItems::Columns(of_items_), first, items_, s.data});
    f(first, View<float>(s));
  }

  cuda::Context ctx_;
  const RetrievalOptions& options_;
  std::int64_t queries_, items_, columns_, rows_ = 0;
  bool excludes_;
  DeviceFeatures query_, gallery_;
  DeviceColumns of_queries_, of_items_;
};

}  // namespace detail

/// top_k of eval/retrieval.hpp on the current GPU: the same exclusions, the same order of equal
/// similarities, the same exceptions; similarities differ by rounding. Features may be in the
/// memory of the host or of the device, all else is on the host; options.threads has no meaning.
/// The device holds a copy of both sides and options.block_bytes of similarities.
inline TopK top_k(Cuda, const FeatureSet& query, const FeatureSet& gallery, std::int64_t k,
                  const RetrievalOptions& options = {}) {
  detail::check_sets(query, gallery);
  const std::int64_t queries = query.features.dim(0), items = gallery.features.dim(0);
  detail::check_k(k, items);
  detail::DeviceSimilarities similarities(query, gallery, options);
  cuda::Context& ctx = similarities.context();
  const auto indices = detail::device_array<std::int64_t>(similarities.rows() * k);
  const auto scores = detail::device_array<float>(similarities.rows() * k);
  TopK result{k, {}, {}};
  result.indices.resize(static_cast<std::size_t>(queries * k));
  result.scores.resize(static_cast<std::size_t>(queries * k));
  similarities.run(
      [&](std::int64_t first, View<float> s) {
        const std::int64_t count = s.dim(0);
        cuda::top_k(ctx, count, items, k, s.data, indices.get(), scores.get());
        detail::copy_to(ctx, result.indices.data() + first * k,
                        static_cast<const std::int64_t*>(indices.get()), count * k);
        detail::copy_to(ctx, result.scores.data() + first * k,
                        static_cast<const float*>(scores.get()), count * k);
      },
      [](std::int64_t, std::int64_t) {});
  return result;
}

/// evaluate_retrieval of eval/retrieval.hpp on the current GPU; see top_k above. The device also
/// holds the ranks of a block's relevant items.
inline RetrievalResult evaluate_retrieval(Cuda, const FeatureSet& query, const FeatureSet& gallery,
                                          const RetrievalOptions& options = {}) {
  detail::check_metrics(query, gallery, options);
  const std::int64_t queries = query.features.dim(0), items = gallery.features.dim(0);
  const detail::PositionsByValue by_label(gallery.labels);
  const std::int64_t* const positions = by_label.all().data();
  detail::DeviceSimilarities similarities(query, gallery, options);
  cuda::Context& ctx = similarities.context();

  // Every query's items of its label; results count from the begin of its block.
  std::vector<cuda::RankedColumns> relevant;
  std::int64_t most = 0, in_block = 0;
  for (std::int64_t q = 0; q < queries; ++q) {
    const auto same = by_label(query.labels[static_cast<std::size_t>(q)]);
    const auto count = static_cast<std::int64_t>(same.size());
    if (q % similarities.rows() == 0) in_block = 0;
    relevant.push_back({count > 0 ? same.data() - positions : 0, count, in_block});
    most = std::max(most, in_block += count);
  }
  const auto list = detail::upload(ctx, positions, items);
  const auto given = detail::upload(ctx, relevant.data(), queries);
  const auto ranks = detail::device_array<std::int64_t>(most);
  const auto compared = detail::device_array<std::int64_t>(similarities.rows());
  std::vector<std::int64_t> ranks_of_block(static_cast<std::size_t>(most));
  std::vector<std::int64_t> compared_in_block(static_cast<std::size_t>(similarities.rows()));
  std::vector<std::int64_t> own;
  RetrievalResult result = detail::empty_result(queries, options);
  similarities.run(
      [&](std::int64_t first, View<float> s) {
        const std::int64_t count = s.dim(0);
        const cuda::RankedColumns& last = relevant[static_cast<std::size_t>(first + count - 1)];
        cuda::ranks(ctx, count, items, s.data, given.get() + first, list.get(), ranks.get(),
                    compared.get());
        detail::copy_to(ctx, ranks_of_block.data(), static_cast<const std::int64_t*>(ranks.get()),
                        last.result + last.count);
        detail::copy_to(ctx, compared_in_block.data(),
                        static_cast<const std::int64_t*>(compared.get()), count);
      },
      [&](std::int64_t first, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i) {
          const cuda::RankedColumns& r = relevant[static_cast<std::size_t>(first + i)];
          own.clear();
          for (std::int64_t j = r.result; j < r.result + r.count; ++j)
            if (const std::int64_t rank = ranks_of_block[static_cast<std::size_t>(j)]; rank > 0)
              own.push_back(rank);
          std::sort(own.begin(), own.end());
          detail::note_query(result, first + i, own);
          result.pairs += compared_in_block[static_cast<std::size_t>(i)];
        }
      });
  detail::summarize(result);
  return result;
}

}  // namespace kindred::eval
