#include <kindred/eval/hamming.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::eval;
using namespace kindred::test;
using Integers = std::vector<std::int64_t>;
using Bytes = std::vector<std::uint8_t>;

namespace {

struct Codes {
  std::int64_t bytes;
  Bytes codes;
  Integers labels, cameras, ids;

  CodeSet set(bool with_cameras, bool with_ids) const {
    CodeSet s{.codes = {codes.data(), {static_cast<std::int64_t>(labels.size()), bytes}},
              .labels = labels};
    if (with_cameras) s.cameras = cameras;
    if (with_ids) s.ids = ids;
    return s;
  }
};

/// Codes of which only `bits` bits differ, so that most distances are equal.
Codes tied_codes(std::int64_t n, std::int64_t bytes, int bits, std::uint64_t stream) {
  RandomSequence random({3, stream, 0});
  Codes c{bytes, {}, {}, {}, {}};
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t b = 0; b < bytes; ++b)
      c.codes.push_back(b == 0 ? static_cast<std::uint8_t>(random.below(std::uint64_t{1} << bits))
                               : std::uint8_t{0x5A});
    c.labels.push_back(static_cast<std::int64_t>(random.below(4)));
    c.cameras.push_back(static_cast<std::int64_t>(random.below(2)));
    c.ids.push_back(100 + i);
  }
  return c;
}

std::int64_t naive_distance(const std::uint8_t* a, const std::uint8_t* b, std::int64_t bytes) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < 8 * bytes; ++i)
    sum += ((a[i / 8] >> (i % 8)) & 1) != ((b[i / 8] >> (i % 8)) & 1);
  return sum;
}

/// (distance, index) of all that is not excluded, in order.
std::vector<std::pair<std::int64_t, std::int64_t>> naive_ranking(const CodeSet& query,
                                                                 const CodeSet& gallery,
                                                                 std::int64_t q) {
  std::vector<std::pair<std::int64_t, std::int64_t>> order;
  const auto i = static_cast<std::size_t>(q);
  for (std::int64_t g = 0; g < gallery.codes.dim(0); ++g) {
    const auto j = static_cast<std::size_t>(g);
    if (!query.ids.empty() && query.ids[i] == gallery.ids[j]) continue;
    if (!query.cameras.empty() && query.labels[i] == gallery.labels[j] &&
        query.cameras[i] == gallery.cameras[j])
      continue;
    order.emplace_back(naive_distance(query.codes.row(q), gallery.codes.row(g), query.codes.dim(1)),
                       g);
  }
  std::sort(order.begin(), order.end());
  return order;
}

/// Average precision, recall@k and precision@k of one query, each the mean over every order of the
/// items that agrees with the distances.
struct Expected {
  double ap = 0;
  std::map<std::int64_t, double> recall, precision;
};
Expected over_all_orders(const Integers& distances, const std::vector<bool>& relevant,
                         const Integers& ranks) {
  Integers order(distances.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  Expected e;
  double count = 0;
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  do {
    bool sorted = true;
    for (std::size_t i = 1; i < order.size(); ++i)
      sorted &= distances[at(order[i - 1])] <= distances[at(order[i])];
    if (!sorted) continue;
    ++count;
    double hits = 0, ap = 0;
    std::int64_t first = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      if (!relevant[at(order[i])]) continue;
      if (first == 0) first = static_cast<std::int64_t>(i) + 1;
      ap += ++hits / static_cast<double>(i + 1);
      for (const std::int64_t k : ranks)
        if (static_cast<std::int64_t>(i) < k) e.precision[k] += 1 / static_cast<double>(k);
    }
    e.ap += ap / hits;
    for (const std::int64_t k : ranks) e.recall[k] += first <= k;
  } while (std::next_permutation(order.begin(), order.end()));
  e.ap /= count;
  for (auto* values : {&e.recall, &e.precision})
    for (auto& [k, value] : *values) value /= count;
  return e;
}

}  // namespace

TEST_CASE("codes: column 0 is the highest bit, and zero is no one") {
  constexpr float tiny = std::numeric_limits<float>::denorm_min();
  const std::vector<float> x{1, -1, 0, tiny, .4f, .5f, -0.f, 2, -3, 7};
  const View<const float> v = view(x, {1, 10});
  CHECK(pack_codes(v) == Bytes{0b10011101, 0b01000000});
  CHECK(pack_codes(v, Binarize::round) == Bytes{0b10000101, 0b01000000});
  CHECK(binarize(v) == std::vector<float>{1, -1, 0, 1, 1, 1, 0, 1, -1, 1});
  CHECK(binarize(v, Binarize::round) == std::vector<float>{1, -3, -1, -1, -1, 1, -1, 3, -7, 13});
}

TEST_CASE("codes: the distance is the number of different bits, for every length") {
  RandomSequence random({4, 4, 4});
  for (std::int64_t bytes = 1; bytes <= 130; bytes += bytes < 40 ? 1 : 15) {
    constexpr std::int64_t n = 37;
    Bytes codes(static_cast<std::size_t>((n + 1) * bytes));
    for (auto& b : codes) b = static_cast<std::uint8_t>(random.below(256));
    std::vector<std::uint16_t> distances(n);
    eval::detail::hamming_distances(codes.data(), codes.data() + bytes, bytes, n, distances.data());
    for (std::int64_t j = 0; j < n; ++j) {
      const std::uint8_t* other = codes.data() + (j + 1) * bytes;
      const std::int64_t wanted = naive_distance(codes.data(), other, bytes);
      REQUIRE(distances[static_cast<std::size_t>(j)] == wanted);
      REQUIRE(hamming_distance({codes.data(), {bytes}}, {other, {bytes}}) == wanted);
    }
  }
}

TEST_CASE("hamming: the search equals a full sort, with ties, exclusions and any threads") {
  const bool cameras = GENERATE(false, true), ids = GENERATE(false, true);
  const Codes data = tied_codes(150, 3, 5, 1);
  const CodeSet set = data.set(cameras, ids);
  for (const std::int64_t k : {1, 10, 150}) {
    const HammingTopK top = hamming_top_k(set, set, k, 1), again = hamming_top_k(set, set, k, 3);
    CHECK(top.indices == again.indices);
    CHECK(top.distances == again.distances);
    for (std::int64_t q = 0; q < 150; ++q) {
      const auto order = naive_ranking(set, set, q);
      for (std::size_t i = 0; i < static_cast<std::size_t>(k); ++i) {
        const std::size_t at = static_cast<std::size_t>(q * k) + i;
        const bool left = i < order.size();
        REQUIRE(top.distances[at] == (left ? order[i].first : -1));
        REQUIRE(top.indices[at] == (left ? order[i].second : -1));
      }
    }
  }
}

TEST_CASE("hamming: a gallery of several segments and more queries than one tile") {
  const Codes gallery = tied_codes(600000, 1, 8, 2), query = tied_codes(19, 1, 8, 3);
  const CodeSet q = query.set(false, false), g = gallery.set(false, false);
  const HammingTopK top = hamming_top_k(q, g, 5000, 2);
  for (std::int64_t i = 0; i < 19; i += 6) {
    const auto order = naive_ranking(q, g, i);
    bool same = true;
    for (std::size_t j = 0; j < 5000; ++j)
      same &= top.indices[static_cast<std::size_t>(i * 5000) + j] == order[j].second &&
              top.distances[static_cast<std::size_t>(i * 5000) + j] == order[j].first;
    CHECK(same);
  }
}

TEST_CASE("hamming: metrics are the mean over all orders of equal distances") {
  const Integers ranks{1, 2, 3, 5, 20};
  for (std::uint64_t stream = 1; stream <= 6; ++stream) {
    const Codes query = tied_codes(3, 2, 2, stream), gallery = tied_codes(7, 2, 2, 50 + stream);
    const CodeSet q = query.set(false, false), g = gallery.set(false, false);
    const HammingResult result =
        evaluate_hamming(q, g, {.recall_at = ranks, .precision_at = ranks});
    Expected mean;
    double counted = 0;
    for (std::int64_t i = 0; i < 3; ++i) {
      Integers distances;
      std::vector<bool> relevant;
      for (std::int64_t j = 0; j < 7; ++j) {
        distances.push_back(naive_distance(q.codes.row(i), g.codes.row(j), 2));
        relevant.push_back(gallery.labels[static_cast<std::size_t>(j)] ==
                           query.labels[static_cast<std::size_t>(i)]);
      }
      if (std::count(relevant.begin(), relevant.end(), true) == 0) {
        CHECK(result.average_precisions[static_cast<std::size_t>(i)] == 0);
        continue;
      }
      ++counted;
      const Expected one = over_all_orders(distances, relevant, ranks);
      CHECK(result.average_precisions[static_cast<std::size_t>(i)] ==
            Approx(one.ap).epsilon(1e-12));
      mean.ap += one.ap;
      for (const auto& [k, value] : one.recall) mean.recall[k] += value;
      for (const auto& [k, value] : one.precision) mean.precision[k] += value;
    }
    CHECK(result.mAP == Approx(mean.ap / counted).epsilon(1e-12));
    CHECK(static_cast<double>(result.queries - result.queries_without_positives) == counted);
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      CHECK(result.recall[i] == Approx(mean.recall[ranks[i]] / counted).epsilon(1e-12));
      CHECK(result.precision[i] == Approx(mean.precision[ranks[i]] / counted).epsilon(1e-12));
    }
  }
}

TEST_CASE("hamming: precision and recall in a radius, by hand") {
  // Distances of the one query: 0, 1, 1, 3; relevant are the second and the last.
  const Bytes query{0}, gallery{0, 1, 2, 7};
  const Integers one{5}, labels{1, 5, 1, 5};
  const CodeSet q{.codes = {query.data(), {1, 1}}, .labels = one};
  const CodeSet g{.codes = {gallery.data(), {4, 1}}, .labels = labels};
  const HammingResult r = evaluate_hamming(q, g);
  CHECK(r.radius == 2);
  CHECK(r.precision_in_radius == Approx(1. / 3));
  CHECK(r.recall_in_radius == Approx(.5));
  CHECK(r.precision_curve.size() == 9);
  CHECK(r.precision_curve[0] == 0);
  CHECK(r.precision_curve[8] == Approx(.5));
  CHECK(r.recall_curve[8] == 1);
  CHECK(r.mAP == Approx(((1. / 2 + 1. / 3) / 2 + 2. / 4) / 2));  // rank 2 or 3, then rank 4
  std::ostringstream line;
  line << r;
  CHECK(line.str() ==
        "recall@1 0.00000, recall@2 0.50000, recall@4 1.00000, recall@8 1.00000, mAP 0.45833, in "
        "radius 2: precision 0.33333, recall 0.50000 (1 queries, 0 without positives, 0 with "
        "nothing in the radius)");

  const Bytes far{0xFF};
  const HammingResult none = evaluate_hamming({.codes = {far.data(), {1, 1}}, .labels = one}, g);
  CHECK(none.empty_balls == 1);
  CHECK(none.precision_in_radius == 0);
  CHECK(none.recall_in_radius == 0);
}

TEST_CASE("hamming: exclusions leave the ranking; the bits do not depend on the threads") {
  const bool cameras = GENERATE(false, true);
  const Codes data = tied_codes(700, 2, 8, 9);
  const CodeSet set = data.set(cameras, true);
  const HammingResult one = evaluate_hamming(set, set, {.threads = 1}),
                      three = evaluate_hamming(set, set, {.threads = 3});
  CHECK(one.mAP == three.mAP);
  CHECK(one.recall == three.recall);
  CHECK(one.precision_curve == three.precision_curve);
  CHECK(one.average_precisions == three.average_precisions);

  double precision = 0, recall = 0, counted = 0;
  for (std::int64_t q = 0; q < 700; ++q) {
    double within = 0, hits = 0, positives = 0;
    for (const auto& [distance, g] : naive_ranking(set, set, q)) {
      const bool same =
          data.labels[static_cast<std::size_t>(g)] == data.labels[static_cast<std::size_t>(q)];
      positives += same;
      if (distance <= 2) ++within, hits += same;
    }
    if (positives == 0) continue;
    ++counted;
    precision += within > 0 ? hits / within : 0;
    recall += hits / positives;
  }
  CHECK(one.precision_in_radius == Approx(precision / counted).epsilon(1e-12));
  CHECK(one.recall_in_radius == Approx(recall / counted).epsilon(1e-12));
}

TEST_CASE("hamming: what cannot be compared is one clear error") {
  const Codes data = tied_codes(6, 2, 8, 1);
  const CodeSet good = data.set(false, false);
  const auto fails = [&](const CodeSet& q, const CodeSet& g, const std::string& reason) {
    CHECK_THROWS_WITH(evaluate_hamming(q, g), ContainsSubstring(reason));
  };
  CodeSet bad = good;
  bad.codes.shape = {12, 1};
  fails(bad, good, "query codes [12, 1] and gallery codes [6, 2] have different lengths");
  bad.codes.shape = {5, 2};
  fails(good, bad, "gallery labels: expected 5, got 6");
  bad.codes.shape = {0, 2};
  fails(bad, good, "query codes: expected [N, bytes], got [0, 2]");
  bad.codes.shape = {1, 8192};
  fails(bad, bad, "at most 8191");
  bad = good;
  bad.labels = {};
  fails(bad, good, "need the labels");
  const Integers strangers(6, 99);
  bad.labels = strangers;
  fails(bad, good, "no query has a relevant gallery item");
  CHECK_THROWS_WITH(evaluate_hamming(good, good, {.radius = 17}),
                    ContainsSubstring("a radius from 0 to 16 (the bits), got 17"));
  CHECK_THROWS_AS(evaluate_hamming(good, good, {.precision_at = {0}}), ConfigError);
  for (const std::int64_t k : {0, 7})
    CHECK_THROWS_WITH(hamming_top_k(good, good, k),
                      ContainsSubstring("k from 1 to 6 (the gallery), got " + std::to_string(k)));
  std::vector<float> x(6, 1.f);
  x[4] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(pack_codes(view(std::as_const(x), {3, 2})),
                    ContainsSubstring("row 2 is not finite"));
  CHECK_THROWS_AS(binarize(view(std::as_const(x), {6})), ShapeError);
}
