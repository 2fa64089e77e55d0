// Necks, heads and small layers against PaddleClas: FC, squeeze-excite.

#include <kindred/kindred.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

TEMPLATE_TEST_CASE("parity: FC as a neck and as a head", "", double, float) {
  using T = TestType;
  const Fixture fixture("fc");
  REQUIRE(fixture.cases() == std::vector<std::string>{"neck", "head"});
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const Shape in = one.shape("in.x"), out = one.shape("out.train");
    const neck::FC::Config config{.embedding_size = in[1], .class_num = out[1]};
    const auto x = one.stored<T>("in.x"), upstream = one.stored<T>("upstream.y");
    auto check = [&](auto& bench, const Passed<T>& got) {
      CHECK(relative_difference(got.y, one.stored<double>("out.train")) < tolerance<T>);
      CHECK(relative_difference(got.dx, one.stored<double>("grad.x")) < tolerance<T>);
      bench.check_gradients(one, tolerance<T>);
    };
    Bench<neck::FC, T> neck("", config);
    neck.load(one);
    check(neck, train_neck(neck, x, in, upstream));
    Bench<head::FC, T> head("", config);
    head.load(one);
    head::FC::Saved<T> saved;
    check(head,
          head.train(
              upstream,
              [&](const auto& run) { return head.component.forward(run, view(x, in), {}, saved); },
              [&](const auto& run, Tensor<T> dy) {
                return head.component.backward(run, std::move(dy), view(x, in), {}, saved);
              }));
  }
}

TEMPLATE_TEST_CASE("parity: squeeze-excite", "", double, float) {
  using T = TestType;
  const Fixture fixture("squeeze_excite");
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const Shape shape = one.shape("in.x");
    Bench<layers::SqueezeExcite, T> bench("", shape[3]);
    bench.load(one);
    // Paddle's slope of the hardsigmoid in the layer before it.
    const ParameterInfo* excite[] = {&bench.info("conv2.weight"), &bench.info("conv2.bias")};
    const T ratio = static_cast<T>(hardsigmoid_slope_ratio());
    for (const ParameterInfo* p : excite)
      for (std::int64_t i = 0; i < p->shape.size(); ++i) bench.data(*p)[i] *= ratio;
    const auto x = one.values<T>("in.x");
    const auto dy = one.values<T>("upstream.y");
    Passed<T> got = train_neck(bench, x, shape, dy);
    // dx = dy gate + what comes through the pooling, where Paddle's 1 / area is rounded.
    const T pool = static_cast<T>(pool_gradient_ratio(shape[1] * shape[2]));
    for (std::size_t i = 0; i < x.size(); ++i)
      got.dx[i] += (pool - 1) * (got.dx[i] - dy[i] * got.y[i] / x[i]);
    for (const ParameterInfo* p : excite)
      for (std::int64_t i = 0; i < p->shape.size(); ++i) bench.gradient(*p)[i] *= ratio;
    CHECK(relative_difference(got.y, one.values<double>("out.y")) < tolerance<T>);
    CHECK(relative_difference(got.dx, one.values<double>("grad.x")) < tolerance<T>);
    bench.check_gradients(one, tolerance<T>);
    layers::SqueezeExcite::Saved<T> saved;
    const auto y = bench.evaluate(
        [&](const auto& run) { return bench.component.forward(run, view(x, shape), saved); });
    CHECK(relative_difference(y, one.values<double>("out.y")) < tolerance<T>);
  }
}
