// The search for the nearest and the retrieval metrics, CPU against CUDA: order, ties, exclusions,
// sizes, errors.

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

eval::RetrievalResult evaluate(const Items& query, const Items& gallery,
                               const eval::RetrievalOptions& options) {
#ifdef KINDRED_CPU_SIDE
  return eval::evaluate_retrieval(query.set(), gallery.set(), options);
#else
  return eval::evaluate_retrieval(Cuda{}, query.set(), gallery.set(), options);
#endif
}

/// All numbers of a result, which follow from the ranks alone: equal to the last bit.
void record(Side& side, const std::string& name, const eval::RetrievalResult& r) {
  std::vector<double> values{r.mAP, r.r_precision, r.map_at_r, r.mINP};
  for (const auto* list : {&r.recall, &r.precision})
    values.insert(values.end(), list->begin(), list->end());
  for (const std::int64_t v : {r.queries, r.queries_without_positives, r.pairs, r.positive_pairs})
    values.push_back(static_cast<double>(v));
  for (const std::int64_t v : r.hits) values.push_back(static_cast<double>(v));
  for (const eval::QueryResult& q : r.per_query)
    values.insert(
        values.end(),
        {static_cast<double>(q.positives), static_cast<double>(q.first_rank),
         static_cast<double>(q.last_rank), q.average_precision, q.r_precision, q.map_at_r});
  side.record(name, View<const double>{values.data(), {static_cast<std::int64_t>(values.size())}},
              0);
}

/// Whole items with labels, cameras and ids.
Items known_items(std::int64_t rows, std::int64_t labels, std::uint64_t stream) {
  Items items = whole_items(rows, 4, stream);
  items.labels = random_labels(rows, labels, stream + 1);
  items.cameras = random_labels(rows, 2, stream + 2);
  items.ids = random_labels(rows, rows, stream + 3);
  return items;
}

// Ties, exclusions of both kinds, labels that are on one side alone, blocks of queries.
KINDRED_PARITY(metrics) {
  for (const auto& [items, labels] : {std::pair{40, 7}, std::pair{257, 200}, std::pair{3000, 2}}) {
    const Items query = known_items(37, labels + 2, 20), gallery = known_items(items, labels, 30);
    for (const std::int64_t bytes : {1, 1 << 30})
      record(side, text(items, " items, ", bytes, " bytes"),
             evaluate(query, gallery,
                      {.precision_at = {1, 5, 100}, .normalize = false, .block_bytes = bytes}));
  }
  Items query = random_items(31, 20, 40), gallery = random_items(500, 20, 41);
  query.labels = random_labels(31, 5, 42);
  gallery.labels = random_labels(500, 5, 43);
  record(side, "cosines", evaluate(query, gallery, {}));
}

// More relevant items of a row than a block of threads ranks at once.
KINDRED_PARITY(many_ranks) {
  const std::int64_t rows = 3, columns = 1000;
  auto values = random_values<float>(rows * columns, 50);
  for (std::size_t i = 0; i < values.size(); i += 7) values[i] = 0.25f;
  for (std::size_t i = 0; i < values.size(); i += 5)
    values[i] = -std::numeric_limits<float>::infinity();
  std::vector<std::int64_t> list(static_cast<std::size_t>(columns));
  std::iota(list.begin(), list.end(), std::int64_t{0});
  const std::int64_t begins[] = {0, 100, 999}, counts[] = {1000, 0, 1}, results[] = {2, 1002, 1002};
  std::vector<std::int64_t> sorted(1003, -1), compared(3);
#ifdef KINDRED_CPU_SIDE
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* row = values.data() + i * columns;
    const auto there = [](float v) { return v != -std::numeric_limits<float>::infinity(); };
    compared[static_cast<std::size_t>(i)] = std::count_if(row, row + columns, there);
    for (std::int64_t j = 0; j < counts[i]; ++j) {
      const std::int64_t c = begins[i] + j;
      std::int64_t rank = there(row[c]) ? 1 : 0;
      for (std::int64_t g = 0; rank > 0 && g < columns; ++g)
        rank += row[g] > row[c] || (row[g] == row[c] && g < c);
      sorted[static_cast<std::size_t>(results[i] + j)] = rank;
    }
  }
#else
  std::vector<std::int64_t> words;
  for (int i = 0; i < 3; ++i) words.insert(words.end(), {begins[i], counts[i], results[i]});
  const auto x = side.input(values, {rows, columns});
  const auto given = side.input(words, {rows, 3}), columns_of = side.input(list, {columns});
  const auto ranks = side.input(sorted, {1003}), count = side.input(compared, {3});
  side.run([&] {
    cuda::ranks<64>(side.ctx, rows, columns, x.data,
                    reinterpret_cast<const cuda::RankedColumns*>(given.data), columns_of.data,
                    ranks.data, count.data);
  });
  sorted = side.host(ranks);
  compared = side.host(count);
#endif
  side.check(sorted[0] == -1 && sorted[1] == -1, "nothing before the first result");
  std::sort(sorted.begin() + 2, sorted.begin() + 1002);
  side.record("ranks", side.input(sorted, {1003}));
  side.record("compared", side.input(compared, {3}));
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
  side.template check_throws<ShapeError>([&] { evaluate(query, query, {}); }, "need the labels");
  Items labelled = query;
  labelled.labels = {1, 2, 3};
  labelled.ids = {1, 2, 3};
  side.template check_throws<DataError>([&] { evaluate(labelled, labelled, {}); },
                                        "no query has a relevant");
  side.template check_throws<ConfigError>(
      [&] { evaluate(labelled, labelled, {.precision_at = {0}}); }, "expected ranks from 1");
}

}  // namespace
