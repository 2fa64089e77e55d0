// GeM pooling, feature pyramids and MagFace's regulariser against the code of their papers and of
// torchvision.

#include <kindred/backbone/fpn.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/generalized_mean_pool.hpp>
#include <kindred/kernels/cpu/upsample_add.hpp>
#include <kindred/loss/mag_regularizer.hpp>
#include <kindred/neck/gem.hpp>

#include "support/loss_check.hpp"
#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

Fixture paper(const std::string& name) {
  return Fixture("paper_heads", "the papers' own code").at(name);
}

/// A trunk whose stages are parameters, so that a fixture can give the maps and check their
/// gradients.
class GivenMaps {
 public:
  struct Config {};
  template <class T>
  struct Saved {};
  static constexpr int stages = 3;

  GivenMaps(const Config&, const Scope& scope) {
    const Shape shapes[stages] = {{2, 7, 5, 4}, {2, 4, 3, 5}, {2, 2, 2, 6}};
    for (int i = 0; i < stages; ++i)
      maps_[i] = scope.declare("map" + std::to_string(i), shapes[i], ParameterKind::weight,
                               Initializer::constant(0));
  }
  std::int64_t stage_size(int stage) const { return maps_[stage].shape.back(); }

  template <class Context, class T, class Visit>
  Tensor<T> forward(const Run<Context, T>& run, In<T>, Saved<T>&, Visit&& visit) const {
    for (int i = 0; i < stages; ++i) visit(i, run.parameter(maps_[i]));
    auto top = run.make(maps_[stages - 1].shape, "top");
    kernels::copy(run.ctx, run.parameter(maps_[stages - 1]), top);
    return top;
  }
  template <class Context, class T, class Visit>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> d, In<T> images, Saved<T>&,
                     Visit&& visit) const {
    kernels::copy(run.ctx, d, run.gradient(maps_[stages - 1]));
    for (int i = stages - 1; i-- > 0;) visit(i, run.parameter(maps_[i]), run.gradient(maps_[i]));
    auto dx = run.make(images.shape, "dx");
    kernels::fill(run.ctx, T(0), dx);
    return dx;
  }

 private:
  ParameterRef maps_[stages];
};

}  // namespace

TEMPLATE_TEST_CASE("parity: GeM", "", double, float) {
  using T = TestType;
  for (const char* name : {"gem", "gem_2_5"}) {
    INFO(name);
    const Fixture one = paper(name);
    const Shape shape = one.shape("in.x");
    Bench<neck::GeM, T> bench(
        "", neck::GeM::Config{.num_features = shape[3], .eps = one.attribute("eps")});
    bench.load(one);
    const auto got = train_neck(bench, one.values<T>("in.x"), shape, one.stored<T>("upstream.y"));
    CHECK(relative_difference(got.y, one.stored<double>("out.y")) < tolerance<T>);
    CHECK(relative_difference(got.dx, one.values<double>("grad.x")) < tolerance<T>);
    bench.check_gradients(one, tolerance<T>);
  }
}

TEST_CASE("parity: FPN is torchvision's finest level, with batch norm") {
  using T = double;
  using Pyramid = backbone::FPN<GivenMaps>;
  const Fixture one = paper("fpn");
  Bench<Pyramid, T> bench("", Pyramid::Config{.out_channels = 3, .first_stage = 0});
  std::size_t maps = 0, parameters = 0;
  for (const ParameterInfo& p : bench.table.entries()) {
    if (p.kind == ParameterKind::buffer) continue;
    if (p.name.starts_with("map")) {
      const auto values = one.values<T>("in." + p.name);
      std::copy(values.begin(), values.end(), bench.data(p));
      ++maps;
    } else {
      one.read("param", p, bench.data(p));
      ++parameters;
    }
  }
  REQUIRE(maps == 3);
  REQUIRE(parameters == one.names("param").size());
  const Shape images{2, 1, 1, 3};
  const auto got = train_neck(bench, zeros<T>(images), images, one.values<T>("upstream.y"));
  CHECK(relative_difference(got.y, one.values<double>("out.y")) < tolerance<T>);
  for (const ParameterInfo& p : bench.table.entries()) {
    if (p.kind == ParameterKind::buffer) continue;
    INFO(p.name);
    if (p.name.starts_with("map")) {
      const T* d = bench.gradient(p);
      CHECK(relative_difference(std::vector<T>(d, d + p.shape.size()),
                                one.values<double>("grad." + p.name)) < tolerance<T>);
    } else {
      CHECK(difference_from(one, "grad_param", p, bench.gradient(p)) < tolerance<T>);
    }
  }
}

TEMPLATE_TEST_CASE("parity: MagRegularizer is MagFace's g", "", double, float) {
  using T = TestType;
  for (const char* name : {"mag", "mag_easy"}) {
    const Fixture one = paper(name);
    LossBench<loss::MagRegularizer, T> bench(
        {.weight = 1, .l_a = one.attribute("l_a"), .u_a = one.attribute("u_a")});
    const auto value =
        static_cast<double>(bench({one.shape("in.x")[1], one.stored<T>("in.x"), one.labels()}));
    CHECK(relative_difference(value, one.number("out.regularizer")) < tolerance<T>);
    CHECK(relative_difference(bench.dfeatures, one.stored<double>("grad.regularizer")) <
          tolerance<T>);
  }
}
