// The search for the nearest, CPU against CUDA: order, ties, exclusions, sizes, errors.

#include <algorithm>
#include <numeric>

#ifdef KINDRED_CPU_SIDE
#include <kindred/eval/retrieval.hpp>
#else
#include <kindred/eval/retrieval.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_labels;
using test::random_values;
using test::Side;

namespace {

/// Features with the numbers that are known of them, on the host.
struct Items {
  std::vector<float> features;
  std::int64_t columns;
  std::vector<std::int64_t> labels{}, cameras{}, ids{};

  std::int64_t rows() const { return static_cast<std::int64_t>(features.size()) / columns; }
  eval::FeatureSet set() const {
    return {{features.data(), {rows(), columns}}, labels, cameras, ids};
  }
};

Items random_items(std::int64_t rows, std::int64_t columns, std::uint64_t stream) {
  return {random_values<float>(rows * columns, stream), columns};
}
/// Small whole numbers: dot products are exact, and many are equal.
Items whole_items(std::int64_t rows, std::int64_t columns, std::uint64_t stream) {
  Items items{{}, columns};
  for (const std::int64_t v : random_labels(rows * columns, 3, stream))
    items.features.push_back(static_cast<float>(v - 1));
  return items;
}

eval::TopK search(const Items& query, const Items& gallery, std::int64_t k,
                  const eval::RetrievalOptions& options) {
#ifdef KINDRED_CPU_SIDE
  return eval::top_k(query.set(), gallery.set(), k, options);
#else
  return eval::top_k(Cuda{}, query.set(), gallery.set(), k, options);
#endif
}

void record(Side& side, const std::string& name, const Items& query, const Items& gallery,
            std::int64_t k, const eval::RetrievalOptions& options) {
  const eval::TopK top = search(query, gallery, k, options);
  const Shape shape{query.rows(), k};
  side.check(top.k == k, name + ": k is lost");
  side.record(name + " indices", side.input(top.indices, shape));
  // What is excluded scores -infinity, which cannot be subtracted.
  std::vector<float> scores = top.scores;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (top.indices[i] < 0) {
      side.check(scores[i] == -std::numeric_limits<float>::infinity(), name + ": a score of none");
      scores[i] = 0;
    }
  side.record(name + " scores", side.input(scores, shape));
}

KINDRED_PARITY(ties) {
  for (const std::int64_t items : {1, 33, 257, 3000})
    for (const std::int64_t k : {std::int64_t{1}, std::int64_t{5}, std::int64_t{200}, items})
      if (k <= items)
        record(side, text(k, " of ", items), whole_items(7, 3, 1), whole_items(items, 3, 2), k,
               {.normalize = false});
}

KINDRED_PARITY(cosines) {
  for (const std::int64_t items : {31, 1000})
    record(side, text(items), random_items(33, 20, 3), random_items(items, 20, 4), 10, {});
}

KINDRED_PARITY(crowded_thread) {
  // One thread meets more of the largest than are collected at once.
  const std::int64_t rows = 3, columns = 256 * 100, k = 150;
  auto values = random_values<float>(rows * columns, 18);
  for (std::size_t i = 0; i < values.size(); i += 256) values[i + 5] += 10;
  const auto scores = side.template output<float>({rows, k});
  const auto indices = side.template output<std::int64_t>({rows, k});
#ifdef KINDRED_CPU_SIDE
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row = values.data() + i * columns;
    std::vector<std::int64_t> order(static_cast<std::size_t>(columns));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [row](std::int64_t a, std::int64_t b) { return row[a] > row[b]; });
    for (std::int64_t j = 0; j < k; ++j) {
      indices[i * k + j] = order[static_cast<std::size_t>(j)];
      scores[i * k + j] = row[indices[i * k + j]];
    }
  }
#else
  const auto input = side.input(values, {rows, columns});
  side.run(
      [&] { cuda::top_k<64>(side.ctx, rows, columns, k, input.data, indices.data, scores.data); });
#endif
  side.record("indices", indices);
  side.record("scores", scores, 0);
}

KINDRED_PARITY(exclusions) {
  Items query = whole_items(40, 4, 5), gallery = whole_items(90, 4, 6);
  const auto labels = [](Items& items, std::uint64_t stream) {
    items.labels = random_labels(items.rows(), 3, stream);
    items.cameras = random_labels(items.rows(), 2, stream + 1);
  };
  labels(query, 7);
  labels(gallery, 9);
  record(side, "cameras", query, gallery, 90, {.normalize = false});
  query.ids = random_labels(40, 20, 11);
  gallery.ids = random_labels(90, 20, 12);
  record(side, "cameras and ids", query, gallery, 90, {.normalize = false});
  query.cameras = gallery.cameras = {};
  record(side, "ids", query, gallery, 12, {.normalize = false});
  gallery.ids.assign(90, 3);
  query.ids.assign(40, 3);
  record(side, "everything excluded", query, gallery, 3, {});
}

KINDRED_PARITY(blocks) {
  std::vector<std::int64_t> steps;
  record(side, "blocks", whole_items(37, 4, 13), whole_items(50, 4, 14), 6,
         {.normalize = false, .block_bytes = 1, .progress = [&](std::int64_t done, std::int64_t) {
            steps.push_back(done);
          }});
  // On the device 16 rows is the least that a block has; the CPU's blocks are of another size.
#ifdef KINDRED_CPU_SIDE
  const std::vector<std::int64_t> expected{37};
#else
  const std::vector<std::int64_t> expected{16, 32, 37};
#endif
  side.check(steps == expected, "progress");
}

KINDRED_PARITY(errors) {
  const Items query = random_items(3, 4, 15);
  Items gallery = random_items(5, 4, 16);
  side.template check_throws<ConfigError>([&] { search(query, gallery, 6, {}); }, "from 1 to 5");
  side.template check_throws<ShapeError>([&] { search(query, random_items(5, 3, 17), 1, {}); },
                                         "different lengths");
  gallery.features[13] = std::numeric_limits<float>::quiet_NaN();
  side.template check_throws<NumericError>([&] { search(query, gallery, 1, {}); },
                                           "row 3 of the gallery");
  gallery.features[13] = 3e38f;
  side.template check_throws<NumericError>(
      [&] { search(gallery, gallery, 1, {.normalize = false}); }, "overflow");
}

}  // namespace
