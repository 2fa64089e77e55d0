#pragma once
// One training step of a margin head with cross-entropy, fused and through its logits; and the same
// from a definition of the logits, by central differences.

#include <functional>

#include <kindred/head/margin_head.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/softmax_cross_entropy.hpp>

#include "support/parity.hpp"

namespace kindred::test {

/// What a step gave.
template <class T>
struct HeadStep {
  T loss;
  std::vector<T> dx, dw, logits, statistics;
};

template <class Head, class T>
HeadStep<T> begin_step(const Bench<Head, T>& bench, const Shape& shape) {
  return {std::numeric_limits<T>::quiet_NaN(),
          zeros<T>(shape),
          std::vector<T>(bench.gradients.size()),
          {},
          {}};
}

/// Cross-entropy without logits. Statistics of batches start from where they are, and stay.
template <class Head, class T>
HeadStep<T> fused_step(Bench<Head, T>& bench, const std::vector<T>& x, const Shape& shape,
                       const std::vector<std::int64_t>& labels, T epsilon = 0) {
  HeadStep<T> step = begin_step(bench, shape);
  const auto statistics = bench.statistics;
  std::fill(bench.gradients.begin(), bench.gradients.end(), T(0));
  run_planned(bench.context, [&] {
    bench.component.margin_cross_entropy(bench.run(true), view(x, shape), view(labels, {shape[0]}),
                                         epsilon, T(1), View<T>{&step.loss, {1}},
                                         view(step.dx, shape));
  });
  step.dw = bench.gradients;
  step.statistics = bench.statistics;
  bench.statistics = statistics;
  return step;
}

/// The same through the [B,C] logits.
template <class Head, class T>
HeadStep<T> logit_step(Bench<Head, T>& bench, const std::vector<T>& x, const Shape& shape,
                       const std::vector<std::int64_t>& labels, T epsilon = 0) {
  HeadStep<T> step = begin_step(bench, shape);
  const auto statistics = bench.statistics;
  std::fill(bench.gradients.begin(), bench.gradients.end(), T(0));
  typename Head::template Saved<T> saved;
  run_planned(bench.context, [&] {
    const auto run = bench.run(true);
    const auto y = view(labels, {shape[0]});
    const Tensor<T> logits = bench.component.forward(run, view(x, shape), y, saved);
    auto d = run.make(logits.shape, "dlogits");
    kernels::fill(run.ctx, T(0), d);
    kernels::softmax_cross_entropy(run.ctx, logits, labels.data(), epsilon, T(1),
                                   View<T>{&step.loss, {1}}, d);
    if (!run.ctx.planning()) step.logits.assign(logits.begin(), logits.end());
    const Tensor<T> dx = bench.component.backward(run, std::move(d), view(x, shape), y, saved);
    if (!run.ctx.planning()) step.dx.assign(dx.begin(), dx.end());
  });
  step.dw = bench.gradients;
  step.statistics = bench.statistics;
  bench.statistics = statistics;
  return step;
}

/// A logit over the scale, written out: of cosine c, where `fixed` is the same cosine as a constant
/// to the gradient; `label`: of the label; of row i with that norm and cosine to its label.
struct CosineOf {
  double c, fixed;
  bool label;
  std::size_t i;
  double norm, own;
};
using LogitDefinition = std::function<double(const CosineOf&)>;

/// A head whose loss and gradients are checked against the definition of its logits.
template <class Head>
struct DefinitionCheck {
  std::int64_t batch, dim, classes, sub_centers = 1;
  typename Head::Config config;
  double scale;
  LogitDefinition logit;

  std::vector<double> x = random_values<double>(batch * dim, 1);
  std::vector<double> w = random_values<double>(classes * sub_centers * dim, 2);
  std::vector<std::int64_t> labels = some_labels();

  std::vector<std::int64_t> some_labels() const {
    std::vector<std::int64_t> all;
    for (std::int64_t b = 0; b < batch; ++b) all.push_back((b * 7 + b / 3) % classes);
    return all;
  }
  static double cosine(const double* a, const double* b, std::size_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t d = 0; d < n; ++d) {
      ab += a[d] * b[d];
      aa += a[d] * a[d];
      bb += b[d] * b[d];
    }
    return ab / std::sqrt(aa * bb);
  }
  /// c_ij, the largest of the centres of j.
  std::vector<double> cosines() const {
    const auto D = static_cast<std::size_t>(dim), K = static_cast<std::size_t>(sub_centers);
    const auto B = static_cast<std::size_t>(batch), C = static_cast<std::size_t>(classes);
    std::vector<double> all;
    for (std::size_t i = 0; i < B; ++i)
      for (std::size_t j = 0; j < C; ++j) {
        double best = -2;
        for (std::size_t k = 0; k < K; ++k)
          best = std::max(best, cosine(&x[i * D], &w[(j * K + k) * D], D));
        all.push_back(best);
      }
    return all;
  }
  double loss(const std::vector<double>& fixed, double epsilon) const {
    const auto D = static_cast<std::size_t>(dim), C = static_cast<std::size_t>(classes);
    const std::vector<double> c = cosines();
    double sum = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const auto y = static_cast<std::size_t>(labels[i]);
      double square = 0, total = 0, mean = 0;
      for (std::size_t d = 0; d < D; ++d) square += x[i * D + d] * x[i * D + d];
      std::vector<double> z(C);
      for (std::size_t j = 0; j < C; ++j)
        z[j] = scale *
               logit({c[i * C + j], fixed[i * C + j], j == y, i, std::sqrt(square), c[i * C + y]});
      const double top = *std::max_element(z.begin(), z.end());
      for (const double v : z) {
        total += std::exp(v - top);
        mean += v / static_cast<double>(C);
      }
      sum += std::log(total) + top - (1 - epsilon) * z[y] - epsilon * mean;
    }
    return sum / static_cast<double>(batch);
  }

  /// Loss and gradients of both forms against the definition.
  void operator()(double epsilon = 0.1) {
    Bench<Head, double> bench("", config);
    REQUIRE(bench.parameters.size() >= w.size());
    std::copy(w.begin(), w.end(), bench.parameters.begin());
    const Shape shape{batch, dim};
    const HeadStep<double> fused = fused_step(bench, x, shape, labels, epsilon);
    const HeadStep<double> logits = logit_step(bench, x, shape, labels, epsilon);
    const std::vector<double> fixed = cosines();
    auto f = [&] { return loss(fixed, epsilon); };
    CHECK(fused.loss == Approx(f()).epsilon(1e-10));
    CHECK(logits.loss == Approx(f()).epsilon(1e-10));
    const auto dx = central_differences(x, f, 1e-6), dw = central_differences(w, f, 1e-6);
    for (const HeadStep<double>* step : {&fused, &logits}) {
      CHECK(difference(step->dx, dx) < 1e-6);
      CHECK(difference(step->dw.data(), dw.data(), static_cast<std::int64_t>(dw.size())) < 1e-6);
    }
    CHECK(difference(fused.dx, logits.dx) < 1e-11);
    CHECK(difference(fused.dw, logits.dw) < 1e-11);
  }
};

/// Loss and gradients in float lie near those in double, over several tiles of classes.
template <class Head>
void check_float(typename Head::Config config) {
  constexpr std::int64_t batch = 33, dim = 20;
  config.embedding_size = dim;
  Bench<Head, float> bench("", config);
  Bench<Head, double> exact("", config);
  bench.parameters = random_values<float>(static_cast<std::int64_t>(bench.parameters.size()), 5);
  exact.parameters.assign(bench.parameters.begin(), bench.parameters.end());
  const auto x = random_values<float>(batch * dim, 6);
  std::vector<std::int64_t> labels;
  for (std::int64_t b = 0; b < batch; ++b) labels.push_back((b * 37) % config.class_num);
  const auto got = fused_step(bench, x, {batch, dim}, labels, 0.1f);
  const auto wanted =
      fused_step(exact, std::vector<double>(x.begin(), x.end()), {batch, dim}, labels, 0.1);
  CHECK(static_cast<double>(got.loss) == Approx(wanted.loss).epsilon(1e-5));
  CHECK(relative_difference(got.dx, wanted.dx) < 1e-4);
  CHECK(relative_difference(got.dw, wanted.dw) < 1e-4);
}

/// The text of the ConfigError that making the head gives.
template <class Head>
std::string head_error(const typename Head::Config& config) {
  ParameterTable table;
  try {
    Head(config, Scope(table, "head"));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

/// One class, one sample, a zero row, and a label out of range. `complete` sets what follows from
/// class_num.
template <class Head>
void check_degenerate(
    typename Head::Config config,
    const std::function<void(typename Head::Config&)>& complete = [](auto&) {}) {
  config.embedding_size = 4;
  for (const std::int64_t classes : {std::int64_t{1}, std::int64_t{5}}) {
    config.class_num = classes;
    complete(config);
    Bench<Head, float> bench("", config);
    bench.parameters = random_values<float>(static_cast<std::int64_t>(bench.parameters.size()), 3);
    for (const std::int64_t batch : {std::int64_t{1}, std::int64_t{3}}) {
      INFO("classes " << classes << " batch " << batch);
      auto x = random_values<float>(batch * 4, 4);
      std::fill(x.begin(), x.begin() + 4, 0.f);
      std::vector<std::int64_t> labels(static_cast<std::size_t>(batch), classes - 1);
      for (const auto& step :
           {fused_step(bench, x, {batch, 4}, labels), logit_step(bench, x, {batch, 4}, labels)}) {
        CHECK(std::isfinite(step.loss));
        if (classes == 1) CHECK(step.loss == 0);
        for (const float v : step.dx) REQUIRE(std::isfinite(v));
        for (const float v : step.dw) REQUIRE(std::isfinite(v));
        for (std::size_t d = 0; d < 4; ++d) CHECK(step.dx[d] == 0);
      }
      labels[0] = classes;
      CHECK_THROWS_AS(fused_step(bench, x, {batch, 4}, labels), DataError);
      CHECK_THROWS_AS(logit_step(bench, x, {batch, 4}, labels), DataError);
    }
  }
  config.class_num = 0;
  ParameterTable table;
  CHECK_THROWS_WITH(Head(config, Scope(table, "head")),
                    ContainsSubstring(std::string("head.") + Head::name() + ": embedding_size"));
}

}  // namespace kindred::test
