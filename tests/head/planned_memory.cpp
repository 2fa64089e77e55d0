// What heads ask of memory for cross-entropy over a million classes: never the [B,C] logits. Passes
// are planned, not computed, so that neither centres nor gradients are allocated.

#include <algorithm>

#include <kindred/head/ada_margin.hpp>
#include <kindred/head/arc_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/combined_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/curricular_margin.hpp>
#include <kindred/head/dynamic_margin.hpp>
#include <kindred/head/elastic_margin.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/norm_face.hpp>
#include <kindred/head/sphere_face.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>

#include "support/margin_heads.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

constexpr std::int64_t batch = 64, dim = 128, classes = 1000000;
constexpr std::size_t logits_bytes = batch * classes * sizeof(float);

/// The plan of pass(head, run, x, labels) in training, on memory that a plan must not touch.
template <class Head, class Pass>
Plan plan_of(const typename Head::Config& config, Pass&& pass) {
  ParameterTable table;
  const Head head(config, Scope(table, "head"));
  std::vector<float> statistics(static_cast<std::size_t>(table.buffer_size()));
  const std::vector<float> x(batch * dim);
  const std::vector<std::int64_t> labels(batch);
  cpu::Context context(2);
  float* const none = nullptr;  // parameters and gradients
  float* const kept = statistics.data();
  const Run<cpu::Context, float> run{context, none, kept, kept, none, true, false, {}, nullptr};
  context.arena().begin_recording();
  pass(head, run, view(x, {batch, dim}), view(labels, {batch}));
  return context.arena().end_recording();
}

template <class Head>
void check_fused(typename Head::Config config) {
  config.embedding_size = dim;
  config.class_num = classes;
  float value = 0;
  std::vector<float> dx(batch * dim);
  const Plan plan = plan_of<Head>(config, [&](const Head& head, const auto& run, auto x, auto y) {
    head.margin_cross_entropy(run, x, y, 0, 1, View<float>{&value, {1}}, view(dx, {batch, dim}));
  });
  INFO(Head::name() << ": " << plan);
  CHECK(!plan.requests().empty());
  CHECK(plan.bytes() < logits_bytes / 4);  // all of it together
}

}  // namespace

TEST_CASE("No margin head builds the logits of a million classes for cross-entropy") {
  check_fused<head::NormFace>({});
  check_fused<head::ArcMargin>({});
  check_fused<head::CosMargin>({});
  check_fused<head::SphereFace>({});
  check_fused<head::CombinedMargin>({});
  check_fused<head::CircleMargin>({});
  check_fused<head::SubCenterArcMargin>({});
  check_fused<head::AdaMargin>({});
  check_fused<head::MagMargin>({});
  check_fused<head::CurricularMargin>({});
  check_fused<head::ElasticMargin>({});
  head::DynamicMargin::Config counted;
  counted.class_counts.assign(classes, 3);
  check_fused<head::DynamicMargin>(counted);
}

namespace {

struct NoStep final : RowUpdate<cpu::Context, float> {
  void operator()(cpu::Context&, std::int64_t, std::int64_t, const float*,
                  const float*) const override {}
};

/// How much more is planned with update_in_tile, where no gradient of the centres is stored.
template <class Head>
std::size_t planned_for_updates(std::int64_t sub_centers) {
  typename Head::Config config;
  config.embedding_size = dim;
  config.class_num = classes;
  float value = 0;
  std::vector<float> dx(batch * dim);
  std::size_t bytes[2];
  for (const bool in_tile : {false, true}) {
    config.update_in_tile = in_tile;
    ParameterTable table;
    const Head head(config, Scope(table, "head"));
    CHECK(table.trainable_size() == classes * sub_centers * dim);
    CHECK(table.gradient_size() == (in_tile ? 0 : table.trainable_size()));
    const Plan plan = plan_of<Head>(config, [&](const Head& h, auto run, auto x, auto y) {
      const NoStep step;
      run.row_update = &step;
      run.row_update_taken = &value;
      h.margin_cross_entropy(run, x, y, 0, 1, View<float>{&value, {1}}, view(dx, {batch, dim}));
    });
    bytes[in_tile] = plan.bytes();
  }
  return bytes[1] - bytes[0];
}

}  // namespace

TEST_CASE("With update_in_tile the gradient of a million centres is that of one tile per thread") {
  CHECK(planned_for_updates<head::ArcMargin>(1) < std::size_t{1} << 20);           // for 512 MB
  CHECK(planned_for_updates<head::SubCenterArcMargin>(3) < std::size_t{1} << 20);  // for 1.5 GB
}

TEST_CASE("A head that is asked for the logits of a million classes plans them") {
  head::NormFace::Config config;
  config.embedding_size = dim;
  config.class_num = classes;
  const Plan plan =
      plan_of<head::NormFace>(config, [](const auto& head, const auto& run, auto x, auto y) {
        head::NormFace::Saved<float> saved;
        head.forward(run, x, y, saved);
      });
  const auto& requests = plan.requests();
  CHECK(std::any_of(requests.begin(), requests.end(),
                    [](const Plan::Request& r) { return r.bytes >= logits_bytes; }));
}
