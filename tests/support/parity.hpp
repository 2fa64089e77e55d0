#pragma once
// Shared by the parity tests: reading the fixtures of tests/fixtures (their README has the names),
// the layouts of Paddle, strict comparison, and one component run outside of a model.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/core/run.hpp>
#include <kindred/io/weights.hpp>

#include "support/numeric.hpp"

namespace kindred::test {

/// Paddle keeps the attributes of operators in single precision, even where it computes in double.
/// A parity test in double must use the same numbers.
inline double single(double value) { return static_cast<double>(static_cast<float>(value)); }

/// Paddle's hardsigmoid is clip(slope x + 0.5) with slope 0.1666667f, kindred's has the exact 1/6.
/// This ratio of the two times the input turns one into the other.
inline double hardsigmoid_slope_ratio() { return 6 * static_cast<double>(0.1666667f); }

/// Paddle's gradient of average pooling multiplies by 1 / area in single precision; kindred's does
/// not round it. The ratio of the two.
inline double pool_gradient_ratio(std::int64_t area) {
  const double n = static_cast<double>(area);
  return single(1 / n) * n;
}

/// 1e-9 in double, 1e-5 in float: relative to the largest reference.
template <class T>
constexpr double tolerance = std::is_same_v<T, double> ? 1e-9 : 1e-5;
/// The same with label smoothing: Paddle's smoothed target is in single precision.
template <class T>
constexpr double smoothed_tolerance = std::is_same_v<T, double> ? 1e-7 : 1e-5;

/// Largest |a - b| divided by the largest |b|; infinite for NaN, for another size, and for a
/// reference of zeros, which would prove nothing.
template <class A, class B>
double relative_difference(const A& a, const B& b) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if constexpr (std::is_arithmetic_v<A>) {  // two numbers
    return relative_difference(std::vector<A>{a}, std::vector<B>{b});
  } else {
    if (a.size() != b.size()) return infinite;
    double worst = 0, scale = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
      const double reference = static_cast<double>(b[i]);
      const double d = std::abs(static_cast<double>(a[i]) - reference);
      if (!(d < infinite)) return infinite;
      worst = std::max(worst, d);
      scale = std::max(scale, std::abs(reference));
    }
    return scale > 0 ? worst / scale : infinite;
  }
}

template <class T>
std::vector<T> zeros(const Shape& shape) {
  return std::vector<T>(static_cast<std::size_t>(shape.size()));
}

template <class A>
bool all_zero(const A& values) {
  for (const auto v : values)
    if (!(v == 0)) return false;
  return true;
}

/// [B,C,H,W] -> [B,H,W,C].
template <class T>
std::vector<T> nhwc(const std::vector<T>& x, const std::vector<std::int64_t>& shape) {
  const auto c = static_cast<std::size_t>(shape[1]);
  const auto area = static_cast<std::size_t>(shape[2] * shape[3]);
  std::vector<T> out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    out[(i / (c * area) * area + i % area) * c + i / area % c] = x[i];
  return out;
}

/// One fixture file, or one case of it.
class Fixture {
 public:
  explicit Fixture(const std::string& name, const std::string& source = "paddleclas")
      : file_(std::make_shared<io::SafetensorsFile>(std::string(KINDRED_FIXTURES) + "/" + name +
                                                    ".safetensors")) {
    REQUIRE(file_->metadata().at("source") == source);
  }

  /// The names of the cases.
  std::vector<std::string> cases() const {
    std::istringstream list(file_->metadata().at("cases"));
    std::vector<std::string> names;
    for (std::string name; std::getline(list, name, ',');) names.push_back(name);
    REQUIRE_FALSE(names.empty());
    return names;
  }
  Fixture at(const std::string& name) const {
    Fixture one = *this;
    one.prefix_ = name + ".";
    return one;
  }

  bool has(const std::string& name) const { return file_->find(prefix_ + name) != nullptr; }
  /// The part of the names after `group` + ".", for every tensor of that group.
  std::vector<std::string> names(const std::string& group) const {
    std::vector<std::string> out;
    const std::string begin = prefix_ + group + ".";
    for (const io::TensorInfo& t : file_->tensors())
      if (t.name.starts_with(begin)) out.push_back(t.name.substr(begin.size()));
    return out;
  }
  /// Extents in Paddle's layout.
  const std::vector<std::int64_t>& extents(const std::string& name) const {
    return tensor(name).shape;
  }
  /// The extents as kindred has them: those of images turned to [B,H,W,C].
  Shape shape(const std::string& name) const {
    const auto& e = extents(name);
    if (e.size() == 4) return {e[0], e[2], e[3], e[1]};
    if (e.size() == 2) return {e[0], e[1]};
    REQUIRE(e.size() == 1);
    return {e[0]};
  }

  /// The values as stored.
  template <class T>
  std::vector<T> stored(const std::string& name) const {
    return file_->read<T>(tensor(name).name);
  }
  /// The values in kindred's layout of features and images.
  template <class T>
  std::vector<T> values(const std::string& name) const {
    auto v = stored<T>(name);
    return extents(name).size() == 4 ? nhwc(v, extents(name)) : v;
  }
  std::vector<std::int64_t> labels(const std::string& name = "in.label") const {
    return stored<std::int64_t>(name);
  }
  /// The bytes of an 8-bit tensor, a type that parameters never have.
  std::vector<unsigned char> bytes(const std::string& name) const {
    const io::TensorInfo& t = tensor(name);
    REQUIRE(t.dtype == "U8");
    std::ifstream in(file_->path(), std::ios::binary);
    std::uint64_t header = 0;
    in.read(reinterpret_cast<char*>(&header), sizeof header);
    in.seekg(static_cast<std::streamoff>(8 + header + t.begin));
    std::vector<unsigned char> out(static_cast<std::size_t>(t.size()));
    in.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
    REQUIRE(in.good());
    return out;
  }
  /// A single number, whole or not.
  double number(const std::string& name) const {
    const io::TensorInfo& t = tensor(name);
    REQUIRE(t.size() == 1);
    return t.dtype == "I64" ? static_cast<double>(stored<std::int64_t>(name)[0])
                            : stored<double>(name)[0];
  }
  double attribute(const std::string& name) const { return number("attr." + name); }

  /// Reads `group`.NAME, stored in Paddle's layout, to where the parameter lies in memory.
  template <class T>
  void read(const std::string& group, const ParameterInfo& p, T* values) const {
    const io::TensorInfo& t = tensor(group + "." + p.name);
    REQUIRE(t.shape == io::detail::FileOrder(p).shape);
    io::detail::read_parameter(*file_, t, p, values);
  }

 private:
  const io::TensorInfo& tensor(const std::string& name) const {
    const io::TensorInfo* found = file_->find(prefix_ + name);
    INFO("tensor " << prefix_ << name);
    REQUIRE(found != nullptr);
    return *found;
  }

  std::shared_ptr<const io::SafetensorsFile> file_;
  std::string prefix_;
};

/// The values of a parameter in the order in which Paddle stores them.
template <class T>
std::vector<T> in_file_order(const ParameterInfo& p, const T* values) {
  const io::detail::FileOrder order(p);
  std::vector<T> out(values, values + p.shape.size());
  if (p.layout == FileLayout::same) return out;
  for (std::int64_t i = 0; i < order.first; ++i)
    for (std::int64_t r = 0; r < order.rest; ++r)
      out[static_cast<std::size_t>(i * order.rest + r)] = values[order.row_of(r) * order.first + i];
  return out;
}

/// Difference of a parameter-like array from `group`.NAME, which may be sampled: then the samples
/// and the norm of the whole count.
template <class T>
double difference_from(const Fixture& fixture, const std::string& group, const ParameterInfo& p,
                       const T* values) {
  const std::vector<T> got = in_file_order(p, values);
  if (fixture.has(group + "." + p.name)) {
    REQUIRE(fixture.extents(group + "." + p.name) == io::detail::FileOrder(p).shape);
    return relative_difference(got, fixture.stored<double>(group + "." + p.name));
  }
  const auto stride = static_cast<std::size_t>(fixture.number(group + "_stride." + p.name));
  const auto expected = fixture.stored<double>(group + "_sample." + p.name);
  std::vector<T> samples;
  double squares = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (i % stride == 0) samples.push_back(got[i]);
    squares += static_cast<double>(got[i]) * static_cast<double>(got[i]);
  }
  const std::vector<double> norm{std::sqrt(squares)};
  return std::max(relative_difference(samples, expected),
                  relative_difference(norm, fixture.stored<double>(group + "_norm." + p.name)));
}

/// Mean softmax cross-entropy in which no z - max(z) is let below -cut. Paddle's CPU kernel cuts at
/// 64, so that its loss (not its gradient) of a hopeless row stays near 64; kindred does not cut.
template <class T>
double cross_entropy(const std::vector<T>& logits, const std::vector<std::int64_t>& labels,
                     double cut = std::numeric_limits<double>::infinity()) {
  const std::size_t classes = logits.size() / labels.size();
  double loss = 0;
  for (std::size_t b = 0; b < labels.size(); ++b) {
    const T* z = logits.data() + b * classes;
    const T largest = *std::max_element(z, z + classes);
    const auto below = [&](std::size_t c) {
      return std::max(static_cast<double>(z[c]) - static_cast<double>(largest), -cut);
    };
    double sum = 0;
    for (std::size_t c = 0; c < classes; ++c) sum += std::exp(below(c));
    loss += std::log(sum) - below(static_cast<std::size_t>(labels[b]));
  }
  return loss / static_cast<double>(labels.size());
}
inline constexpr double paddle_cut = 64;

/// What a component gave for an input and an upstream gradient.
template <class T>
struct Passed {
  std::vector<T> y, dx;
};

/// One component with its own parameters, run as a model runs it. Parameters start at zero, buffers
/// as in a model.
template <class Component, class T>
class Bench {
 public:
  /// `slot` is the prefix of the names in the fixture, such as "backbone".
  template <class... Config>
  explicit Bench(const std::string& slot, const Config&... config)
      : component(config..., Scope(table, slot)),
        parameters(size(table.trainable_size())),
        statistics(size(table.buffer_size())),
        gradients(size(table.trainable_size())) {
    for (const ParameterInfo& p : table.entries())
      if (p.kind == ParameterKind::buffer)
        p.initializer.fill(View<T>{data(p), p.shape}, RandomKey{});
  }

  /// Takes every parameter and buffer from `group`, and leaves none of the group over.
  void load(const Fixture& fixture, const std::string& group = "param") {
    for (const ParameterInfo& p : table.entries()) fixture.read(group, p, data(p));
    REQUIRE(fixture.names(group).size() == table.entries().size());
  }
  void load_buffers(const Fixture& fixture, const std::string& group) {
    std::size_t count = 0;
    for (const ParameterInfo& p : table.entries()) {
      if (p.kind != ParameterKind::buffer) continue;
      fixture.read(group, p, data(p));
      ++count;
    }
    REQUIRE(count > 0);
    REQUIRE(fixture.names(group).size() == count);
  }
  T* data(const ParameterInfo& p) {
    return (p.kind == ParameterKind::buffer ? statistics : parameters).data() + p.offset;
  }
  T* gradient(const ParameterInfo& p) { return gradients.data() + p.offset; }
  const ParameterInfo& info(const std::string& name) const {
    const ParameterInfo* p = table.find(name);
    REQUIRE(p != nullptr);
    return *p;
  }

  Run<cpu::Context, T> run(bool training) {
    return {.ctx = context,
            .parameters = parameters.data(),
            .statistics = statistics.data(),
            .new_statistics = training ? statistics.data() : nullptr,
            .gradients = training ? gradients.data() : nullptr,
            .training = training,
            .input_gradient = true,
            .random = {}};
  }
  /// forward(run) -> y.
  template <class Forward>
  std::vector<T> evaluate(Forward&& forward) {
    std::vector<T> out;
    run_planned(context, [&] {
      const Tensor<T> y = forward(run(false));
      if (!context.planning()) out.assign(y.begin(), y.end());
    });
    return out;
  }
  /// forward(run) -> y, backward(run, dy) -> dx with dy the upstream gradient.
  template <class Forward, class Backward>
  Passed<T> train(const std::vector<T>& upstream, Forward&& forward, Backward&& backward) {
    Passed<T> out;
    run_planned(context, [&] {
      const auto r = run(true);
      Tensor<T> y = forward(r);
      if (!context.planning()) out.y.assign(y.begin(), y.end());
      auto dy = r.make(y.shape, "upstream");
      y.reset();
      REQUIRE(dy.size() == static_cast<std::int64_t>(upstream.size()));
      if (!context.planning()) std::copy(upstream.begin(), upstream.end(), dy.begin());
      const Tensor<T> dx = backward(r, std::move(dy));
      if (!context.planning()) out.dx.assign(dx.begin(), dx.end());
    });
    return out;
  }

  /// Checks every parameter gradient against `group`, whose tensors are all used.
  void check_gradients(const Fixture& fixture, double limit,
                       const std::string& group = "grad_param") {
    std::size_t count = 0;
    for (const ParameterInfo& p : table.entries()) {
      if (p.kind == ParameterKind::buffer) continue;
      INFO(group << "." << p.name);
      CHECK(difference_from(fixture, group, p, gradient(p)) < limit);
      ++count;
    }
    REQUIRE(fixture.names(group).size() + fixture.names(group + "_sample").size() == count);
  }

  ParameterTable table;
  Component component;
  cpu::Context context{2};
  std::vector<T> parameters, statistics, gradients;

 private:
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
};

/// Trains a bench whose component has forward(run, x, saved), as necks have.
template <class T>
Passed<T> train_neck(auto& bench, const std::vector<T>& x, const Shape& shape,
                     const std::vector<T>& upstream) {
  typename std::remove_cvref_t<decltype(bench.component)>::template Saved<T> saved;
  return bench.train(
      upstream,
      [&](const auto& run) { return bench.component.forward(run, view(x, shape), saved); },
      [&](const auto& run, Tensor<T> dy) {
        return bench.component.backward(run, std::move(dy), view(x, shape), saved);
      });
}

/// After one training step with running = 0.9 running + 0.1 batch: what Paddle's 0.9f makes of the
/// same batch. `before` are the running statistics of before the step.
template <class T>
void use_single_momentum(const std::vector<T>& before, std::vector<T>& running) {
  REQUIRE(before.size() == running.size());
  const double momentum = single(0.9);
  for (std::size_t i = 0; i < running.size(); ++i) {
    const double old = static_cast<double>(before[i]);
    const double batch = (static_cast<double>(running[i]) - 0.9 * old) / (1 - 0.9);
    running[i] = static_cast<T>(momentum * old + (1 - momentum) * batch);
  }
}

}  // namespace kindred::test
