#include <kindred/eval/clustering.hpp>

#include <limits>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::eval;
using namespace kindred::test;
using Integers = std::vector<std::int64_t>;

namespace {

/// `classes` groups of `each` points, far from each other.
std::vector<float> groups(std::int64_t classes, std::int64_t each, std::int64_t columns,
                          double spread) {
  const auto centers = random_values<float>(classes * columns, 1, 10);
  auto x = random_values<float>(classes * each * columns, 2, spread);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t row = i / static_cast<std::size_t>(columns);
    x[i] += centers[row % static_cast<std::size_t>(classes) * static_cast<std::size_t>(columns) +
                    i % static_cast<std::size_t>(columns)];
  }
  return x;
}

}  // namespace

TEST_CASE("k-means: finds separate groups, the same bits for any number of threads") {
  constexpr std::int64_t classes = 7, each = 90, columns = 5;
  const auto x = groups(classes, each, columns, 1);
  const auto v = view(x, {classes * each, columns});
  KMeansOptions options{.clusters = classes, .seed = {3}, .threads = 1};
  const KMeansResult one = k_means(v, options);
  options.threads = 3;
  const KMeansResult three = k_means(v, options);
  CHECK(one.converged);
  CHECK(one.centers == three.centers);
  CHECK(one.assignments == three.assignments);
  CHECK(one.inertia == three.inertia);
  Integers labels;
  for (std::int64_t i = 0; i < classes * each; ++i) labels.push_back(i % classes);
  CHECK(clustering_scores(labels, one.assignments).nmi > .9);
  const FeatureSet set{.features = v, .labels = labels};
  CHECK(evaluate_clustering(set, {.seed = {3}}).ami ==
        clustering_scores(labels, one.assignments).ami);
  options.seed = {4};
  options.max_iterations = 1;
  const KMeansResult other = k_means(v, options);
  CHECK(other.iterations == 1);
  CHECK_FALSE(other.converged);
  CHECK(other.centers != one.centers);

  // What it ends with is what it says: the nearest centre of every row, and the sum of squares.
  double inertia = 0;
  for (std::int64_t i = 0; i < v.dim(0); ++i) {
    double best = std::numeric_limits<double>::infinity(), own = 0;
    for (std::int64_t k = 0; k < classes; ++k) {
      double d = 0;
      for (std::int64_t c = 0; c < columns; ++c)
        d += std::pow(double(v.row(i)[c]) - double(one.centers[std::size_t(k * columns + c)]), 2);
      best = std::min(best, d);
      if (k == one.assignments[std::size_t(i)]) own = d;
    }
    REQUIRE(own == Approx(best).epsilon(1e-4));
    inertia += own;
  }
  CHECK(one.inertia == Approx(inertia).epsilon(1e-9));
}

TEST_CASE("k-means: duplicates, one cluster, as many as rows, and a centre without rows") {
  const std::vector<float> same(12, 2.f);
  const KMeansResult r = k_means(view(same, {6, 2}), {.clusters = 3});
  CHECK(r.inertia == 0);
  const std::vector<float> x{0, 1, 2, 3, 10};
  const KMeansResult all = k_means(view(x, {5, 1}), {.clusters = 1});
  CHECK(all.centers[0] == Approx(3.2f));
  CHECK(k_means(view(x, {5, 1}), {.clusters = 5}).inertia == 0);
  // The second centre is nobody's nearest: it takes the row farthest from its centre, 10.
  const std::vector<float> centers{1, 1e6f};
  const KMeansResult moved = k_means(view(x, {5, 1}), {.clusters = 2}, view(centers, {2, 1}));
  CHECK(moved.assignments == Integers{0, 0, 0, 0, 1});
  CHECK(moved.centers == std::vector<float>{1.5f, 10});
}

TEST_CASE("clustering scores: the same partition under other names is 1, an empty one is chance") {
  const ClusteringScores same = clustering_scores(Integers{5, 5, 2, 2, 9}, Integers{0, 0, 7, 7, 1});
  CHECK(same.nmi == Approx(1));
  CHECK(same.ami == Approx(1));
  const ClusteringScores none = clustering_scores(Integers{0, 0, 1, 1}, Integers{3, 3, 3, 3});
  CHECK(none.nmi == Approx(0).margin(1e-15));
  CHECK(none.ami == Approx(0).margin(1e-15));
  CHECK(clustering_scores(Integers{4, 4, 4}, Integers{1, 1, 1}).nmi == 1);
  CHECK(clustering_scores(Integers{4, 5, 6}, Integers{1, 2, 3}).ami == 1);
}

TEST_CASE("clustering: bad input is one clear error") {
  std::vector<float> x(6, 1.f);
  const auto v = [&] { return view(std::as_const(x), {3, 2}); };
  for (const std::int64_t k : {0, 4})
    CHECK_THROWS_WITH(k_means(v(), {.clusters = k}),
                      ContainsSubstring("1 to 3 clusters (the features), got"));
  CHECK_THROWS_AS(k_means(v(), {.clusters = 2, .max_iterations = 0}), ConfigError);
  CHECK_THROWS_AS(k_means({x.data(), {0, 2}}, {.clusters = 1}), ShapeError);
  CHECK_THROWS_AS(k_means(v(), {.clusters = 2}, v()), ShapeError);
  CHECK_THROWS_AS(clustering_scores(Integers{1}, Integers{1, 2}), ShapeError);
  CHECK_THROWS_AS(clustering_scores(Integers{}, Integers{}), ShapeError);
  CHECK_THROWS_AS(evaluate_clustering({.features = v()}), ShapeError);
  x[5] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(k_means(v(), {.clusters = 2}),
                    ContainsSubstring("row 2 of the k_means features is not finite"));
}
