#include <kindred/kernels/batch_norm.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

constexpr double eps = 1e-5;

template <class T>
struct BatchNorm {
  Shape shape;
  std::int64_t c = shape.back();
  std::vector<T> x, gamma, beta, running_mean, running_var;
  std::vector<T> mean = poisoned<T>(c), inv_std = poisoned<T>(c), y = poisoned<T>(shape.size());

  explicit BatchNorm(const Shape& s, double offset = 0)
      : shape(s),
        x(random_values<T>(s.size(), 1)),
        gamma(random_values<T>(c, 2)),
        beta(random_values<T>(c, 3)),
        running_mean(random_values<T>(c, 4)),
        running_var(static_cast<std::size_t>(c), T(2)) {
    for (T& v : x) v += static_cast<T>(offset);
  }
  void forward(cpu::Context& ctx, Activation act, bool update_running = false) {
    run_planned(ctx, [&] {
      if (ctx.planning() || !update_running) {
        kernels::batch_norm_forward(ctx, view(x, shape), view(gamma, {c}), view(beta, {c}), T(eps),
                                    T(0.9), act, view(mean, {c}), view(inv_std, {c}), View<T>{},
                                    View<T>{}, view(y, shape));
      } else {
        kernels::batch_norm_forward(ctx, view(x, shape), view(gamma, {c}), view(beta, {c}), T(eps),
                                    T(0.9), act, view(mean, {c}), view(inv_std, {c}),
                                    view(running_mean, {c}), view(running_var, {c}),
                                    view(y, shape));
      }
    });
  }
  void backward(cpu::Context& ctx, Activation act, const std::vector<T>& dy, std::vector<T>& dx,
                std::vector<T>& dgamma, std::vector<T>& dbeta, bool training = true) {
    run_planned(ctx, [&] {
      kernels::batch_norm_backward(ctx, view(dy, shape), view(x, shape), view(gamma, {c}),
                                   view(beta, {c}), view(mean, {c}), view(inv_std, {c}), act,
                                   view(dx, shape), view(dgamma, {c}), view(dbeta, {c}), training);
    });
  }
};

/// Straightforward statistics in long double.
template <class T>
void expect_statistics(const BatchNorm<T>& bn, double tolerance) {
  const std::int64_t rows = bn.shape.rows();
  for (std::int64_t c = 0; c < bn.c; ++c) {
    long double sum = 0, squares = 0;
    for (std::int64_t r = 0; r < rows; ++r) sum += bn.x[static_cast<std::size_t>(r * bn.c + c)];
    const long double mean = sum / rows;
    for (std::int64_t r = 0; r < rows; ++r) {
      const long double d = bn.x[static_cast<std::size_t>(r * bn.c + c)] - mean;
      squares += d * d;
    }
    const double inv_std = 1 / std::sqrt(static_cast<double>(squares / rows) + eps);
    const auto i = static_cast<std::size_t>(c);
    CHECK(bn.mean[i] == Approx(static_cast<double>(mean)).epsilon(tolerance).margin(tolerance));
    CHECK(bn.inv_std[i] == Approx(inv_std).epsilon(tolerance));
  }
}

}  // namespace

TEST_CASE("batch norm: backward is the derivative of forward") {
  // Channels below, at and above the vector size; odd; more rows than one wide row.
  const Shape shapes[] = {{2, 3, 4, 5}, {3, 3, 3, 8}, {37, 3}, {6, 129}, {1, 2, 1, 16}, {9, 1}};
  const Activation acts[] = {Activation::identity, Activation::relu, Activation::hardswish,
                             Activation::swish};
  cpu::Context ctx(2);
  for (const Shape& shape : shapes)
    for (const Activation act : acts) {
      INFO(shape << " activation " << static_cast<int>(act));
      BatchNorm<double> bn(shape);
      const auto upstream = random_values<double>(shape.size(), 9);
      auto loss = [&] {
        bn.forward(ctx, act);
        return dot(bn.y, upstream);
      };
      loss();
      auto dx = poisoned<double>(shape.size());
      auto dgamma = random_values<double>(bn.c, 10), dbeta = random_values<double>(bn.c, 11);
      const auto dgamma0 = dgamma, dbeta0 = dbeta;
      bn.backward(ctx, act, upstream, dx, dgamma, dbeta);
      for (std::size_t i = 0; i < dgamma.size(); ++i) {  // what was there before must remain
        dgamma[i] -= dgamma0[i];
        dbeta[i] -= dbeta0[i];
      }
      const double step = 1e-6;
      CHECK(difference(dx, central_differences(bn.x, loss, step)) < 1e-6);
      CHECK(difference(dgamma, central_differences(bn.gamma, loss, step)) < 1e-6);
      CHECK(difference(dbeta, central_differences(bn.beta, loss, step)) < 1e-6);
    }
}

TEST_CASE("batch norm: the check above notices a wrong backward") {
  const Shape shape{4, 3, 2, 5};
  cpu::Context ctx(1);
  BatchNorm<double> bn(shape);
  const auto upstream = random_values<double>(shape.size(), 9);
  auto loss = [&] {
    bn.forward(ctx, Activation::hardswish);
    return dot(bn.y, upstream);
  };
  loss();
  auto dx = poisoned<double>(shape.size());
  std::vector<double> dgamma(5), dbeta(5);
  // Frozen statistics leave out the two projections: not the derivative of the training forward.
  bn.backward(ctx, Activation::hardswish, upstream, dx, dgamma, dbeta, false);
  CHECK(difference(dx, central_differences(bn.x, loss)) > 1e-3);
}

TEST_CASE("batch norm: inference, its affine map and the backward with frozen statistics") {
  const Shape shape{3, 2, 3, 24}, channels{24};
  const auto act = Activation::hardswish;
  cpu::Context ctx(2);
  BatchNorm<double> bn(shape);
  const auto upstream = random_values<double>(shape.size(), 9);
  auto loss = [&] {
    run_planned(ctx, [&] {
      kernels::batch_norm_inference(ctx, view(bn.x, shape), view(bn.gamma, channels),
                                    view(bn.beta, channels), view(bn.running_mean, channels),
                                    view(bn.running_var, channels), eps, act, view(bn.y, shape));
    });
    return dot(bn.y, upstream);
  };
  loss();
  std::vector<double> scale(24), shift(24);
  kernels::batch_norm_scale_shift(ctx, view(bn.gamma, channels), view(bn.beta, channels),
                                  view(bn.running_mean, channels), view(bn.running_var, channels),
                                  eps, view(scale, channels), view(shift, channels));
  for (std::size_t i = 0; i < bn.x.size(); ++i)
    CHECK(bn.y[i] == Approx(activate(act, bn.x[i] * scale[i % 24] + shift[i % 24])).margin(1e-12));

  bn.mean = bn.running_mean;
  kernels::batch_norm_inverse_std(ctx, view(bn.running_var, channels), eps,
                                  view(bn.inv_std, channels));
  auto dx = poisoned<double>(shape.size());
  std::vector<double> dgamma(24), dbeta(24);
  bn.backward(ctx, act, upstream, dx, dgamma, dbeta, false);
  CHECK(difference(dx, central_differences(bn.x, loss)) < 1e-6);
  CHECK(difference(dgamma, central_differences(bn.gamma, loss)) < 1e-6);
  CHECK(difference(dbeta, central_differences(bn.beta, loss)) < 1e-6);
}

TEST_CASE("batch norm: statistics of data far from zero, of outliers and of constants") {
  cpu::Context ctx(2);
  const Shape shapes[] = {{5000, 40}, {700, 3}, {300, 512}, {70000, 16}};
  for (const Shape& shape : shapes) {
    INFO(shape);
    BatchNorm<float> bn(shape, 1e4);
    bn.forward(ctx, Activation::identity);
    expect_statistics(bn, 2e-5);
  }
  BatchNorm<float> outlier({5000, 40});
  for (std::size_t c = 0; c < 40; ++c) outlier.x[c] = 1e6f;  // in the rows that give the shift
  outlier.forward(ctx, Activation::identity);
  expect_statistics(outlier, 1e-5);

  BatchNorm<float> constant({50, 7});
  for (float& v : constant.x) v = 3.25f;
  constant.forward(ctx, Activation::identity);
  for (std::size_t i = 0; i < constant.y.size(); ++i) CHECK(constant.y[i] == constant.beta[i % 7]);

  BatchNorm<float> nan({50, 7});
  nan.x[3] = std::numeric_limits<float>::quiet_NaN();
  nan.forward(ctx, Activation::relu);
  CHECK(std::isnan(nan.inv_std[3]));
  CHECK_FALSE(std::isnan(nan.inv_std[2]));
}

TEST_CASE("batch norm: running statistics move as Paddle's, with the biased variance") {
  cpu::Context ctx(1);
  BatchNorm<double> bn({4, 2});
  bn.x = {1, 10, 2, 10, 3, 10, 6, 10};  // means 3 and 10, biased variances 3.5 and 0
  bn.running_mean = {1, 0};
  bn.running_var = {1, 1};
  bn.forward(ctx, Activation::identity, true);
  CHECK(bn.running_mean[0] == Approx(0.9 * 1 + 0.1 * 3));
  CHECK(bn.running_mean[1] == Approx(0.1 * 10));
  CHECK(bn.running_var[0] == Approx(0.9 + 0.1 * 3.5));
  CHECK(bn.running_var[1] == Approx(0.9));
}

TEST_CASE("batch norm: the same bits for 1 and 2 threads, and in place") {
  const Shape shape{3, 60, 61, 24};  // several chunks
  const auto act = Activation::hardswish;
  const auto dy = random_values<float>(shape.size(), 5);
  std::vector<float> y[2], dx[2], dgamma[2], dbeta[2];
  for (std::size_t t = 0; t < 2; ++t) {
    cpu::Context ctx(static_cast<int>(t) + 1);
    BatchNorm<float> bn(shape);
    bn.forward(ctx, act);
    y[t] = bn.y;
    dx[t] = dy;
    dgamma[t].assign(24, 0);
    dbeta[t].assign(24, 0);
    if (t == 0) {
      bn.backward(ctx, act, dy, dx[t], dgamma[t], dbeta[t]);
    } else {
      bn.backward(ctx, act, dx[t], dx[t], dgamma[t], dbeta[t]);
    }
  }
  CHECK(y[0] == y[1]);
  CHECK(dx[0] == dx[1]);
  CHECK(dgamma[0] == dgamma[1]);
  CHECK(dbeta[0] == dbeta[1]);
}

TEST_CASE("batch norm: wrong shapes and an empty batch are named") {
  cpu::Context ctx(1);
  BatchNorm<float> bn({4, 3});
  auto call = [&](const Shape& shape, std::int64_t channels) {
    const std::vector<float> gamma(static_cast<std::size_t>(channels));
    kernels::batch_norm_forward(ctx, {bn.x.data(), shape}, view(gamma, {channels}),
                                view(bn.beta, {3}), 1e-5f, 0.9f, Activation::relu,
                                view(bn.mean, {3}), view(bn.inv_std, {3}), View<float>{},
                                View<float>{}, View<float>{bn.y.data(), shape});
  };
  CHECK_THROWS_WITH(call({4, 3}, 4), ContainsSubstring("gamma: expected [3], got [4]"));
  CHECK_THROWS_AS(call({0, 3}, 3), ShapeError);
}
