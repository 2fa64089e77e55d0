#pragma once
// A neck or backbone outside of a model: its gradients against central differences, and its errors.

#include "support/parity.hpp"

namespace kindred::test {

/// Gradients of the input and of every parameter against central differences in double, with
/// gradients that were not zero before and memory full of NaN. Statistics start from where a model
/// has them, moved a little; parameters are `near` plus random numbers.
template <class Neck>
void check_neck(const typename Neck::Config& config, const Shape& in, const Shape& out,
                double near = 0) {
  Bench<Neck, double> bench("", config);
  const auto count = static_cast<std::int64_t>(bench.parameters.size());
  bench.parameters = random_values<double>(count, 11, 0.7);
  for (double& p : bench.parameters) p += near;
  for (double& s : bench.statistics) s += 0.25;
  if constexpr (requires { bench.component.input_size(); })
    CHECK(bench.component.input_size() == in.back());
  CHECK(bench.component.output_size() == out.back());
  auto x = random_values<double>(in.size(), 12);
  const auto upstream = random_values<double>(out.size(), 13), statistics = bench.statistics;
  const auto start = random_values<double>(count, 14);
  bench.gradients = start;
  const Passed<double> got = train_neck(bench, x, in, upstream);
  for (std::size_t i = 0; i < start.size(); ++i) bench.gradients[i] -= start[i];
  const auto gradients = bench.gradients;
  const auto loss = [&] {
    bench.statistics = statistics;
    return dot(train_neck(bench, x, in, upstream).y, upstream);
  };
  CHECK(difference(got.dx, central_differences(x, loss)) < 1e-6);
  for (const ParameterInfo& p : bench.table.entries()) {
    if (p.kind == ParameterKind::buffer) continue;
    INFO(p.name);
    for (std::int64_t i = 0; i < p.shape.size(); ++i) {
      double& value = bench.data(p)[i];
      const double kept = value, step = 1e-5;
      value = kept + step;
      const double up = loss();
      value = kept - step;
      const double slope = (up - loss()) / (2 * step);
      value = kept;
      CHECK(gradients[static_cast<std::size_t>(p.offset + i)] ==
            Approx(slope).epsilon(1e-6).margin(1e-7));
    }
  }
}

/// The text of the ConfigError that making the neck gives.
template <class Neck>
std::string neck_error(const typename Neck::Config& config) {
  ParameterTable table;
  try {
    Neck(config, Scope(table, "neck"));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace kindred::test
