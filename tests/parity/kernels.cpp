// Single operations against Paddle: activations, pooling, linear layer, normalisation, dropout.
// Convolution and batch norm have their own programs.

#include <kindred/kindred.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

TEMPLATE_TEST_CASE("parity: activations, their kinks included", "", double, float) {
  using T = TestType;
  const Fixture fixture("activations");
  const std::pair<const char*, Activation> cases[] = {{"hardswish", Activation::hardswish},
                                                      {"hardsigmoid", Activation::hardsigmoid},
                                                      {"relu", Activation::relu}};
  REQUIRE(fixture.cases().size() == std::size(cases));
  for (const auto& [name, activation] : cases) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const Shape shape = one.shape("in.x");
    const bool sloped = activation == Activation::hardsigmoid;
    const T ratio = sloped ? static_cast<T>(hardsigmoid_slope_ratio()) : T(1);
    auto x = one.stored<T>("in.x");
    const auto dy = one.stored<T>("upstream.y");
    auto y = poisoned<T>(shape.size()), dx = y;
    cpu::Context ctx(2);
    auto pass = [&] {
      run_planned(ctx, [&] {
        kernels::activation_forward(ctx, activation, view(x, shape), view(y, shape));
        kernels::activation_backward(ctx, activation, view(dy, shape), view(x, shape),
                                     view(dx, shape));
      });
    };
    pass();
    if (sloped && std::is_same_v<T, double>) {  // the slopes differ, in the seventh digit
      const double d = relative_difference(y, one.stored<double>("out.y"));
      CHECK(d > 1e-9);
      CHECK(d < 2e-7);
    }
    for (T& v : x) v *= ratio;
    pass();
    for (T& v : dx) v *= ratio;
    CHECK(relative_difference(y, one.stored<double>("out.y")) < tolerance<T>);
    CHECK(relative_difference(dx, one.stored<double>("grad.x")) < tolerance<T>);
  }
}

TEMPLATE_TEST_CASE("parity: global average pool", "", double, float) {
  using T = TestType;
  const Fixture one = Fixture("pool_linear_normalize").at("global_average_pool");
  const Shape shape = one.shape("in.x"), pooled{shape[0], shape[3]};
  const auto x = one.values<T>("in.x"), dy = one.values<T>("upstream.y");
  auto y = poisoned<T>(pooled.size()), dx = poisoned<T>(shape.size());
  cpu::Context ctx(2);
  run_planned(ctx, [&] {
    kernels::global_average_pool_forward(ctx, view(x, shape), view(y, pooled));
    kernels::global_average_pool_backward(ctx, view(dy, pooled), view(dx, shape));
  });
  const T ratio = static_cast<T>(pool_gradient_ratio(shape[1] * shape[2]));
  for (T& v : dx) v *= ratio;
  CHECK(relative_difference(y, one.values<double>("out.y")) < tolerance<T>);
  CHECK(relative_difference(dx, one.values<double>("grad.x")) < tolerance<T>);
}

TEMPLATE_TEST_CASE("parity: linear", "", double, float) {
  using T = TestType;
  const Fixture one = Fixture("pool_linear_normalize").at("linear");
  const Shape in = one.shape("in.x"), out = one.shape("out.y"), square{in[1], out[1]};
  const auto x = one.stored<T>("in.x"), dy = one.stored<T>("upstream.y");
  const auto w = one.stored<T>("param.weight"), bias = one.stored<T>("param.bias");
  auto y = poisoned<T>(out.size()), dx = poisoned<T>(in.size());
  auto dw = zeros<T>(square), dbias = zeros<T>({out[1]});
  cpu::Context ctx(2);
  run_planned(ctx, [&] {
    kernels::linear_forward(ctx, view(x, in), view(w, square), view(bias, {out[1]}), view(y, out));
    kernels::linear_backward_input(ctx, view(dy, out), view(w, square), view(dx, in));
    kernels::linear_backward_parameters(ctx, view(x, in), view(dy, out), view(dw, square),
                                        view(dbias, {out[1]}));
  });
  CHECK(relative_difference(y, one.stored<double>("out.y")) < tolerance<T>);
  CHECK(relative_difference(dx, one.stored<double>("grad.x")) < tolerance<T>);
  CHECK(relative_difference(dw, one.stored<double>("grad_param.weight")) < tolerance<T>);
  CHECK(relative_difference(dbias, one.stored<double>("grad_param.bias")) < tolerance<T>);
}

TEST_CASE("parity: normalize, every row for itself") {
  const Fixture one = Fixture("pool_linear_normalize").at("normalize");
  const Shape shape = one.shape("in.x");
  const auto x = one.stored<double>("in.x"), dy = one.stored<double>("upstream.y");
  auto norm = poisoned<double>(shape[0]), y = poisoned<double>(shape.size()), dx = y;
  cpu::Context ctx(2);
  run_planned(ctx, [&] {
    kernels::l2_normalize_forward(ctx, NormRule::max_eps, 1e-12, view(x, shape),
                                  view(norm, {shape[0]}), view(y, shape));
    kernels::l2_normalize_backward(ctx, NormRule::max_eps, 1e-12, view(dy, shape), view(y, shape),
                                   view(norm, {shape[0]}), view(dx, shape));
  });
  // The zero row and the tiny one have gradients 1e12 times as large as the others.
  const auto expected_y = one.stored<double>("out.y"), expected_dx = one.stored<double>("grad.x");
  for (std::int64_t b = 0; b < shape[0]; ++b) {
    INFO("row " << b);
    auto row = [&](const std::vector<double>& m) {
      return std::vector<double>(m.begin() + b * shape[1], m.begin() + (b + 1) * shape[1]);
    };
    if (all_zero(row(expected_y)))
      CHECK(all_zero(row(y)));
    else
      CHECK(relative_difference(row(y), row(expected_y)) < tolerance<double>);
    CHECK(relative_difference(row(dx), row(expected_dx)) < tolerance<double>);
  }
}

TEMPLATE_TEST_CASE("parity: dropout", "", double, float) {
  using T = TestType;
  const Fixture fixture("dropout");
  const std::pair<const char*, DropoutMode> cases[] = {
      {"downscale_in_infer", DropoutMode::downscale_in_infer},
      {"upscale_in_train", DropoutMode::upscale_in_train}};
  REQUIRE(fixture.cases().size() == std::size(cases));
  for (const auto& [name, mode] : cases) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const T p = static_cast<T>(1 - single(1 - one.attribute("p")));
    const RandomKey key{1, 2, 3};
    const Shape shape = one.shape("in.x"), many{10000};
    const auto x = one.stored<T>("in.x");
    const std::vector<T> ones(10000, T(1));
    auto y = poisoned<T>(shape.size()), trained = poisoned<T>(many.size()), dx = trained;
    cpu::Context ctx(2);
    run_planned(ctx, [&] {
      kernels::dropout_forward(ctx, p, mode, false, key, view(x, shape), view(y, shape));
      kernels::dropout_forward(ctx, p, mode, true, key, view(ones, many), view(trained, many));
      kernels::dropout_backward(ctx, p, mode, key, view(ones, many), view(dx, many));
    });
    CHECK(relative_difference(y, one.stored<double>("out.eval")) < tolerance<T>);
    // Masks cannot be matched: a 1 becomes one of two values.
    const double kept = one.number("out.train_kept"), dkept = one.number("grad.train_kept");
    REQUIRE(kept > 0.9);
    REQUIRE(one.number("out.train_dropped") == 0);
    REQUIRE(one.number("grad.train_dropped") == 0);
    std::size_t dropped = 0, wrong = 0;
    for (std::size_t i = 0; i < trained.size(); ++i) {
      if (trained[i] == 0 && dx[i] == 0)
        ++dropped;
      else
        wrong += !(std::abs(double(trained[i]) - kept) < tolerance<T> &&
                   std::abs(double(dx[i]) - dkept) < tolerance<T>);
    }
    CHECK(wrong == 0);
    CHECK(dropped > 1800);
    CHECK(dropped < 2200);
  }
}
