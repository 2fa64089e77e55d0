#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/kernels/margin_softmax.hpp>
#include <kindred/kernels/softmax_cross_entropy.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

template <class T>
struct Problem {
  std::int64_t batch, dim, classes;
  double margin = 0.5, scale = 16;
  bool easy = false;
  T epsilon = 0, weight = 1;
  std::vector<T> x = random_values<T>(batch * dim, 1), w = random_values<T>(classes * dim, 2);
  std::vector<std::int64_t> labels = some_labels();
  std::vector<T> loss = poisoned<T>(1);
  std::vector<T> dx = std::vector<T>(x.size(), T(0)), dw = std::vector<T>(w.size(), T(0));

  std::vector<std::int64_t> some_labels() const {
    std::vector<std::int64_t> all;
    for (std::int64_t b = 0; b < batch; ++b) all.push_back((b * 7 + b / 3) % classes);
    all.back() = classes - 1;
    return all;
  }
  ArcMarginPolicy<T> policy() const { return {margin, scale, easy}; }

  /// Gradients are added to dx and dw.
  T fused(int threads = 2, bool gradients = true,
          std::int64_t store_limit = kernels::margin_softmax_store_limit) {
    cpu::Context ctx(threads);
    run_planned(ctx, [&] {
      kernels::margin_softmax(ctx, policy(), view(x, {batch, dim}), view(w, {classes, dim}),
                              labels.data(), epsilon, weight, view(loss, {1}),
                              gradients ? view(dx, {batch, dim}) : View<T>{},
                              gradients ? view(dw, {classes, dim}) : View<T>{}, store_limit);
    });
    return loss[0];
  }
  /// The same through the logits; adds to dx and dw as well.
  T materialised() {
    cpu::Context ctx(2);
    const Shape square{batch, classes};
    auto logits = poisoned<T>(square.size());
    std::vector<T> dlogits(logits.size(), T(0));
    auto dx_here = poisoned<T>(batch * dim);
    run_planned(ctx, [&] {
      kernels::margin_logits_forward(ctx, policy(), view(x, {batch, dim}), view(w, {classes, dim}),
                                     labels.data(), view(logits, square));
      if (!ctx.planning()) std::fill(dlogits.begin(), dlogits.end(), T(0));
      kernels::softmax_cross_entropy(ctx, view(logits, square), labels.data(), epsilon, weight,
                                     view(loss, {1}), view(dlogits, square));
      kernels::margin_logits_backward(ctx, policy(), view(dlogits, square), view(x, {batch, dim}),
                                      view(w, {classes, dim}), labels.data(),
                                      view(dx_here, {batch, dim}), view(dw, {classes, dim}));
    });
    for (std::size_t i = 0; i < dx.size(); ++i) dx[i] += dx_here[i];
    return loss[0];
  }
};

/// Loss and gradients written out in plain loops from the definition, without tiles and without
/// the library's code; d psi is taken from the definition of psi by hand.
struct Naive {
  double loss = 0;
  std::vector<double> dx, dw;

  explicit Naive(const Problem<double>& p) : dx(p.x.size(), 0.0), dw(p.w.size(), 0.0) {
    const auto D = static_cast<std::size_t>(p.dim), C = static_cast<std::size_t>(p.classes);
    auto norm = [&](const double* v) {
      double sum = 0;
      for (std::size_t d = 0; d < D; ++d) sum += v[d] * v[d];
      return std::sqrt(sum);
    };
    for (std::size_t i = 0; i < static_cast<std::size_t>(p.batch); ++i) {
      const double* xi = &p.x[i * D];
      const double n = norm(xi);
      const auto y = static_cast<std::size_t>(p.labels[i]);
      std::vector<double> c(C), z(C), slope(C, 1.0);
      for (std::size_t j = 0; j < C; ++j) {
        for (std::size_t d = 0; d < D; ++d) c[j] += xi[d] * p.w[j * D + d];
        c[j] /= n * norm(&p.w[j * D]);
        z[j] = p.scale * c[j];
      }
      const double sine = std::sqrt(1 - c[y] * c[y] + 1e-6), m = p.margin;
      if (c[y] > (p.easy ? 0.0 : -std::cos(m))) {
        z[y] = p.scale * (c[y] * std::cos(m) - sine * std::sin(m));
        slope[y] = std::cos(m) + std::sin(m) * c[y] / sine;
      } else if (!p.easy) {
        z[y] = p.scale * (c[y] - m * std::sin(m));
      }
      const double top = *std::max_element(z.begin(), z.end());
      double sum = 0;
      for (const double v : z) sum += std::exp(v - top);
      for (std::size_t j = 0; j < C; ++j) {
        const double t = (j == y ? 1 - p.epsilon : 0.0) + p.epsilon / static_cast<double>(C);
        const double log_p = z[j] - top - std::log(sum);
        loss -= t * log_p / static_cast<double>(p.batch);
        const double g =
            p.weight * p.scale / static_cast<double>(p.batch) * (std::exp(log_p) - t) * slope[j];
        const double r = norm(&p.w[j * D]);
        for (std::size_t d = 0; d < D; ++d) {
          const double u = xi[d] / n, v = p.w[j * D + d] / r;
          dx[i * D + d] += g * (v - c[j] * u) / n;
          dw[j * D + d] += g * (u - c[j] * v) / r;
        }
      }
    }
  }
};

/// Makes some rows nearly opposite to their centre, so that both branches of psi are taken.
void turn_away(Problem<double>& p) {
  for (std::int64_t b = 0; b < p.batch; b += 2)
    for (std::int64_t d = 0; d < p.dim; ++d) {
      double& v = p.x[static_cast<std::size_t>(b * p.dim + d)];
      const auto y = static_cast<std::size_t>(p.labels[static_cast<std::size_t>(b)] * p.dim + d);
      v = -p.w[y] + 0.2 * v;
    }
}

}  // namespace

TEST_CASE("margin softmax: gradients are the derivatives of the loss") {
  for (const bool easy : {false, true})
    for (const double epsilon : {0.0, 0.1})
      for (const double scale : {1.0, 16.0, 64.0}) {
        INFO("easy " << easy << " epsilon " << epsilon << " scale " << scale);
        Problem<double> p{.batch = 5,
                          .dim = 4,
                          .classes = 9,
                          .margin = 0.5,
                          .scale = scale,
                          .easy = easy,
                          .epsilon = epsilon,
                          .weight = 0.7};
        turn_away(p);
        p.dx = random_values<double>(20, 5);  // must be added to
        p.dw = random_values<double>(36, 6);
        const auto dx0 = p.dx, dw0 = p.dw;
        p.fused();
        auto dx = p.dx, dw = p.dw;
        for (std::size_t i = 0; i < dx.size(); ++i) dx[i] = (dx[i] - dx0[i]) / 0.7;
        for (std::size_t i = 0; i < dw.size(); ++i) dw[i] = (dw[i] - dw0[i]) / 0.7;
        auto loss = [&] { return p.fused(1, false); };
        CHECK(difference(dx, central_differences(p.x, loss, 1e-6)) < 1e-6);
        CHECK(difference(dw, central_differences(p.w, loss, 1e-6)) < 1e-6);
      }
}

TEST_CASE("margin softmax: the check above notices a straight-through margin") {
  struct StraightThrough : ArcMarginPolicy<double> {
    MarginTarget<double> target(double c, const double* row) const {
      return {ArcMarginPolicy<double>::target(c, row).value, 1.0};
    }
  };
  Problem<double> p{.batch = 5, .dim = 4, .classes = 9};
  cpu::Context ctx(1);
  run_planned(ctx, [&] {
    kernels::margin_softmax(ctx, StraightThrough{p.policy()}, view(p.x, {5, 4}), view(p.w, {9, 4}),
                            p.labels.data(), 0.0, 1.0, view(p.loss, {1}), view(p.dx, {5, 4}),
                            view(p.dw, {9, 4}));
  });
  const auto dx = p.dx;
  CHECK(difference(dx, central_differences(p.x, [&] { return p.fused(1, false); })) > 1e-3);
}

TEST_CASE("margin softmax: equals the written-out definition, in the fused and the other form") {
  struct Case {
    std::int64_t batch, dim, classes;
  };
  const std::int64_t tile = cpu::MarginTiles<double>(6, 40, 1 << 20, 1).tile;
  for (const Case& c : {Case{1, 3, 1},
                        {3, 5, 2},
                        {4, 1, 3},
                        {1, 8, 50},
                        {6, 40, tile - 1},
                        {6, 40, tile},
                        {6, 40, tile + 1},
                        {19, 33, 1031}})
    for (const double epsilon : {0.0, 0.1})
      for (const bool easy : {false, true}) {
        INFO("B " << c.batch << " D " << c.dim << " C " << c.classes << " epsilon " << epsilon);
        Problem<double> p{.batch = c.batch,
                          .dim = c.dim,
                          .classes = c.classes,
                          .margin = 0.3,
                          .scale = 30,
                          .easy = easy,
                          .epsilon = epsilon,
                          .weight = 1.3};
        turn_away(p);
        const Naive naive(p);
        CHECK(p.fused() == Approx(naive.loss).epsilon(1e-10).margin(1e-10));
        CHECK(difference(p.dx, naive.dx) < 1e-10);
        CHECK(difference(p.dw, naive.dw) < 1e-10);
        std::fill(p.dx.begin(), p.dx.end(), 0.0);
        std::fill(p.dw.begin(), p.dw.end(), 0.0);
        CHECK(p.materialised() == Approx(naive.loss).epsilon(1e-10).margin(1e-10));
        CHECK(difference(p.dx, naive.dx) < 1e-10);
        CHECK(difference(p.dw, naive.dw) < 1e-10);
      }
}

TEST_CASE("margin softmax: float follows double") {
  Problem<float> f{.batch = 33, .dim = 64, .classes = 3001, .scale = 64, .epsilon = 0.1f};
  Problem<double> d{.batch = 33, .dim = 64, .classes = 3001, .scale = 64, .epsilon = 0.1f};
  d.x.assign(f.x.begin(), f.x.end());
  d.w.assign(f.w.begin(), f.w.end());
  CHECK(f.fused() == Approx(d.fused()).epsilon(1e-5));
  auto relative = [](const std::vector<float>& a, const std::vector<double>& b) {
    double error = 0, size = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
      error += (a[i] - b[i]) * (a[i] - b[i]);
      size += b[i] * b[i];
    }
    return std::sqrt(error / size);
  };
  CHECK(relative(f.dx, d.dx) < 2e-5);
  CHECK(relative(f.dw, d.dw) < 2e-5);
}

TEST_CASE("margin softmax: the same bits for 1 and 2 threads, kept or recomputed cosines") {
  Problem<float> a{.batch = 17, .dim = 96, .classes = 20011, .epsilon = 0.1f}, b = a, c = a;
  CHECK(cpu::MarginTiles<float>(17, 96, 20011, 1).chunks > 2);
  const float loss = a.fused(1);
  CHECK(b.fused(2) == loss);
  CHECK(c.fused(2, true, 0) == loss);
  CHECK(a.dx == b.dx);
  CHECK(a.dw == b.dw);
  CHECK(a.dx == c.dx);
  CHECK(a.dw == c.dw);
}

TEST_CASE("margin softmax: any scale and number of classes stays finite") {
  for (const double scale : {80.0, 500.0, 1e4}) {
    for (const double sign : {-1.0, 1.0}) {  // all centres on one side: cosines near -1 or +1
      INFO("scale " << scale << " sign " << sign);
      Problem<float> p{.batch = 4, .dim = 8, .classes = 5000, .scale = scale};
      for (std::int64_t i = 0; i < 8; ++i)
        for (std::int64_t j = 0; j < 5000; ++j)
          p.w[static_cast<std::size_t>(j * 8 + i)] =
              static_cast<float>(sign * p.x[static_cast<std::size_t>(i)]) +
              0.01f * p.w[static_cast<std::size_t>(j * 8 + i)];
      Problem<double> d{.batch = 4, .dim = 8, .classes = 5000, .scale = scale};
      d.x.assign(p.x.begin(), p.x.end());
      d.w.assign(p.w.begin(), p.w.end());
      CHECK(p.fused() == Approx(d.fused()).epsilon(1e-3));
      for (const float v : p.dx) REQUIRE(std::isfinite(v));
      for (const float v : p.dw) REQUIRE(std::isfinite(v));
    }
  }
}

TEST_CASE("margin softmax: degenerate input") {
  SECTION("all samples of one class") {
    Problem<double> p{.batch = 8, .dim = 6, .classes = 40};
    std::fill(p.labels.begin(), p.labels.end(), 11);
    const Naive naive(p);
    CHECK(p.fused() == Approx(naive.loss).epsilon(1e-10));
    CHECK(difference(p.dx, naive.dx) < 1e-10);
    CHECK(difference(p.dw, naive.dw) < 1e-10);
  }
  SECTION("one class: nothing to learn") {
    Problem<double> p{.batch = 3, .dim = 4, .classes = 1};
    CHECK(p.fused() == 0);
    for (const double v : p.dx) CHECK(v == 0);
    for (const double v : p.dw) CHECK(v == 0);
  }
  SECTION("zero feature and zero centre have gradient 0 and disturb nobody") {
    Problem<float> p{.batch = 3, .dim = 4, .classes = 7};
    for (std::size_t i = 0; i < 4; ++i) p.x[4 + i] = p.w[8 + i] = 0;
    CHECK(std::isfinite(p.fused()));
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(p.dx[4 + i] == 0);
      CHECK(p.dw[8 + i] == 0);
    }
    for (const float v : p.dx) CHECK(std::isfinite(v));
    for (const float v : p.dw) CHECK(std::isfinite(v));
  }
  SECTION("a feature exactly at its centre") {
    Problem<float> p{.batch = 2, .dim = 16, .classes = 7};
    for (std::size_t i = 0; i < 16; ++i)
      p.x[i] = p.w[16 * static_cast<std::size_t>(p.labels[0]) + i] * 3;
    CHECK(std::isfinite(p.fused()));
    for (const float v : p.dx) CHECK(std::isfinite(v));
  }
  SECTION("NaN stays visible") {
    Problem<float> p{.batch = 2, .dim = 4, .classes = 7};
    p.w[9] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(p.fused()));
    Problem<float> q{.batch = 2, .dim = 4, .classes = 7};
    q.x[0] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(q.fused()));
  }
}

namespace {

/// Keeps what it is handed; counts how often an element was.
template <class T>
struct Keep final : RowUpdate<cpu::Context, T> {
  mutable std::vector<T> gradient;
  mutable std::vector<int> times;
  explicit Keep(std::size_t size) : gradient(size, T(0)), times(size, 0) {}
  void operator()(cpu::Context&, std::int64_t begin, std::int64_t n, const T* g,
                  const T* allowed) const override {
    if (*allowed == 0) return;
    for (std::int64_t i = 0; i < n; ++i) {
      gradient[static_cast<std::size_t>(begin + i)] = g[i];
      ++times[static_cast<std::size_t>(begin + i)];
    }
  }
};

/// Hands the gradients of p's centres to `keep`; returns whether they were.
template <class T>
bool hand_over(Problem<T>& p, const Keep<T>& keep, int threads,
               std::int64_t store_limit = kernels::margin_softmax_store_limit) {
  cpu::Context ctx(threads);
  auto taken = poisoned<T>(1);
  run_planned(ctx, [&] {
    kernels::margin_softmax_update(ctx, p.policy(), view(p.x, {p.batch, p.dim}),
                                   view(p.w, {p.classes, p.dim}), p.labels.data(), p.epsilon,
                                   p.weight, view(p.loss, {1}), view(p.dx, {p.batch, p.dim}), keep,
                                   view(taken, {1}), store_limit);
  });
  return taken[0] != 0;
}

}  // namespace

TEST_CASE("margin softmax: an update is handed the bits of the stored gradient, each row once") {
  for (const int threads : {1, 2})
    for (const std::int64_t store_limit : {std::int64_t{0}, kernels::margin_softmax_store_limit}) {
      Problem<float> stored{
          .batch = 19, .dim = 33, .classes = 3001, .epsilon = 0.1f, .weight = 0.7f};
      Problem<float> handed = stored;
      const Keep<float> keep(stored.w.size());
      const float loss = stored.fused(threads, true, store_limit);
      CHECK(hand_over(handed, keep, threads, store_limit));
      CHECK(handed.loss[0] == loss);
      CHECK(handed.dx == stored.dx);
      CHECK(keep.gradient == stored.dw);
      CHECK(std::all_of(keep.times.begin(), keep.times.end(), [](int n) { return n == 1; }));
    }
}

TEST_CASE("margin softmax: no update where the loss or a gradient of a centre is not finite") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const Problem<float> good{.batch = 3, .dim = 4, .classes = 900};
  const auto refused = [](Problem<float> p) {
    const Keep<float> keep(p.w.size());
    const bool taken = hand_over(p, keep, 2);
    CHECK(std::all_of(keep.times.begin(), keep.times.end(), [&](int n) { return n == taken; }));
    return !taken;
  };
  CHECK_FALSE(refused(good));
  Problem<float> p = good;
  p.x[5] = nan;
  CHECK(refused(p));
  p = good;
  p.w[801] = nan;
  CHECK(refused(p));
  p = good;
  p.w[801] = std::numeric_limits<float>::infinity();
  CHECK(refused(p));
  p = good;
  p.weight = std::numeric_limits<float>::infinity();
  CHECK(refused(p));
  p = good;
  for (std::size_t d = 0; d < 4; ++d) p.w[800 + d] = 1e-21f;  // dw = 1 / |w| ...
  CHECK(refused(p));
  CHECK(std::isfinite(p.fused()));  // ... and not the loss
  p = good;
  for (std::size_t d = 0; d < 4; ++d) p.w[800 + d] = 0;  // has gradient 0
  CHECK_FALSE(refused(p));
}

TEST_CASE("margin logits: unscaled cosines in evaluation") {
  Problem<double> p{.batch = 3, .dim = 5, .classes = 21};
  auto cosines = poisoned<double>(63);
  cpu::Context ctx(2);
  run_planned(ctx, [&] {
    kernels::margin_logits(ctx, view(p.x, {3, 5}), view(p.w, {21, 5}), view(cosines, {3, 21}));
  });
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 21; ++j) {
      double xx = 0, ww = 0, xw = 0;
      for (std::size_t d = 0; d < 5; ++d) {
        xx += p.x[i * 5 + d] * p.x[i * 5 + d];
        ww += p.w[j * 5 + d] * p.w[j * 5 + d];
        xw += p.x[i * 5 + d] * p.w[j * 5 + d];
      }
      CHECK(cosines[i * 21 + j] == Approx(xw / std::sqrt(xx * ww)));
    }
}

TEST_CASE("margin softmax: the memory above centres and their gradient stays below 64 MiB") {
  for (const std::int64_t batch : {1, 64, 256, 512}) {
    cpu::Context ctx(2);
    ctx.arena().begin_recording();
    const View<const float> x{nullptr, {batch, 512}}, w{nullptr, {185341, 512}};
    float somewhere = 0;
    kernels::margin_softmax(ctx, ArcMarginPolicy<float>(0.2, 30), x, w, nullptr, 0.f, 1.f,
                            View<float>{&somewhere, {1}}, View<float>{&somewhere, x.shape},
                            View<float>{&somewhere, w.shape});
    const Plan plan = ctx.arena().end_recording();
    INFO("B " << batch << ": " << plan);
    CHECK(plan.bytes() < (std::size_t{64} << 20));
    const Keep<float> keep(0);
    ctx.arena().begin_recording();
    kernels::margin_softmax_update(ctx, ArcMarginPolicy<float>(0.2, 30), x, w, nullptr, 0.f, 1.f,
                                   View<float>{&somewhere, {1}}, View<float>{&somewhere, x.shape},
                                   keep, View<float>{&somewhere, {1}});
    CHECK(ctx.arena().end_recording().bytes() < (std::size_t{64} << 20));
  }
}

TEST_CASE("margin softmax: bad labels, shapes and settings are named") {
  Problem<float> p{.batch = 2, .dim = 4, .classes = 7};
  p.labels[1] = 7;
  CHECK_THROWS_WITH(p.fused(), ContainsSubstring("label 7 of row 1 is not in [0, 7)"));
  Problem<float> scale{.batch = 2, .dim = 4, .classes = 7, .scale = 0};
  CHECK_THROWS_AS(scale.fused(), ConfigError);
  cpu::Context ctx(1);
  CHECK_THROWS_WITH(kernels::margin_softmax(ctx, p.policy(), view(p.x, {2, 4}), view(p.w, {4, 7}),
                                            p.labels.data(), 0.f, 1.f, view(p.loss, {1}),
                                            view(p.dx, {2, 4}), view(p.dw, {7, 4})),
                    ContainsSubstring("margin_softmax: w: expected [4, 4], got [4, 7]"));
}
