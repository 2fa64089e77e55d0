// The numbers are in tests/parity/eval_metrics.cpp; here what holds for any.

#include <kindred/eval/re_ranking.hpp>

#include <limits>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::eval;
using namespace kindred::test;
using Integers = std::vector<std::int64_t>;

namespace {

struct Data {
  std::int64_t rows, columns = 8;
  std::vector<float> features;
  Integers labels, cameras, ids;

  Data(std::int64_t n, std::uint64_t stream) : rows(n) {
    const auto centers = random_values<float>(10 * columns, 1);
    features = random_values<float>(n * columns, stream, 0.8);
    for (std::int64_t i = 0; i < n; ++i) {
      labels.push_back(i % 10);
      cameras.push_back(i / 10 % 3);
      ids.push_back(i);
      for (std::int64_t c = 0; c < columns; ++c)
        features[static_cast<std::size_t>(i * columns + c)] +=
            centers[static_cast<std::size_t>(i % 10 * columns + c)];
    }
  }
  FeatureSet set(bool with_ids = false, bool with_cameras = false) const {
    FeatureSet s{.features = {features.data(), {rows, columns}}, .labels = labels};
    if (with_ids) s.ids = ids;
    if (with_cameras) s.cameras = cameras;
    return s;
  }
};

}  // namespace

TEST_CASE("re-ranking: lambda 1 is the ranking by cosine") {
  const Data query(23, 2), gallery(200, 3);
  const TopK plain = top_k(query.set(), gallery.set(), 50),
             ranked = re_ranked_top_k(query.set(), gallery.set(), 50, {.lambda = 1});
  CHECK(plain.indices == ranked.indices);
  for (std::size_t i = 0; i < plain.scores.size(); ++i) REQUIRE(ranked.scores[i] <= 0);
}

TEST_CASE("re-ranking: better on clusters; exclusions hold; any threads and blocks, same bits") {
  const bool ids = GENERATE(false, true), cameras = GENERATE(false, true);
  const Data query(90, 2), gallery(200, 3);
  const auto q = ids ? gallery.set(true, cameras) : query.set(false, cameras);
  const auto g = gallery.set(ids, cameras);
  const RetrievalResult plain = evaluate_retrieval(q, g),
                        one = evaluate_re_ranked(q, g, {}, {.threads = 1}),
                        three = evaluate_re_ranked(q, g, {},
                                                   {.threads = 3, .block_bytes = 16 * 200 * 4});
  CHECK(one.mAP > plain.mAP);
  CHECK(one.pairs == plain.pairs);
  CHECK(one.mAP == three.mAP);
  CHECK(one.recall == three.recall);
  CHECK(one.mINP == three.mINP);
}

TEST_CASE("re-ranking: identical images and the smallest sets are defined") {
  const std::vector<float> same(40, 1.f);
  const Integers labels(20, 1);
  const FeatureSet set{.features = view(same, {20, 2}), .labels = labels};
  const TopK top = re_ranked_top_k(set, set, 3);
  for (std::size_t i = 0; i < top.indices.size(); ++i) {
    REQUIRE(top.indices[i] == static_cast<std::int64_t>(i % 3));
    REQUIRE(std::isfinite(top.scores[i]));
  }
  const std::vector<float> pair{1, 0, 0, 1};
  const FeatureSet a{.features = {pair.data(), {1, 2}}}, b{.features = {pair.data() + 2, {1, 2}}};
  CHECK(re_ranked_top_k(a, b, 1, {.k1 = 1, .k2 = 1}).indices == Integers{0});
}

TEST_CASE("re-ranking: bad settings are one clear error") {
  const Data d(12, 2);
  const auto fails = [&](const ReRanking& r, const std::string& reason) {
    CHECK_THROWS_WITH(evaluate_re_ranked(d.set(), d.set(), r), ContainsSubstring(reason));
  };
  fails({.k1 = 0}, "k1 from 1 to 23");
  fails({.k1 = 24}, "k1 from 1 to 23 (query and gallery without one), got 24");
  fails({.k1 = 4, .k2 = 6}, "k2 from 1 to 5 (k1 + 1), got 6");
  fails({.k2 = 0}, "k2 from 1");
  fails({.lambda = 1.5}, "lambda in [0, 1], got 1.5");
  CHECK_THROWS_WITH(evaluate_re_ranked(d.set(), d.set(), {}, {.normalize = false}),
                    ContainsSubstring("set normalize = true"));
  Data bad = d;
  bad.features[8 * 5] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(evaluate_re_ranked(d.set(), bad.set()),
                    ContainsSubstring("row 5 of the gallery features"));
  CHECK_THROWS_AS(re_ranked_top_k(d.set(), d.set(), 13), ConfigError);
}

TEST_CASE("query expansion: by hand, and better on clusters") {
  const std::vector<float> query{2, 0}, gallery{0, 5, 3, 3, -1, 0};
  const auto y = alpha_query_expansion({.features = view(query, {1, 2})},
                                       {.features = view(gallery, {3, 2})}, 3, 2);
  // (1, 0) + cos^2 45 deg (1, 1) / sqrt 2; the others have the cosines 0 and below.
  const double side = .5 * std::sqrt(.5), length = std::hypot(1 + side, side);
  CHECK(y[0] == Approx((1 + side) / length));
  CHECK(y[1] == Approx(side / length));

  const Data q(60, 2), g(200, 3);
  const auto one = alpha_query_expansion(q.set(), g.set(), 5, 3, {.threads = 1});
  CHECK(one == alpha_query_expansion(q.set(), g.set(), 5, 3, {.threads = 3}));
  const FeatureSet expanded{.features = view(one, {60, 8}), .labels = q.labels};
  CHECK(evaluate_retrieval(expanded, g.set()).mAP > evaluate_retrieval(q.set(), g.set()).mAP);
  CHECK_THROWS_AS(alpha_query_expansion(q.set(), g.set(), 5, -1), ConfigError);
  CHECK_THROWS_AS(alpha_query_expansion(q.set(), g.set(), 201), ConfigError);
  CHECK_THROWS_AS(alpha_query_expansion(q.set(), g.set(), 5, 3, {.normalize = false}), ConfigError);
}
