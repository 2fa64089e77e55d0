#include <kindred/eval/retrieval.hpp>

#include <limits>
#include <numeric>
#include <sstream>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::eval;
using namespace kindred::test;
using Integers = std::vector<std::int64_t>;

namespace {

/// Features and all that can be known of them.
struct Data {
  std::int64_t columns = 0;
  std::vector<float> features;
  Integers labels, cameras, ids;

  FeatureSet set(bool with_cameras, bool with_ids) const {
    FeatureSet s{.features = {features.data(), {rows(), columns}}, .labels = labels};
    if (with_cameras) s.cameras = cameras;
    if (with_ids) s.ids = ids;
    return s;
  }
  std::int64_t rows() const { return static_cast<std::int64_t>(labels.size()); }
};

/// Entries are +-1, so that norms and dot products of 16 of them are exact in float and most
/// similarities occur many times; every third item repeats an earlier one.
Data tied_data(std::int64_t rows, std::int64_t classes, std::uint64_t stream) {
  RandomSequence random({5, stream, 0});
  Data data{.columns = 16, .features = {}, .labels = {}, .cameras = {}, .ids = {}};
  for (std::int64_t i = 0; i < rows; ++i) {
    const bool copy = i % 3 == 2;
    const std::size_t from = copy ? random.below(static_cast<std::uint64_t>(i)) * 16 : 0;
    for (std::size_t c = 0; c < 16; ++c)
      data.features.push_back(copy ? data.features[from + c] : random.below(2) != 0 ? 1.f : -1.f);
    data.labels.push_back(
        static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(classes))));
    data.cameras.push_back(static_cast<std::int64_t>(random.below(3)));
    data.ids.push_back(1000 + i);
  }
  return data;
}

/// The definitions, word for word: the ranking of what is not excluded, by a full sort in double.
Integers naive_ranking(const FeatureSet& query, const FeatureSet& gallery, std::int64_t q,
                       bool normalize) {
  const std::int64_t columns = query.features.dim(1);
  const auto product = [&](const float* a, const float* b) {
    double sum = 0;
    for (std::int64_t c = 0; c < columns; ++c) sum += double(a[c]) * double(b[c]);
    return sum;
  };
  const float* x = query.features.row(q);
  std::vector<std::pair<double, std::int64_t>> order;
  for (std::int64_t g = 0; g < gallery.features.dim(0); ++g) {
    const auto i = static_cast<std::size_t>(q), j = static_cast<std::size_t>(g);
    if (!query.ids.empty() && query.ids[i] == gallery.ids[j]) continue;
    if (!query.cameras.empty() && query.labels[i] == gallery.labels[j] &&
        query.cameras[i] == gallery.cameras[j])
      continue;
    const float* y = gallery.features.row(g);
    const double scale = normalize ? std::sqrt(product(x, x) * product(y, y)) : 1;
    order.emplace_back(-product(x, y) / scale, g);
  }
  std::sort(order.begin(), order.end());
  Integers ranking;
  for (const auto& [score, g] : order) ranking.push_back(g);
  return ranking;
}

RetrievalResult naive_result(const FeatureSet& query, const FeatureSet& gallery,
                             const RetrievalOptions& options) {
  RetrievalResult r;
  r.recall_at = options.recall_at;
  r.recall.assign(r.recall_at.size(), 0);
  for (std::int64_t q = 0; q < query.features.dim(0); ++q) {
    const Integers ranking = naive_ranking(query, gallery, q, options.normalize);
    std::vector<double> relevant;
    for (const std::int64_t g : ranking)
      relevant.push_back(gallery.labels[static_cast<std::size_t>(g)] ==
                         query.labels[static_cast<std::size_t>(q)]);
    const double count = std::accumulate(relevant.begin(), relevant.end(), 0.0);
    r.pairs += static_cast<std::int64_t>(ranking.size());
    r.positive_pairs += static_cast<std::int64_t>(count);
    ++r.queries;
    if (count == 0) {
      ++r.queries_without_positives;
      continue;
    }
    double hits = 0, ap = 0, rp = 0, mapr = 0, last = 0;
    for (std::size_t i = 0; i < relevant.size(); ++i) {
      if (relevant[i] == 0) continue;
      const double rank = static_cast<double>(i + 1);
      if (hits == 0)
        for (std::size_t k = 0; k < r.recall.size(); ++k)
          r.recall[k] += rank <= static_cast<double>(r.recall_at[k]);
      hits += 1;
      ap += hits / rank;
      if (rank <= count) {
        rp += 1;
        mapr += hits / rank;
      }
      last = rank;
    }
    r.mAP += ap / count;
    r.r_precision += rp / count;
    r.map_at_r += mapr / count;
    r.mINP += count / last;
  }
  const double n = static_cast<double>(r.queries - r.queries_without_positives);
  for (double* mean : {&r.mAP, &r.r_precision, &r.map_at_r, &r.mINP}) *mean /= n;
  for (double& recall : r.recall) recall /= n;
  return r;
}

void check_same(const RetrievalResult& a, const RetrievalResult& b, double tolerance) {
  const auto near = [&](double value) { return Approx(value).margin(tolerance).epsilon(0); };
  REQUIRE(a.recall.size() == b.recall.size());
  for (std::size_t i = 0; i < a.recall.size(); ++i) CHECK(a.recall[i] == near(b.recall[i]));
  CHECK(a.mAP == near(b.mAP));
  CHECK(a.r_precision == near(b.r_precision));
  CHECK(a.map_at_r == near(b.map_at_r));
  CHECK(a.mINP == near(b.mINP));
  CHECK(a.queries == b.queries);
  CHECK(a.queries_without_positives == b.queries_without_positives);
  CHECK(a.pairs == b.pairs);
  CHECK(a.positive_pairs == b.positive_pairs);
}

/// One query at similarity 1 to the axis; gallery item i has the similarity scores[i].
RetrievalResult evaluate_scores(const std::vector<float>& scores, const Integers& labels) {
  const std::vector<float> query{1};
  const Integers query_label{1};
  const auto n = static_cast<std::int64_t>(scores.size());
  return evaluate_retrieval({.features = {query.data(), {1, 1}}, .labels = query_label},
                            {.features = {scores.data(), {n, 1}}, .labels = labels},
                            {.normalize = false});
}

}  // namespace

TEST_CASE("retrieval: every metric, computed by hand") {
  // Ranking: item 2, 0, 4, 1, 3; relevant: 0, 4 and 3, so at ranks 2, 3 and 5; R = 3.
  const auto r = evaluate_scores({.8f, .5f, .9f, -.1f, .7f}, {1, 0, 0, 1, 1});
  CHECK(r.recall == std::vector<double>{0, 1, 1, 1});
  CHECK(r.recall_of(2) == 1);
  CHECK_THROWS_AS(r.recall_of(3), ConfigError);
  CHECK(r.mAP == Approx((1. / 2 + 2. / 3 + 3. / 5) / 3));
  CHECK(r.r_precision == Approx(2. / 3));
  CHECK(r.map_at_r == Approx((1. / 2 + 2. / 3) / 3));
  CHECK(r.mINP == Approx(3. / 5));
  CHECK(r.per_query[0].first_rank == 2);
  CHECK(r.per_query[0].last_rank == 5);
  CHECK((r.pairs == 5 && r.positive_pairs == 3));
  std::ostringstream line;
  line << r;
  CHECK(line.str() ==
        "recall@1 0.00000, recall@2 1.00000, recall@4 1.00000, recall@8 1.00000, mAP 0.58889, "
        "R-Precision 0.66667, MAP@R 0.38889, mINP 0.60000 (1 queries, 0 without positives)");
}

TEST_CASE("retrieval: a perfect ranking is 1 in every metric") {
  const auto r = evaluate_scores({.9f, .8f, .1f}, {1, 1, 0});
  for (const double value : {r.recall[0], r.mAP, r.r_precision, r.map_at_r, r.mINP})
    CHECK(value == 1);
}

TEST_CASE("retrieval: of equal similarities the lower index comes first") {
  CHECK(evaluate_scores({.5f, .5f, .5f}, {1, 0, 0}).per_query[0].first_rank == 1);
  CHECK(evaluate_scores({.5f, .5f, .5f}, {0, 0, 1}).per_query[0].first_rank == 3);
  CHECK(evaluate_scores({0.f, -0.f, 0.f}, {0, 1, 0}).per_query[0].first_rank == 2);
}

TEST_CASE("retrieval: equals the definitions on data full of ties and duplicates") {
  const bool cameras = GENERATE(false, true), normalize = GENERATE(false, true);
  const Data query = tied_data(150, 40, 1), gallery = tied_data(331, 50, 2);
  const RetrievalOptions options{.recall_at = {1, 3, 10, 1000}, .normalize = normalize};
  const auto q = query.set(cameras, false), g = gallery.set(cameras, false);
  const RetrievalResult result = evaluate_retrieval(q, g, options);
  check_same(result, naive_result(q, g, options), 1e-12);
  CHECK(result.recall[3] == 1);
  CHECK(result.mAP < 0.9);
}

TEST_CASE("retrieval: the query's own image is excluded by its id, not by rank or value") {
  const bool cameras = GENERATE(false, true);
  const Data data = tied_data(300, 60, 3);  // every third image has an identical twin
  const auto set = data.set(cameras, true);
  const RetrievalResult result = evaluate_retrieval(set, set);
  check_same(result, naive_result(set, set, {}), 1e-12);
  const auto without = data.set(cameras, false);
  // An image shares label and camera with itself, so by camera it would be excluded as well.
  const std::int64_t more = evaluate_retrieval(without, without).pairs - result.pairs;
  CHECK(more == (cameras ? 0 : 300));

  // Two identical images of different labels: dropping the first rank would leave the image itself.
  const std::vector<float> twins{1, 0, 1, 0, 0, 1};
  const Integers labels{7, 8, 8}, ids{1, 2, 3};
  const FeatureSet small{.features = {twins.data(), {3, 2}}, .labels = labels, .ids = ids};
  const RetrievalResult r = evaluate_retrieval(small, small);
  CHECK(r.pairs == 6);
  CHECK(r.queries_without_positives == 1);
  CHECK(r.per_query[1].first_rank == 2);
}

TEST_CASE("retrieval: excluded items leave the ranking, they do not keep a place in it") {
  const std::vector<float> query{1}, gallery{-.1f, -.2f, -.3f};
  const Integers one{1}, labels{1, 1, 0}, camera{0}, cameras{0, 1, 1};
  const RetrievalResult r = evaluate_retrieval(
      {.features = {query.data(), {1, 1}}, .labels = one, .cameras = camera},
      {.features = {gallery.data(), {3, 1}}, .labels = labels, .cameras = cameras},
      {.normalize = false});
  CHECK(r.per_query[0].first_rank == 1);  // with the score 0 for the excluded item it would be 2
  CHECK(r.pairs == 2);
}

TEST_CASE("retrieval: random features, several blocks, any number of threads") {
  constexpr std::int64_t columns = 70, queries = 157, items = 601;
  Data query{columns, random_values<float>(queries * columns, 1), {}, {}, {}};
  Data gallery{columns, random_values<float>(items * columns, 2), {}, {}, {}};
  for (std::int64_t i = 0; i < queries; ++i) query.labels.push_back(i % 71);
  for (std::int64_t i = 0; i < items; ++i) gallery.labels.push_back(i % 67);
  const auto q = query.set(false, false), g = gallery.set(false, false);

  std::vector<std::int64_t> progress;
  RetrievalOptions options{.threads = 1, .block_bytes = 40 * items * 4};
  options.progress = [&](std::int64_t done, std::int64_t of) {
    CHECK(of == queries);
    progress.push_back(done);
  };
  const RetrievalResult one = evaluate_retrieval(q, g, options);
  CHECK(progress == Integers{40, 80, 120, 157});
  CHECK(one.queries_without_positives == 8);  // labels 67 to 70
  check_same(one, naive_result(q, g, options), 1e-4);

  options.progress = nullptr;
  options.threads = 2;
  const RetrievalResult two = evaluate_retrieval(q, g, options);
  check_same(one, two, 0);
  for (std::size_t i = 0; i < one.per_query.size(); ++i) {
    CHECK(one.per_query[i].average_precision == two.per_query[i].average_precision);
    CHECK(one.per_query[i].first_rank == two.per_query[i].first_rank);
  }
}

TEST_CASE("retrieval: identical gallery items tie wherever they stand") {
  // 601 copies of one row: their similarities must be equal to the last bit, also at the edges of
  // the tiles of the matrix product, or they would not be ranked by index.
  constexpr std::int64_t columns = 70, items = 601;
  const auto row = random_values<float>(columns, 1), q = random_values<float>(37 * columns, 2);
  std::vector<float> gallery;
  for (std::int64_t i = 0; i < items; ++i) gallery.insert(gallery.end(), row.begin(), row.end());
  const TopK top = top_k({.features = view(q, {37, columns})},
                         {.features = view(gallery, {items, columns})}, items);
  for (std::size_t i = 0; i < top.indices.size(); ++i)
    REQUIRE(top.indices[i] == static_cast<std::int64_t>(i) % items);
}

TEST_CASE("retrieval: both ways to rank many positives agree") {
  const std::int64_t n = GENERATE(1, 3, 64, 1000);
  RandomSequence random({3, static_cast<std::uint64_t>(n), 0});
  std::vector<float> scores(static_cast<std::size_t>(n));
  for (float& s : scores)
    s = random.below(10) == 0 ? eval::detail::excluded : static_cast<float>(random.below(40));
  Integers positives, counted, binned;
  for (std::int64_t i = 0; i < n; ++i)
    if (scores[static_cast<std::size_t>(i)] != eval::detail::excluded && random.below(3) == 0)
      positives.push_back(i);
  eval::detail::rank_by_counting(scores.data(), n, positives, counted);
  eval::detail::rank_by_binning(scores.data(), n, positives, binned);
  CHECK(counted == binned);

  Integers order(scores.size()), expected;
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  std::sort(positives.begin(), positives.end());
  for (std::size_t i = 0; i < order.size(); ++i)
    if (std::binary_search(positives.begin(), positives.end(), order[i]))
      expected.push_back(static_cast<std::int64_t>(i) + 1);
  CHECK(counted == expected);
}

TEST_CASE("retrieval: counting is exact beyond what one float can count") {
  const std::vector<float> scores(static_cast<std::size_t>((1 << 22) * 5 + 3), 1.f);
  const auto n = static_cast<std::int64_t>(scores.size());
  CHECK(eval::detail::count_above<true>(scores.data(), n, 1.f) == n);
  CHECK(eval::detail::count_above<false>(scores.data(), n, 1.f) == 0);
}

TEST_CASE("retrieval: more positives than are counted one by one") {
  const Data query = tied_data(5, 2, 1), gallery = tied_data(4000, 2, 2);
  const auto q = query.set(false, false), g = gallery.set(false, false);
  const RetrievalResult result = evaluate_retrieval(q, g);
  REQUIRE(result.per_query[0].positives >
          static_cast<std::int64_t>(eval::detail::most_positives_to_count));
  check_same(result, naive_result(q, g, {}), 1e-12);
}

TEST_CASE("top_k: the beginning of the full ranking, with the same ties and exclusions") {
  const bool cameras = GENERATE(false, true), ids = GENERATE(false, true);
  const std::int64_t k = GENERATE(1, 5, 200);
  const Data data = tied_data(200, 20, 4);
  const auto set = data.set(cameras, ids);
  const TopK top = top_k(set, set, k, {.block_bytes = 1});
  CHECK(top.k == k);
  for (std::int64_t q = 0; q < 200; ++q) {
    const Integers ranking = naive_ranking(set, set, q, true);
    for (std::int64_t i = 0; i < k; ++i) {
      const auto at = static_cast<std::size_t>(q * k + i);
      const bool left = i < static_cast<std::int64_t>(ranking.size());
      REQUIRE(top.indices[at] == (left ? ranking[static_cast<std::size_t>(i)] : -1));
      if (!left) {
        REQUIRE(top.scores[at] == -std::numeric_limits<float>::infinity());
        continue;
      }
      const auto x = data.features.begin() + q * 16;
      const double dot =
          std::inner_product(x, x + 16, data.features.begin() + top.indices[at] * 16, 0.0);
      REQUIRE(top.scores[at] == static_cast<float>(dot / 16));
    }
  }
}

TEST_CASE("retrieval: a zero vector has similarity 0 to everything") {
  const std::vector<float> query{1, 0}, gallery{0, 0, -1, 0};
  const TopK top =
      top_k({.features = {query.data(), {1, 2}}}, {.features = {gallery.data(), {2, 2}}}, 2);
  CHECK(top.indices == Integers{0, 1});
  CHECK(top.scores == std::vector<float>{0, -1});
}

TEST_CASE("retrieval: memory stays below 1 GiB at the size of Stanford Online Products") {
  const Shape sop{60502, 512};
  const std::size_t features = 60502u * 512u * sizeof(float), gigabyte = std::size_t{1} << 30;
  CHECK(retrieval_scratch_bytes(sop, sop) + features < gigabyte);
  CHECK(retrieval_scratch_bytes(sop, sop, {.block_bytes = 1 << 20}) <
        retrieval_scratch_bytes(sop, sop));
  // Ten times the gallery takes ten times the copy of it, not a hundred times the similarities.
  CHECK(retrieval_scratch_bytes({605020, 128}, {605020, 128}) < gigabyte);
  CHECK(retrieval_scratch_bytes(sop, sop, {.normalize = false}) <=
        retrieval_scratch_bytes(sop, sop));
}

TEST_CASE("retrieval: what cannot be compared is one clear error") {
  const Data good = tied_data(6, 2, 1);
  const auto g = good.set(true, true);
  const auto fails = [&](const FeatureSet& query, const FeatureSet& gallery,
                         const std::string& reason) {
    CHECK_THROWS_WITH(evaluate_retrieval(query, gallery), ContainsSubstring(reason));
  };
  FeatureSet bad = g;
  bad.features.shape = {12, 8};
  fails(bad, g, "query labels: expected 12, got 6");
  bad.features.shape = {6, 8};
  fails(bad, g, "query features [6, 8] and gallery features [6, 16] have different lengths");
  bad.features.shape = {96};
  fails(g, bad, "gallery features: expected [N, D], got [96]");
  bad.features.shape = {0, 16};
  fails(g, bad, "gallery features are empty: [0, 16]");
  bad = g;
  bad.labels = {};
  bad.cameras = {};
  fails(bad, good.set(false, true), "need the labels");
  fails(good.set(true, true), good.set(false, true), "for query and gallery or for neither");
  fails(good.set(true, true), good.set(true, false), "for query and gallery or for neither");
  const Integers strangers(6, 99);
  bad = g;
  bad.labels = strangers;
  fails(bad, g, "no query has a relevant gallery item");
  CHECK_THROWS_AS(evaluate_retrieval(g, g, {.recall_at = {0}}), ConfigError);
  for (const std::int64_t k : {0, 7})
    CHECK_THROWS_WITH(top_k(g, g, k),
                      ContainsSubstring("k from 1 to 6 (the gallery), got " + std::to_string(k)));
}

TEST_CASE("retrieval: features that are not finite are named by row") {
  const Data good = tied_data(6, 2, 1);
  Data bad = good;
  bad.features[16 * 3 + 2] =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  const auto g = good.set(false, false), b = bad.set(false, false);
  CHECK_THROWS_AS(evaluate_retrieval(b, g), NumericError);
  CHECK_THROWS_WITH(evaluate_retrieval(b, g), ContainsSubstring("row 3 of the query features"));
  CHECK_THROWS_WITH(top_k(g, b, 1), ContainsSubstring("row 3 of the gallery features"));
}

TEST_CASE("retrieval: dot products that overflow are refused, cosines of huge features are not") {
  const std::vector<float> huge{3e38f, -3e38f, 3e38f, 3e38f};
  const FeatureSet set{.features = view(huge, {2, 2})};
  CHECK_THROWS_AS(top_k(set, set, 1, {.normalize = false}), NumericError);
  CHECK(top_k(set, set, 1).scores[0] == Approx(1));
}
