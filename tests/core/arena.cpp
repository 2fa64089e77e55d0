// The memory plan: placement, replay, poison, misuse.

#include <kindred/core/arena.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <vector>

#include <kindred/core/context.hpp>
#include <kindred/core/random.hpp>

#include "support/catch.hpp"

using namespace kindred;

namespace {

/// A random program of requests and releases: the same seed gives the same sequence.
template <class Visit>
void random_program(Arena& arena, std::uint64_t seed, int length, Visit&& visit) {
  RandomSequence random({seed, 0, 0});
  std::vector<Tensor<float>> live;
  for (int i = 0; i < length; ++i) {
    if (!live.empty() && random.below(5) < 2) {
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(random.below(live.size())));
    } else {
      const auto size =
          static_cast<std::int64_t>(random.below(4) == 0 ? random.below(5000) : random.below(100));
      live.emplace_back(arena, Shape{size}, "array");
    }
    visit(live);
  }
}

bool overlap(const Plan::Request& a, const Plan::Request& b) {
  const bool at_once = a.birth < b.death && b.birth < a.death;
  return at_once && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

Plan record(Arena& arena, std::uint64_t seed, int length) {
  arena.begin_recording();
  random_program(arena, seed, length, [](auto&) {});
  return arena.end_recording();
}

}  // namespace

TEST_CASE("Arena: arrays that live at the same time never overlap") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Arena arena(&cpu::allocate);
    const Plan plan = record(arena, seed, 120);
    const auto& requests = plan.requests();
    REQUIRE(requests.size() > 40);
    bool apart = true;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      CHECK(requests[i].offset % Arena::alignment == 0);
      CHECK(requests[i].offset + requests[i].bytes <= plan.bytes());
      for (std::size_t j = 0; j < i; ++j) apart = apart && !overlap(requests[i], requests[j]);
    }
    CHECK(apart);
    CHECK(plan.bytes() >= plan.peak_live_bytes());
    // Best fit by decreasing size stays near the lower bound on such programs.
    CHECK(plan.bytes() <= plan.peak_live_bytes() * 3 / 2);
  }
}

TEST_CASE("Arena: what is written in a replay stays until it is released") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Arena arena(&cpu::allocate);
    const Plan plan = record(arena, seed, 120);
    for (int pass = 0; pass < 2; ++pass) {
      arena.begin_replay(plan);
      std::vector<std::pair<const float*, float>> written;  // address, value
      float next = 1;
      bool kept = true;
      random_program(arena, seed, 120, [&](std::vector<Tensor<float>>& live) {
        std::vector<std::pair<const float*, float>> still;
        for (Tensor<float>& t : live) {
          if (t.size() == 0) continue;
          float value = 0;
          for (const auto& [address, v] : written)
            if (address == t.data) value = v;
          if (value == 0) {
            value = next++;
            std::fill(t.begin(), t.end(), value);
          }
          kept = kept && std::all_of(t.begin(), t.end(), [&](float v) { return v == value; });
          still.emplace_back(t.data, value);
        }
        written = still;
      });
      CHECK(kept);
    }
  }
}

TEST_CASE("Arena: memory is shared by arrays that never live together") {
  Arena arena(&cpu::allocate);
  arena.begin_recording();
  for (int i = 0; i < 10; ++i) Tensor<float> once(arena, {256}, "once");
  const Plan plan = arena.end_recording();
  CHECK(plan.bytes() == 1024);
  CHECK(plan.peak_live_bytes() == 1024);
  std::ostringstream words;
  words << plan;
  CHECK_THAT(words.str(), ContainsSubstring("1024 bytes planned (1024 alive at the peak) for 10"));
}

TEST_CASE("Arena: moving a tensor moves its release") {
  Arena arena(&cpu::allocate);
  arena.begin_recording();
  Tensor<float> x(arena, {16}, "x");
  const void* place = x.data;
  Tensor<float> y = std::move(x);
  CHECK(x.empty());
  CHECK(y.data == place);
  y = Tensor<float>(arena, {16}, "z");  // ends the first one
  y.reset();
  y.reset();
  const Plan plan = arena.end_recording();
  REQUIRE(plan.requests().size() == 2);
  CHECK(plan.requests()[0].death < plan.requests()[1].death);
}

TEST_CASE("Arena: a tensor of an earlier pass releases nothing of the present one") {
  Arena arena(&cpu::allocate);
  arena.set_poison(true);
  arena.begin_recording();
  Tensor<float> kept(arena, {16}, "kept");
  const Plan plan = arena.end_recording();
  arena.begin_replay(plan);
  kept = Tensor<float>(arena, {16}, "kept");
  arena.begin_replay(plan);
  Tensor<float> now(arena, {16}, "kept");
  std::fill(now.begin(), now.end(), 3.f);
  kept.reset();
  CHECK(now[0] == 3.f);
}

TEST_CASE("Arena: poison fills memory with NaN before the pass and after the release") {
  Arena arena(&cpu::allocate);
  arena.set_poison(true);
  const auto pass = [&](bool check) {
    Tensor<double> x(arena, {100}, "x");
    const double* memory = x.data;
    if (check) {
      CHECK(std::isnan(x[0]));
      CHECK(std::isnan(x[99]));
      std::fill(x.begin(), x.end(), 1.0);
    }
    x.reset();
    if (check) {
      CHECK(std::isnan(memory[0]));
      CHECK(std::isnan(memory[99]));
    }
  };
  arena.begin_recording();
  pass(false);
  const Plan plan = arena.end_recording();
  arena.begin_replay(plan);
  pass(true);
}

TEST_CASE("Arena: a pass that differs from its plan throws") {
  Arena arena(&cpu::allocate);
  arena.begin_recording();
  { Tensor<float> a(arena, {100}, "a"), b(arena, {200}, "b"); }
  const Plan plan = arena.end_recording();

  arena.begin_replay(plan);
  Tensor<float> a(arena, {100}, "a");
  CHECK_THROWS_WITH(Tensor<float>(arena, {100}, "b"),
                    ContainsSubstring("recorded for another pass: request 1 (b, 448 bytes)"));
  arena.begin_replay(plan);
  Tensor<float> again(arena, {100}, "a"), b(arena, {200}, "b");
  CHECK_THROWS_WITH(Tensor<float>(arena, {1}, "c"), ContainsSubstring("request 2 (c, 64 bytes)"));
  CHECK_NOTHROW(arena.begin_replay(plan));
}

TEST_CASE("Arena: memory outside of a pass, too large shapes and too much memory throw") {
  Arena arena(&cpu::allocate);
  CHECK_THROWS_WITH(Tensor<float>(arena, {1}, "x"),
                    ContainsSubstring("x was requested outside of a planned pass"));
  arena.begin_recording();
  const std::int64_t half = std::int64_t{1} << 32;
  CHECK_THROWS_AS(Tensor<float>(arena, {half, half}, "x"), ShapeError);
  CHECK_THROWS_WITH(Tensor<double>(arena, {half, half / 8}, "activations"),
                    ContainsSubstring("activations of shape [4294967296, 536870912] does not fit"));
  {
    Tensor<float> huge(arena, {std::int64_t{1} << 60}, "huge");  // 4 EiB: planned, never there
  }
  const Plan plan = arena.end_recording();
  CHECK_THROWS_WITH(arena.begin_replay(plan),
                    ContainsSubstring("out of memory: 4611686018427387904"));
  arena.begin_recording();
  { Tensor<float> small(arena, {4}, "small"); }
  const Plan modest = arena.end_recording();
  CHECK_NOTHROW(arena.begin_replay(modest));
}

TEST_CASE("Arena: the block grows and never shrinks") {
  Arena arena(&cpu::allocate);
  const auto plan_of = [&](std::int64_t n) {
    arena.begin_recording();
    { Tensor<float> x(arena, {n}, "x"); }
    return arena.end_recording();
  };
  const Plan small = plan_of(1000), large = plan_of(100000);
  arena.begin_replay(small);
  const std::size_t before = arena.capacity();
  arena.begin_replay(large);
  const std::size_t after = arena.capacity();
  CHECK(before < after);
  arena.begin_replay(small);
  CHECK(arena.capacity() == after);
}
