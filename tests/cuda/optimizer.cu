// Updates of parameters and checks on gradients, CPU against CUDA.

#include <kindred/kernels/check_labels.hpp>
#include <kindred/kernels/optimizer.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#else
#include <kindred/kernels/cuda/check_labels.cuh>
#include <kindred/kernels/cuda/optimizer.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

constexpr std::int64_t sizes[] = {1, 31, 33, 257, 20001};

KINDRED_PARITY(momentum_update) {
  for (const bool nesterov : {false, true})
    for (const std::int64_t n : sizes) {
      const auto p = side.input(random_values<T>(n, 1), {n}),
                 v = side.input(random_values<T>(n, 2), {n}),
                 g = side.input(random_values<T>(n, 3), {n});
      side.run([&] {
        kernels::apply_rule(side.ctx, MomentumRule<T>{T(0.1), T(0.9), T(0.01), nesterov}, p, g,
                            {v});
        kernels::apply_rule(side.ctx, MomentumRule<T>{T(0.05), T(0.9), T(0.01), nesterov}, p, g,
                            {v});
      });
      side.record(text("p ", n, nesterov), p);
      side.record(text("v ", n, nesterov), v);
    }
}

KINDRED_PARITY(adamw_update) {
  for (const std::int64_t n : sizes) {
    const auto p = side.input(random_values<T>(n, 1), {n}),
               g = side.input(random_values<T>(n, 2), {n});
    const std::vector<T> zeros(static_cast<std::size_t>(n));
    const auto m = side.input(zeros, {n}), v = side.input(zeros, {n});
    side.run([&] {
      for (std::int64_t step = 1; step <= 3; ++step)
        kernels::apply_rule(side.ctx,
                            AdamWRule<T>(T(0.01), T(0.9), T(0.999), T(1e-8), T(0.05), step), p, g,
                            {m, v});
    });
    side.record(text("p ", n), p);
    side.record(text("m ", n), m);
    side.record(text("v ", n), v);
  }
}

KINDRED_PARITY(other_updates) {
  for (const std::int64_t n : sizes) {
    const auto g = side.input(random_values<T>(n, 1), {n});
    std::vector<View<T>> p, state;
    for (std::uint64_t i = 0; i < 5; ++i) p.push_back(side.input(random_values<T>(n, 2 + i), {n}));
    for (int i = 0; i < 7; ++i)
      state.push_back(side.input(std::vector<T>(static_cast<std::size_t>(n)), {n}));
    side.run([&] {
      for (std::int64_t step = 1; step <= 3; ++step) {
        kernels::apply_rule(side.ctx, SgdRule<T>{T(0.1), T(0.01)}, p[0], g, {});
        kernels::apply_rule(side.ctx,
                            AdamRule<T>(T(0.01), T(0.9), T(0.999), T(1e-8), T(0.05), step), p[1], g,
                            {state[0], state[1]});
        kernels::apply_rule(side.ctx, RmspropRule<T>{T(0.01), T(0.95), T(0.9), T(1e-6), T(0.01)},
                            p[2], g, {state[2], state[3]});
        kernels::apply_rule(side.ctx,
                            CenteredRmspropRule<T>{T(0.01), T(0.95), T(0.9), T(1e-2), T(0.01)},
                            p[3], g, {state[4], state[5], state[6]});
        kernels::moving_average_update(side.ctx, p[4], g, T(0.99));
      }
    });
    for (std::size_t i = 0; i < p.size(); ++i) side.record(text("p", i, " of ", n), p[i]);
    for (std::size_t i = 0; i < state.size(); ++i)
      side.record(text("state ", i, " of ", n), state[i]);
  }
}

// Parameters that do not start at a multiple of 16 bytes.
KINDRED_PARITY(unaligned_update) {
  const std::int64_t n = 100;
  const auto p = side.input(random_values<T>(n, 1), {n}),
             g = side.input(random_values<T>(n, 2), {n}),
             v = side.input(random_values<T>(n, 3), {n});
  const auto from = [&](const View<T>& all, std::int64_t begin) {
    return View<T>{all.data + begin, {n - 7}};
  };
  side.run([&] {
    kernels::apply_rule(side.ctx, MomentumRule<T>{T(0.1), T(0.9), T(0), false}, from(p, 1),
                        from(g, 3), {from(v, 5)});
  });
  side.record("p", p);
  side.record("v", v);
}

KINDRED_PARITY(all_finite) {
  const T bad[] = {T(0), std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity(),
                   std::numeric_limits<T>::quiet_NaN()};
  for (const std::int64_t n : sizes)
    for (const std::int64_t place : {std::int64_t{0}, n / 2, n - 1})
      for (const T value : bad) {
        auto values = random_values<T>(n, 4, 1e30);
        values[static_cast<std::size_t>(place)] = value;
        const auto x = side.input(values, {n});
        const auto finite = side.template output<T>({1});
        side.run([&] { kernels::all_finite(side.ctx, x, finite); });
        side.check(side.host(finite)[0] == (value == T(0) ? T(1) : T(0)),
                   text("all_finite of ", n, " elements with ", value, " at ", place));
        side.record(text("finite ", n, ' ', place, ' ', value), finite);
      }
}

KINDRED_PARITY(sum_of_squares) {
  for (const std::int64_t n : sizes) {
    const auto x = side.input(random_values<T>(n, 5), {n});
    const auto sum = side.template output<T>({1});
    side.run([&] { kernels::sum_of_squares(side.ctx, x, sum); });
    side.record(text("sum of ", n), sum);
  }
}

// The CPU throws at once, CUDA at the next wait.
KINDRED_PARITY(check_labels) {
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{7}})
    for (const std::int64_t n : {1, 31, 257}) {
      auto labels = test::random_labels(n, 7, 1);
      const auto good = side.input(labels, {n});
      side.run([&] { kernels::check_labels(side.ctx, "a test", good, 7); });
      labels.back() = bad;
      const auto wrong = side.input(labels, {n});
      side.template check_throws<DataError>(
          [&] { side.run([&] { kernels::check_labels(side.ctx, "a test", wrong, 7); }); }, "[0, ");
      // The error is reported once.
      side.run([&] { kernels::check_labels(side.ctx, "a test", good, 7); });
    }
}

}  // namespace
