// PPLCNet in single precision against PaddleClas in double.

#include <kindred/backbone/pp_lcnet.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/dropout.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;
using backbone::PPLCNet;

TEST_CASE("parity: PPLCNet in single precision") {
  const std::pair<const char*, PPLCNet::Config> cases[] = {
      {"pplcnet_x0_25", {.scale = 0.25, .dropout_prob = 0}},
      {"pplcnet_x0_35", {.scale = 0.35, .dropout_prob = 0, .class_expand = 64}}};
  for (const auto& [file, config] : cases) {
    INFO(file);
    const Fixture fixture(file);
    Bench<PPLCNet, float> bench("backbone", config);
    bench.load(fixture);
    const auto x = fixture.values<float>("in.x");
    const Shape shape = fixture.shape("in.x");
    PPLCNet::Saved<float> saved;
    const Passed<float> got = bench.train(
        fixture.values<float>("upstream.y"),
        [&](const auto& run) { return bench.component.forward(run, view(x, shape), saved); },
        [&](const auto& run, Tensor<float> dy) {
          return bench.component.backward(run, std::move(dy), view(x, shape), saved);
        });
    CHECK(relative_difference(got.y, fixture.values<double>("out.train")) < 1e-5);
    CHECK(relative_difference(got.dx, fixture.values<double>("grad.x")) < 1e-4);
    bench.check_gradients(fixture, 1e-4);  // rounding, carried back through 27 batch norms
    bench.load_buffers(fixture, "after");
    const auto y = bench.evaluate(
        [&](const auto& run) { return bench.component.forward(run, view(x, shape), saved); });
    CHECK(relative_difference(y, fixture.values<double>("out.eval_after")) < 1e-5);
  }
}
