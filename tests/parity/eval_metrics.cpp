// Verification, clustering, accuracy, re-ranking and query expansion against scikit-learn and the
// published code.

#include <numeric>

#include <kindred/eval/classification.hpp>
#include <kindred/eval/clustering.hpp>
#include <kindred/eval/re_ranking.hpp>
#include <kindred/eval/verification.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

Fixture fixture() { return Fixture("eval_metrics", "scikit-learn"); }

std::vector<bool> flags(const Fixture& f) {
  std::vector<bool> out;
  for (const std::int64_t v : f.labels("in.genuine")) out.push_back(v != 0);
  return out;
}

}  // namespace

TEST_CASE("parity: ROC curve, its area and TAR at FAR, with ties") {
  const Fixture f = fixture().at("verification");
  const auto roc = eval::roc_curve({f.stored<float>("in.scores"), flags(f)});
  CHECK(relative_difference(roc.far, f.stored<double>("out.far")) < 1e-12);
  CHECK(relative_difference(roc.tar, f.stored<double>("out.tar")) < 1e-12);
  const std::vector<double> thresholds(roc.thresholds.begin() + 1, roc.thresholds.end());
  CHECK(relative_difference(thresholds, f.stored<double>("out.thresholds")) < 1e-12);
  CHECK(relative_difference(roc.auc, f.number("out.auc")) < 1e-12);
  const auto limits = f.stored<double>("in.limits"), wanted = f.stored<double>("out.tar_at_far");
  for (std::size_t i = 0; i < limits.size(); ++i) {
    const auto point = eval::tar_at_far(roc, limits[i]);
    CHECK(point.tar == Approx(wanted[i]).epsilon(1e-12));
    CHECK(point.fnmr() == Approx(1 - wanted[i]).epsilon(1e-12));
  }
}

TEST_CASE("parity: accuracy over ten folds") {
  const Fixture f = fixture().at("fold_accuracy");
  const auto r = eval::fold_accuracy(f.stored<float>("in.distances"), flags(f));
  CHECK(relative_difference(r.accuracy, f.stored<double>("out.accuracy")) < 1e-12);
  CHECK(relative_difference(r.thresholds, f.stored<double>("out.thresholds")) < 1e-12);
  CHECK(relative_difference(r.mean, f.number("out.mean")) < 1e-12);
  CHECK(relative_difference(r.deviation, f.number("out.deviation")) < 1e-12);
}

TEST_CASE("parity: NMI and AMI") {
  std::size_t count = 0;
  for (const std::string& name : fixture().cases()) {
    if (!name.starts_with("clustering.")) continue;
    ++count;
    INFO(name);
    const Fixture f = fixture().at(name);
    const auto s = eval::clustering_scores(f.labels("in.labels"), f.labels("in.assignments"));
    CHECK(s.nmi == Approx(f.number("out.nmi")).epsilon(1e-10).margin(1e-12));
    CHECK(s.ami == Approx(f.number("out.ami")).epsilon(1e-9).margin(1e-12));
  }
  CHECK(count == 5);
}

TEST_CASE("parity: Lloyd's k-means from given centres") {
  const Fixture f = fixture().at("k_means");
  const auto x = f.stored<float>("in.features"), centers = f.stored<float>("in.centers");
  const auto r = eval::k_means(view(x, f.shape("in.features")), {.clusters = 6},
                               view(centers, f.shape("in.centers")));
  CHECK(r.converged);
  CHECK(r.assignments == f.labels("out.assignments"));
  CHECK(relative_difference(r.centers, f.stored<double>("out.centers")) < 1e-6);
  CHECK(relative_difference(r.inertia, f.number("out.inertia")) < 1e-6);
}

TEST_CASE("parity: top-k accuracy") {
  const Fixture f = fixture().at("topk_accuracy");
  const auto logits = f.stored<float>("in.logits");
  const auto r =
      eval::topk_accuracy(view(logits, f.shape("in.logits")), f.labels("in.labels"), {1, 3, 5, 8});
  CHECK(relative_difference(r.accuracy, f.stored<double>("out.accuracy")) < 1e-12);
}

TEST_CASE("parity: k-reciprocal distances") {
  std::size_t count = 0;
  for (const std::string& name : fixture().cases()) {
    if (!name.starts_with("re_ranking.")) continue;
    ++count;
    INFO(name);
    const Fixture f = fixture().at(name);
    const auto query = f.stored<float>("in.query"), gallery = f.stored<float>("in.gallery");
    const Shape shape = f.shape("out.distances");
    const auto top =
        eval::re_ranked_top_k({.features = view(query, f.shape("in.query"))},
                              {.features = view(gallery, f.shape("in.gallery"))}, shape[1],
                              {.k1 = static_cast<std::int64_t>(f.attribute("k1")),
                               .k2 = static_cast<std::int64_t>(f.attribute("k2")),
                               .lambda = f.attribute("lambda_")});
    std::vector<double> distances(top.scores.size());
    for (std::size_t i = 0; i < distances.size(); ++i) {
      const std::size_t row =
          i / static_cast<std::size_t>(shape[1]) * static_cast<std::size_t>(shape[1]);
      distances[row + static_cast<std::size_t>(top.indices[i])] = -double(top.scores[i]);
    }
    CHECK(relative_difference(distances, f.stored<double>("out.distances")) < 1e-5);
  }
  CHECK(count == 3);
}

TEST_CASE("parity: alpha query expansion of a set from itself") {
  std::size_t count = 0;
  for (const std::string& name : fixture().cases()) {
    if (!name.starts_with("query_expansion.")) continue;
    ++count;
    INFO(name);
    const Fixture f = fixture().at(name);
    const auto x = f.stored<float>("in.features");
    std::vector<std::int64_t> ids(static_cast<std::size_t>(f.shape("in.features")[0]));
    std::iota(ids.begin(), ids.end(), std::int64_t{0});
    const eval::FeatureSet set{.features = view(x, f.shape("in.features")), .ids = ids};
    const auto k = static_cast<std::int64_t>(f.attribute("k"));
    const auto y = eval::alpha_query_expansion(set, set, k - 1, f.attribute("alpha"));
    CHECK(relative_difference(y, f.stored<double>("out.features")) < 1e-5);
  }
  CHECK(count == 2);
}
