// PPLCNet against PaddleClas: one training pass with all gradients, evaluation, and the parameters
// of all eight scales. In double; pp_lcnet_single.cpp has the float network.

#include <fstream>

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

namespace {

using Network = Bench<PPLCNet, double>;

/// Multiplies what feeds Paddle's hardsigmoid (see hardsigmoid_slope_ratio), values or gradients.
void use_paddle_slope(Network& bench, std::vector<double>& values) {
  std::size_t count = 0;
  for (const ParameterInfo& p : bench.table.entries()) {
    if (p.name.find(".se.conv2.") == std::string::npos) continue;
    ++count;
    for (std::int64_t i = 0; i < p.shape.size(); ++i)
      values[static_cast<std::size_t>(p.offset + i)] *= hardsigmoid_slope_ratio();
  }
  REQUIRE(count == 4);  // two blocks, weight and bias
}

struct Case {
  const char* file;
  double scale;
  std::int64_t class_expand;
};
const Case cases[] = {{"pplcnet_x0_25", 0.25, 1280}, {"pplcnet_x0_35", 0.35, 64}};

PPLCNet::Config config_of(const Case& c, double dropout) {
  return {.scale = c.scale, .dropout_prob = dropout, .class_expand = c.class_expand};
}

Passed<double> train(Network& bench, const Fixture& fixture) {
  const auto x = fixture.values<double>("in.x");
  const Shape shape = fixture.shape("in.x");
  PPLCNet::Saved<double> saved;
  return bench.train(
      fixture.values<double>("upstream.y"),
      [&](const auto& run) { return bench.component.forward(run, view(x, shape), saved); },
      [&](const auto& run, Tensor<double> dy) {
        return bench.component.backward(run, std::move(dy), view(x, shape), saved);
      });
}

std::vector<double> evaluate(Network& bench, const Fixture& fixture) {
  const auto x = fixture.values<double>("in.x");
  PPLCNet::Saved<double> saved;
  return bench.evaluate([&](const auto& run) {
    return bench.component.forward(run, view(x, fixture.shape("in.x")), saved);
  });
}

}  // namespace

TEST_CASE("parity: PPLCNet in training") {
  for (const Case& c : cases) {
    INFO(c.file);
    const Fixture fixture(c.file);
    Network bench("backbone", config_of(c, 0));
    bench.load(fixture);
    use_paddle_slope(bench, bench.parameters);
    const auto before = bench.statistics;
    const Passed<double> got = train(bench, fixture);
    use_paddle_slope(bench, bench.gradients);
    CHECK(relative_difference(got.y, fixture.values<double>("out.train")) < 1e-9);
    CHECK(relative_difference(got.dx, fixture.values<double>("grad.x")) < 1e-9);
    bench.check_gradients(fixture, 1e-9);
    use_single_momentum(before, bench.statistics);
    for (const ParameterInfo& p : bench.table.entries()) {
      if (p.kind != ParameterKind::buffer) continue;
      INFO(p.name);
      CHECK(difference_from(fixture, "after", p, bench.data(p)) < 1e-9);
    }
  }
}

TEST_CASE("parity: PPLCNet in evaluation, without and with dropout") {
  for (const Case& c : cases) {
    INFO(c.file);
    const Fixture fixture(c.file);
    // Paddle multiplies by 0.8f.
    for (const auto& [dropout, output] :
         {std::pair{0.0, "out.eval_after"},
          std::pair{1 - single(0.8), "out.eval_after_dropout_0_2"}}) {
      INFO(output);
      Network bench("backbone", config_of(c, dropout));
      bench.load(fixture);
      bench.load_buffers(fixture, "after");
      use_paddle_slope(bench, bench.parameters);
      CHECK(relative_difference(evaluate(bench, fixture), fixture.values<double>(output)) < 1e-9);
    }
  }
}

TEST_CASE("parity: PPLCNet with the exact slope differs in the eighth digit") {
  for (const Case& c : cases) {
    INFO(c.file);
    const Fixture fixture(c.file);
    Network bench("backbone", config_of(c, 0));
    bench.load(fixture);
    const Passed<double> got = train(bench, fixture);
    const double d = relative_difference(got.y, fixture.values<double>("out.train"));
    CHECK(d > 1e-9);
    CHECK(d < 1e-6);
  }
}

TEST_CASE("parity: names, shapes and counts of PPLCNet's parameters at all scales") {
  // trainable: up to the last block | with last_conv (stopped at flatten) | with fc of 1000
  struct Row {
    const char* name;
    double scale;
    std::int64_t body, flatten, fc;
  };
  const Row rows[] = {{"PPLCNet_x0_25", 0.25, 76344, 240184, 1521184},
                      {"PPLCNet_x0_35", 0.35, 136810, 362090, 1643090},
                      {"PPLCNet_x0_5", 0.5, 270896, 598576, 1879576},
                      {"PPLCNet_x0_75", 0.75, 584488, 1076008, 2357008},
                      {"PPLCNet_x1_0", 1.0, 1016160, 1671520, 2952520},
                      {"PPLCNet_x1_5", 1.5, 2235792, 3218832, 4499832},
                      {"PPLCNet_x2_0", 2.0, 3929792, 5240512, 6521512},
                      {"PPLCNet_x2_5", 2.5, 6098160, 7736560, 9017560}};
  std::ifstream in(KINDRED_FIXTURES "/pplcnet_parameters.json");
  const nlohmann::json reference = nlohmann::json::parse(in);
  REQUIRE(reference.size() == std::size(rows) + 1);
  REQUIRE(reference["made_by"]["source"] == "paddleclas");
  auto table_of = [](const PPLCNet::Config& config) {
    ParameterTable table;
    const PPLCNet network(config, Scope(table, "backbone"));
    return table;
  };
  for (const Row& row : rows) {
    INFO(row.name);
    const nlohmann::json& expected = reference[row.name];
    const ParameterTable table = table_of({.scale = row.scale, .class_num = 1000});
    std::map<std::string, std::vector<std::int64_t>> trainable, buffers;
    for (const ParameterInfo& p : table.entries())
      (p.kind == ParameterKind::buffer ? buffers : trainable)[p.name] =
          io::detail::FileOrder(p).shape;
    REQUIRE(trainable.size() > 90);
    CHECK(nlohmann::json(trainable) == expected["trainable"]);
    CHECK(nlohmann::json(buffers) == expected["buffers"]);
    CHECK(table.trainable_count() == expected["trainable_count"].get<std::int64_t>());
    CHECK(table.buffer_count() == expected["buffer_count"].get<std::int64_t>());
    CHECK(table.trainable_count() == row.fc);
    CHECK(table_of({.scale = row.scale}).trainable_count() == row.flatten);
    CHECK(table_of({.scale = row.scale, .use_last_conv = false}).trainable_count() == row.body);
  }
}
