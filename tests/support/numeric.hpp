#pragma once
// Shared by the tests of kernels and components: random arrays, comparison, central differences,
// and a context that runs one planned pass.

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/core/random.hpp>

#include "support/catch.hpp"

namespace kindred::test {

/// n values from Normal(0, 1), reproducible by `stream`.
template <class T>
std::vector<T> random_values(std::int64_t n, std::uint64_t stream, double scale = 1) {
  RandomSequence random({7, stream, 0});
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& v : values) v = static_cast<T>(scale * random.normal());
  return values;
}

template <class T>
std::vector<T> poisoned(std::int64_t n) {
  return std::vector<T>(static_cast<std::size_t>(n), std::numeric_limits<T>::quiet_NaN());
}

template <class T>
View<T> view(std::vector<T>& values, const Shape& shape) {
  REQUIRE(static_cast<std::int64_t>(values.size()) == shape.size());
  return {values.data(), shape};
}
template <class T>
View<const T> view(const std::vector<T>& values, const Shape& shape) {
  REQUIRE(static_cast<std::int64_t>(values.size()) == shape.size());
  return {values.data(), shape};
}

/// Largest |a - b| / max(1, largest |b|); infinite if any element is NaN.
template <class T>
double difference(const T* a, const T* b, std::int64_t n) {
  double worst = 0, scale = 1;
  for (std::int64_t i = 0; i < n; ++i) scale = std::max(scale, std::abs(double(b[i])));
  for (std::int64_t i = 0; i < n; ++i) {
    const double d = std::abs(double(a[i]) - double(b[i]));
    if (!(d <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, d);
  }
  return worst / scale;
}
template <class T>
double difference(const std::vector<T>& a, const std::vector<T>& b) {
  REQUIRE(a.size() == b.size());
  return difference(a.data(), b.data(), static_cast<std::int64_t>(a.size()));
}

/// Runs `pass` twice: once to plan its memory and once for real, with poisoned memory.
inline void run_planned(cpu::Context& ctx, const std::function<void()>& pass) {
  ctx.arena().set_poison(true);
  ctx.arena().begin_recording();
  pass();
  const Plan plan = ctx.arena().end_recording();
  ctx.arena().begin_replay(plan);
  pass();
}

/// d f / d x by central differences with a fixed step, in double. `f` reads x through its
/// reference.
inline std::vector<double> central_differences(std::vector<double>& x,
                                               const std::function<double()>& f,
                                               double step = 1e-5) {
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + step;
    const double up = f();
    x[i] = kept - step;
    const double down = f();
    x[i] = kept;
    gradient[i] = (up - down) / (2 * step);
  }
  return gradient;
}

/// Sum of a[i] * b[i]: turns an output into a scalar with a random upstream gradient.
inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace kindred::test
