// Necks on feature vectors against PaddleClas: MetaBNNeck in its three modes, VehicleNeck,
// FRFNNeck, Tanh.

#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/neck/frfn_neck.hpp>
#include <kindred/neck/meta_bn_neck.hpp>
#include <kindred/neck/tanh.hpp>
#include <kindred/neck/vehicle_neck.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// Output, gradients, running statistics and the evaluation after the step.
template <class Neck>
void check_case(const std::string& name, const typename Neck::Config& config) {
  using T = double;
  INFO(name);
  const Fixture one = Fixture("necks").at(name);
  Bench<Neck, T> bench("", config);
  bench.load(one);
  const auto before = bench.statistics;
  const auto x = one.stored<T>("in.x");
  const Shape shape = one.shape("in.x");
  const Passed<T> got = train_neck(bench, x, shape, one.stored<T>("upstream.y"));
  CHECK(relative_difference(got.y, one.stored<double>("out.train")) < tolerance<T>);
  CHECK(relative_difference(got.dx, one.stored<double>("grad.x")) < tolerance<T>);
  bench.check_gradients(one, tolerance<T>);
  if (bench.statistics != before) use_single_momentum(before, bench.statistics);
  for (const ParameterInfo& p : bench.table.entries())
    if (p.kind == ParameterKind::buffer)
      CHECK(difference_from(one, "after", p, bench.data(p)) < tolerance<T>);
  typename Neck::template Saved<T> saved;
  const auto y = bench.evaluate(
      [&](const auto& run) { return bench.component.forward(run, view(x, shape), saved); });
  CHECK(relative_difference(y, one.stored<double>("out.eval_after")) < tolerance<T>);
}

}  // namespace

TEST_CASE("parity: MetaBNNeck") {
  for (const auto mode :
       {layers::BatchNormMode::general, layers::BatchNormMode::hold, layers::BatchNormMode::eval})
    check_case<neck::MetaBNNeck>(std::string("meta_bn_") + name_of(mode),
                                 {.num_features = 6, .bn_mode = mode});
}

TEST_CASE("parity: VehicleNeck") {
  check_case<neck::VehicleNeck>("vehicle", {.in_channels = 6, .out_channels = 5});
}

TEST_CASE("parity: FRFNNeck") {
  check_case<neck::FRFNNeck>("frfn", {.num_features = 6, .low_dim = 4});
}

TEST_CASE("parity: Tanh") { check_case<neck::Tanh>("tanh", {.num_features = 6}); }

TEST_CASE("parity: every case of the necks is compared") {
  CHECK(Fixture("necks").cases() == std::vector<std::string>{"meta_bn_general", "meta_bn_hold",
                                                             "meta_bn_eval", "vehicle", "frfn",
                                                             "tanh"});
}
