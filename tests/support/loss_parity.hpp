#pragma once
// A loss on features against the cases of a fixture: value, gradients of features, logits and own
// parameters.

#include <string>
#include <type_traits>
#include <utility>

#include "support/loss_check.hpp"
#include "support/parity.hpp"

namespace kindred::test {

/// The settings of one case; `flag` and `whole` for those that are not real numbers.
struct Settings {
  const Fixture& one;
  double operator()(const std::string& key) const { return one.attribute(key); }
  bool flag(const std::string& key) const { return one.attribute(key) != 0; }
  std::int64_t whole(const std::string& key) const {
    return static_cast<std::int64_t>(one.attribute(key));
  }
};

/// The parameter under the name that the reference gives it.
inline ParameterInfo reference_name(ParameterInfo p) {
  p.name = p.name.substr(std::string("loss.").size());
  return p;
}

/// Runs every case "NAME.*" of the file, `cases` in number, with the Config that make(Settings)
/// gives; the loss itself is checked by value(got, expected, case, limit). `single_constants` for
/// a reference whose settings are in single precision even where it computes in double.
template <class Loss, class T, class Make, class Value>
void check_cases(const Fixture& fixture, std::size_t cases, Make&& make, Value&& value,
                 bool single_constants) {
  const double limit = !std::is_same_v<T, double> ? 1e-4 : single_constants ? 1e-7 : 1e-9;
  std::size_t count = 0;
  for (const std::string& name : fixture.cases()) {
    if (!name.starts_with(std::string(Loss::name()) + ".")) continue;
    ++count;
    INFO(name);
    const Fixture one = fixture.at(name);
    LossBench<Loss, T> bench(make(Settings{one}));
    for (const ParameterInfo& p : bench.table.entries())
      one.read("param", reference_name(p), bench.at(p));
    LossCase<T> c{one.shape("in.features")[1], one.stored<T>("in.features"), one.labels()};
    if (one.has("in.logits")) c.logits = one.stored<T>("in.logits");
    value(static_cast<double>(bench(c)), one.number("out.loss"), one, limit);
    CHECK(bench.active() > 0);
    CHECK(relative_difference(bench.dfeatures, one.stored<double>("grad.features")) < limit);
    if (one.has("grad.logits"))
      CHECK(relative_difference(bench.dlogits, one.stored<double>("grad.logits")) < limit);
    for (const ParameterInfo& p : bench.table.entries())
      CHECK(difference_from(one, "grad_param", reference_name(p),
                            bench.dparameters.data() + p.offset) < limit);
  }
  CHECK(count == cases);
}
template <class Loss, class T, class Make>
void check_cases(const Fixture& fixture, std::size_t cases, Make&& make,
                 bool single_constants = false) {
  check_cases<Loss, T>(
      fixture, cases, make,
      [](double got, double expected, const Fixture&, double limit) {
        CHECK(relative_difference(got, expected) < limit);
      },
      single_constants);
}

}  // namespace kindred::test
