// Retrieval metrics against PaddleClas.

#include <kindred/eval/retrieval.hpp>
#include <kindred/kernels/cpu/gemm.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("parity: recall, mAP and mINP without exclusions") {
  const Fixture fixture("retrieval_metrics");
  REQUIRE(fixture.cases().size() == 3);
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const auto similarity = one.stored<float>("in.similarity");
    const Shape shape = one.shape("in.similarity");
    REQUIRE(relative_difference(similarity, one.stored<double>("in.similarity")) == 0);
    // Dot products with the unit vectors are the given similarities, exactly.
    std::vector<float> units(static_cast<std::size_t>(shape[1] * shape[1]));
    for (std::int64_t i = 0; i < shape[1]; ++i)
      units[static_cast<std::size_t>(i * (shape[1] + 1))] = 1;
    const auto query = one.labels("in.query_label"), gallery = one.labels("in.gallery_label");
    const eval::RetrievalResult r =
        eval::evaluate_retrieval({.features = view(similarity, shape), .labels = query},
                                 {.features = view(units, {shape[1], shape[1]}), .labels = gallery},
                                 {.recall_at = {1, 2, 4, 8}, .normalize = false, .threads = 2});

    CHECK(r.queries == shape[0]);
    CHECK(double(r.queries_without_positives) == one.attribute("queries_without_relevant"));
    constexpr double limit = 1e-6;  // PaddleClas accumulates in single precision
    for (const std::int64_t k : {1, 2, 4, 8})
      CHECK(relative_difference(r.recall_of(k), one.number("out.recall" + std::to_string(k))) <
            limit);
    CHECK(relative_difference(r.mAP, one.number("out.mAP")) < limit);
    CHECK(relative_difference(r.mINP, one.number("out.mINP_by_rank")) < 1e-12);

    // The reference divides by the index of the last hit counted from 0.
    double quirk = 0;
    for (const eval::QueryResult& q : r.per_query)
      if (q.positives > 0) quirk += double(q.positives) / double(q.last_rank - 1);
    quirk /= double(r.queries - r.queries_without_positives);
    CHECK(relative_difference(quirk, one.number("out.quirk_mINP")) < limit);
    CHECK(r.mINP < one.number("out.quirk_mINP"));
  }
}
