// Necks on feature vectors: the backward is the derivative of the forward, evaluation, degenerate
// batches, settings.

#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/neck/bn_neck.hpp>
#include <kindred/neck/fc.hpp>
#include <kindred/neck/frfn_neck.hpp>
#include <kindred/neck/identity.hpp>
#include <kindred/neck/meta_bn_neck.hpp>
#include <kindred/neck/tanh.hpp>
#include <kindred/neck/vehicle_neck.hpp>

#include "support/necks.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("necks: the backward is the derivative of the forward") {
  check_neck<neck::FC>({.embedding_size = 5, .class_num = 3}, {4, 5}, {4, 3});
  check_neck<neck::VehicleNeck>({.in_channels = 5, .out_channels = 3}, {4, 5}, {4, 3});
  check_neck<neck::VehicleNeck>({.in_channels = 5, .out_channels = 3, .bias = false}, {4, 5},
                                {4, 3});
  check_neck<neck::FRFNNeck>({.num_features = 5, .low_dim = 3}, {4, 5}, {4, 3});
  check_neck<neck::Tanh>({.num_features = 5}, {4, 5}, {4, 5});
  check_neck<neck::Identity>({.num_features = 5}, {4, 5}, {4, 5});
  check_neck<neck::BNNeck>({.num_features = 5}, {6, 5}, {6, 5});
  check_neck<neck::BNNeck>({.num_features = 5, .use_global_stats = true}, {6, 5}, {6, 5});
  for (const auto mode :
       {layers::BatchNormMode::general, layers::BatchNormMode::hold, layers::BatchNormMode::eval}) {
    INFO(name_of(mode));
    check_neck<neck::MetaBNNeck>({.num_features = 5, .bn_mode = mode}, {6, 5}, {6, 5});
  }
}

TEST_CASE("BNNeck and MetaBNNeck: a frozen bias has no gradient and no learning rate") {
  auto check = [](auto& bench) {
    const auto x = random_values<double>(6 * 5, 1), upstream = random_values<double>(6 * 5, 2);
    train_neck(bench, x, {6, 5}, upstream);
    const ParameterInfo &bias = bench.info("feat_bn.bias"), &weight = bench.info("feat_bn.weight");
    CHECK(bias.lr_multiplier == 0);
    CHECK(weight.lr_multiplier == 1);
    for (std::int64_t i = 0; i < 5; ++i) {
      CHECK(bench.gradient(bias)[i] == 0);
      CHECK(bench.gradient(weight)[i] != 0);
    }
  };
  Bench<neck::BNNeck, double> bn("", neck::BNNeck::Config{.num_features = 5, .freeze_bias = true});
  std::fill(bn.parameters.begin(), bn.parameters.end(), 1.0);
  check(bn);
  Bench<neck::MetaBNNeck, double> meta(
      "", neck::MetaBNNeck::Config{.num_features = 5, .freeze_bias = true});
  std::fill(meta.parameters.begin(), meta.parameters.end(), 1.0);
  check(meta);
}

TEST_CASE("batch norm modes: which statistics normalise, and which move") {
  const auto x = random_values<double>(6 * 2, 1, 3.0), upstream = random_values<double>(6 * 2, 2);
  const std::vector<double> start{0.5, -0.5, 2.0, 3.0};
  double mean = 0, square = 0;  // of the first column
  for (std::size_t i = 0; i < 6; ++i) mean += x[2 * i] / 6;
  for (std::size_t i = 0; i < 6; ++i) square += (x[2 * i] - mean) * (x[2 * i] - mean) / 6;
  for (const auto mode :
       {layers::BatchNormMode::general, layers::BatchNormMode::hold, layers::BatchNormMode::eval}) {
    INFO(name_of(mode));
    Bench<neck::MetaBNNeck, double> bench(
        "", neck::MetaBNNeck::Config{.num_features = 2, .bn_mode = mode});
    double* weight = bench.data(bench.info("feat_bn.weight"));
    weight[0] = weight[1] = 1;
    double* running_mean = bench.data(bench.info("feat_bn._mean"));
    double* running_variance = bench.data(bench.info("feat_bn._variance"));
    std::copy_n(start.begin(), 2, running_mean);
    std::copy_n(start.begin() + 2, 2, running_variance);
    neck::MetaBNNeck::Saved<double> saved;
    const auto evaluated = bench.evaluate([&](const auto& run) {
      return bench.component.forward(run, view(x, {6, 2}), saved);
    });
    CHECK(evaluated[0] == Approx((x[0] - 0.5) / std::sqrt(2.0 + 1e-5)));
    const auto got = train_neck(bench, x, {6, 2}, upstream);
    if (mode == layers::BatchNormMode::eval)
      CHECK(got.y[0] == Approx((x[0] - 0.5) / std::sqrt(2.0 + 1e-5)));
    else
      CHECK(got.y[0] == Approx((x[0] - mean) / std::sqrt(square + 1e-5)));
    if (mode == layers::BatchNormMode::general) {
      CHECK(running_mean[0] == Approx(0.9 * 0.5 + 0.1 * mean));
      CHECK(running_variance[0] == Approx(0.9 * 2.0 + 0.1 * square));
    } else {
      CHECK(std::equal(running_mean, running_mean + 2, start.begin()));
      CHECK(std::equal(running_variance, running_variance + 2, start.begin() + 2));
    }
  }
}

TEST_CASE("FRFNNeck: rows have length 1, and a row of zeros stays zero with gradient 0") {
  Bench<neck::FRFNNeck, double> bench("", neck::FRFNNeck::Config{.num_features = 3, .low_dim = 2});
  bench.parameters = random_values<double>(static_cast<std::int64_t>(bench.parameters.size()), 1);
  for (const char* name : {"fc1.bias", "fc2.bias"}) {
    const ParameterInfo& bias = bench.info(name);
    std::fill_n(bench.data(bias), bias.shape.size(), 0.0);
  }
  auto x = random_values<double>(2 * 3, 2);
  std::fill(x.begin(), x.begin() + 3, 0.0);
  const auto got = train_neck(bench, x, {2, 3}, random_values<double>(2 * 2, 3));
  CHECK(got.y[0] == 0);
  CHECK(got.y[1] == 0);
  CHECK(got.y[2] * got.y[2] + got.y[3] * got.y[3] == Approx(1));
  for (std::size_t d = 0; d < 3; ++d) CHECK(got.dx[d] == 0);
  for (const double g : bench.gradients) CHECK(std::isfinite(g));
}

TEST_CASE("necks: one row, and NaN comes through") {
  auto check = [](auto neck, const auto& config) {
    using Neck = typename decltype(neck)::type;
    Bench<Neck, double> bench("", config);
    bench.parameters = random_values<double>(static_cast<std::int64_t>(bench.parameters.size()), 1);
    const std::vector<double> one{1, -2, 3}, nan{1, std::numeric_limits<double>::quiet_NaN(), 3};
    typename Neck::template Saved<double> saved;
    for (const double v : bench.evaluate([&](const auto& run) {
           return bench.component.forward(run, view(one, {1, 3}), saved);
         }))
      CHECK(std::isfinite(v));
    bool seen = false;
    for (const double v : bench.evaluate([&](const auto& run) {
           return bench.component.forward(run, view(nan, {1, 3}), saved);
         }))
      seen = seen || std::isnan(v);
    CHECK(seen);
  };
  check(std::type_identity<neck::VehicleNeck>{},
        neck::VehicleNeck::Config{.in_channels = 3, .out_channels = 2});
  check(std::type_identity<neck::FRFNNeck>{},
        neck::FRFNNeck::Config{.num_features = 3, .low_dim = 2});
  check(std::type_identity<neck::Tanh>{}, neck::Tanh::Config{.num_features = 3});
  check(std::type_identity<neck::Identity>{}, neck::Identity::Config{.num_features = 3});
  check(std::type_identity<neck::MetaBNNeck>{}, neck::MetaBNNeck::Config{.num_features = 3});
}

TEST_CASE("necks name the setting that is wrong") {
  CHECK(neck_error<neck::FRFNNeck>({.num_features = 4}) ==
        "neck.FRFNNeck: low_dim must be >= 1, got 0");
  CHECK(neck_error<neck::VehicleNeck>({.out_channels = 4}) ==
        "neck.VehicleNeck: in_channels must be >= 1, got 0");
  CHECK(neck_error<neck::Tanh>({}) == "neck.Tanh: num_features must be >= 1, got 0");
  CHECK(neck_error<neck::Identity>({}) == "neck.Identity: num_features must be >= 1, got 0");
  CHECK(neck_error<neck::MetaBNNeck>({}) == "neck.MetaBNNeck: num_features must be >= 1, got 0");
  CHECK(neck_error<neck::BNNeck>({}) == "neck.BNNeck: num_features must be >= 1, got 0");
}
