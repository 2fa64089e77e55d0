// Batch norm against Paddle, BNNeck against PaddleClas.

#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/neck/bn_neck.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

TEMPLATE_TEST_CASE("parity: batch norm", "", double, float) {
  using T = TestType;
  const Fixture fixture("batch_norm");
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const Shape shape = one.shape("in.x"), channels{shape.back()};
    const T eps = static_cast<T>(single(one.attribute("epsilon")));
    const T momentum = static_cast<T>(single(one.attribute("momentum")));
    const auto x = one.values<T>("in.x"), dy = one.values<T>("upstream.y");
    const auto gamma = one.stored<T>("param.weight"), beta = one.stored<T>("param.bias");
    auto running_mean = one.stored<T>("param._mean"),
         running_var = one.stored<T>("param._variance");
    auto y = poisoned<T>(shape.size()), dx = y, evaluated = y;
    auto mean = poisoned<T>(channels.size()), inv_std = mean;
    auto dgamma = zeros<T>(channels), dbeta = dgamma;
    cpu::Context ctx(2);
    run_planned(ctx, [&] {
      kernels::batch_norm_forward(ctx, view(x, shape), view(gamma, channels), view(beta, channels),
                                  eps, momentum, Activation::identity, view(mean, channels),
                                  view(inv_std, channels), view(running_mean, channels),
                                  view(running_var, channels), view(y, shape));
      kernels::batch_norm_backward(ctx, view(dy, shape), view(x, shape), view(gamma, channels),
                                   view(beta, channels), view(mean, channels),
                                   view(inv_std, channels), Activation::identity, view(dx, shape),
                                   view(dgamma, channels), view(dbeta, channels));
      kernels::batch_norm_inference(ctx, view(x, shape), view(gamma, channels),
                                    view(beta, channels), view(running_mean, channels),
                                    view(running_var, channels), eps, Activation::identity,
                                    view(evaluated, shape));
    });
    CHECK(relative_difference(y, one.values<double>("out.train")) < tolerance<T>);
    CHECK(relative_difference(dx, one.values<double>("grad.x")) < tolerance<T>);
    CHECK(relative_difference(dgamma, one.stored<double>("grad_param.weight")) < tolerance<T>);
    CHECK(relative_difference(dbeta, one.stored<double>("grad_param.bias")) < tolerance<T>);
    CHECK(relative_difference(running_mean, one.stored<double>("after._mean")) < tolerance<T>);
    CHECK(relative_difference(running_var, one.stored<double>("after._variance")) < tolerance<T>);
    CHECK(relative_difference(evaluated, one.values<double>("out.eval_after")) < tolerance<T>);
  }
}

TEST_CASE("parity: BNNeck") {
  using T = double;
  const Fixture one("bn_neck");
  const Shape shape = one.shape("in.x");
  Bench<neck::BNNeck, T> bench("", neck::BNNeck::Config{.num_features = shape[1]});
  bench.load(one);
  const auto before = bench.statistics;
  const auto x = one.stored<T>("in.x");
  const Passed<T> got = train_neck(bench, x, shape, one.stored<T>("upstream.y"));
  CHECK(relative_difference(got.y, one.stored<double>("out.train")) < tolerance<T>);
  CHECK(relative_difference(got.dx, one.stored<double>("grad.x")) < tolerance<T>);
  bench.check_gradients(one, tolerance<T>);  // its bias is trained, in both
  use_single_momentum(before, bench.statistics);
  for (const ParameterInfo& p : bench.table.entries())
    if (p.kind == ParameterKind::buffer)
      CHECK(difference_from(one, "after", p, bench.data(p)) < tolerance<T>);
  bench.load_buffers(one, "after");
  neck::BNNeck::Saved<T> saved;
  const auto y = bench.evaluate(
      [&](const auto& run) { return bench.component.forward(run, view(x, shape), saved); });
  CHECK(relative_difference(y, one.stored<double>("out.eval_after")) < tolerance<T>);
}

TEST_CASE("parity: BNNeck keeps 0.9 exactly where Paddle has 0.9f") {
  const Fixture one("bn_neck");
  const Shape shape = one.shape("in.x");
  Bench<neck::BNNeck, double> bench("", neck::BNNeck::Config{.num_features = shape[1]});
  bench.load(one);
  train_neck(bench, one.stored<double>("in.x"), shape, one.stored<double>("upstream.y"));
  const ParameterInfo& mean = bench.info("feat_bn._mean");
  const double d = difference_from(one, "after", mean, bench.data(mean));
  CHECK(d > 1e-9);
  CHECK(d < 1e-7);
}
