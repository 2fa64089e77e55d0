#pragma once
// The search for the nearest of eval/retrieval.hpp on a GPU.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include <kindred/eval/feature_set.hpp>
#include <kindred/kernels/cuda/gemm.cuh>
#include <kindred/kernels/cuda/pair_rows.cuh>
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

}  // namespace detail

/// top_k of eval/retrieval.hpp on the current GPU: the same exclusions, the same order of equal
/// similarities, the same exceptions; similarities differ by rounding. Features may be in the
/// memory of the host or of the device, all else is on the host; options.threads has no meaning.
/// The device holds a copy of both sides and options.block_bytes of similarities.
inline TopK top_k(Cuda, const FeatureSet& query, const FeatureSet& gallery, std::int64_t k,
                  const RetrievalOptions& options = {}) {
  detail::check_sets(query, gallery);
  const std::int64_t queries = query.features.dim(0), items = gallery.features.dim(0);
  const std::int64_t columns = query.features.dim(1);
  detail::check_k(k, items);
  cuda::Context ctx;
  const detail::DeviceFeatures q(ctx, "query", query.features, options.normalize);
  const detail::DeviceFeatures g(ctx, "gallery", gallery.features, options.normalize);
  // No partial sum of a dot product exceeds the product of the norms (Cauchy-Schwarz).
  if (!options.normalize &&
      q.largest * g.largest > 0.5 * static_cast<double>(std::numeric_limits<float>::max()))
    throw NumericError("the similarities overflow; set normalize = true or scale the features");
  const detail::DeviceColumns of_queries(ctx, query), of_items(ctx, gallery);

  const std::int64_t row_bytes = items * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t rows =
      std::min(queries, std::clamp<std::int64_t>(options.block_bytes / row_bytes, 16, 4096));
  const auto indices = detail::device_array<std::int64_t>(rows * k);
  const auto scores = detail::device_array<float>(rows * k);
  const auto pass = [&](std::int64_t first, std::int64_t count) {
    auto s = ctx.make<float>({count, items}, "similarities");
    cuda::gemm(ctx, Transpose::no, Transpose::yes, count, items, columns,
               static_cast<const float*>(q.data.get()) + first * columns, columns,
               static_cast<const float*>(g.data.get()), columns, s.data, items, false);
    if (!query.ids.empty() || !query.cameras.empty())
      cuda::for_each_pair(
          ctx, "top_k", count, items,
          detail::ExcludeItems{detail::ExcludeItems::Columns(of_queries),
                               detail::ExcludeItems::Columns(of_items), first, items, s.data});
    cuda::top_k(ctx, count, items, k, s.data, indices.get(), scores.get());
  };
  const auto plan = [&](std::int64_t count) {
    ctx.arena().begin_recording();
    pass(0, count);
    return ctx.arena().end_recording();
  };
  const Plan full = plan(rows), last = plan((queries - 1) % rows + 1);
  TopK result{k, {}, {}};
  result.indices.resize(static_cast<std::size_t>(queries * k));
  result.scores.resize(static_cast<std::size_t>(queries * k));
  for (std::int64_t first = 0; first < queries; first += rows) {
    const std::int64_t count = std::min(rows, queries - first);
    ctx.arena().begin_replay(count == rows ? full : last);
    pass(first, count);
    detail::copy_to(ctx, result.indices.data() + first * k,
                    static_cast<const std::int64_t*>(indices.get()), count * k);
    detail::copy_to(ctx, result.scores.data() + first * k, static_cast<const float*>(scores.get()),
                    count * k);
    ctx.synchronize();
    if (options.progress) options.progress(first + count, queries);
  }
  return result;
}

}  // namespace kindred::eval
