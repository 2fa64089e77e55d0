// Random numbers: the published vectors, distributions, independence of order.

#include <kindred/core/random.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <kindred/core/parameters.hpp>

#include "support/catch.hpp"

using namespace kindred;

namespace {

using Words = std::array<std::uint32_t, 4>;

/// philox() of a counter and a key as Random123 gives them. With stream 0 the seed is the key; the
/// counter is the index (low two words) and the step (high two words).
Words philox_of(const Words& counter, std::uint32_t key0, std::uint32_t key1) {
  const auto join = [](std::uint64_t low, std::uint64_t high) { return high << 32 | low; };
  return philox({.seed = join(key0, key1), .stream = 0, .step = join(counter[2], counter[3])},
                join(counter[0], counter[1]));
}

struct Moments {
  double mean = 0, variance = 0, skewness = 0, kurtosis = 0;
};
Moments moments_of(int n, const std::function<double()>& draw) {
  std::vector<double> x(static_cast<std::size_t>(n));
  for (double& v : x) v = draw();
  Moments m;
  m.mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  for (double v : x) m.variance += (v - m.mean) * (v - m.mean) / n;
  for (double v : x) {
    const double z = (v - m.mean) / std::sqrt(m.variance);
    m.skewness += z * z * z / n;
    m.kurtosis += z * z * z * z / n;
  }
  return m;
}

}  // namespace

TEST_CASE("philox: the known answers of Random123 for philox4x32-10") {
  const std::uint32_t ones = 0xFFFFFFFFu;
  CHECK(philox_of({0, 0, 0, 0}, 0, 0) == Words{0x6627E8D5u, 0xE169C58Du, 0xBC57AC4Cu, 0x9B00DBD8u});
  CHECK(philox_of({ones, ones, ones, ones}, ones, ones) ==
        Words{0x408F276Du, 0x41C83B0Eu, 0xA20BC7C6u, 0x6D5451FDu});
  CHECK(philox_of({0x243F6A88u, 0x85A308D3u, 0x13198A2Eu, 0x03707344u}, 0xA4093822u, 0x299F31D0u) ==
        Words{0xD16CFE09u, 0x94FDCCEBu, 0x5001E420u, 0x24126EA1u});
}

TEST_CASE("RandomSequence: reads the words of its key in order, whatever else is drawn") {
  const RandomKey key{42, stream_of("dropout"), 7};
  RandomSequence a(key), b(key), other({42, stream_of("dropout"), 8});
  std::vector<std::uint32_t> from_a, from_b, expected;
  for (std::uint64_t i = 0; i < 3; ++i)
    for (std::uint32_t word : philox(key, i)) expected.push_back(word);
  for (int i = 0; i < 12; ++i) from_a.push_back(a());
  for (int i = 0; i < 12; ++i) {
    other();
    from_b.push_back(b());
  }
  CHECK(from_a == expected);
  CHECK(from_b == expected);
}

TEST_CASE("RandomSequence: seed, stream and step each give another sequence") {
  std::set<std::uint32_t> first;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (std::uint64_t stream = 0; stream < 10; ++stream)
      for (std::uint64_t step = 0; step < 10; ++step)
        first.insert(RandomSequence(
            {seed, stream_of(std::string(1, static_cast<char>('a' + stream))), step})());
  CHECK(first.size() == 1000);
  static_assert(stream_of("") == 0xCBF29CE484222325ull);
  static_assert(stream_of("a") == 0xAF63DC4C8601EC8Cull);  // published FNV-1a vectors
  static_assert(stream_of("foobar") == 0x85944171F73967E8ull);
}

TEST_CASE("RandomSequence: moments of the uniform and the normal distribution") {
  constexpr int n = 200000;
  RandomSequence random({5, 1, 0});
  const Moments u = moments_of(n, [&] { return random.uniform(); });
  CHECK(u.mean == Approx(0.5).margin(4 * std::sqrt(1.0 / 12 / n)));
  CHECK(u.variance == Approx(1.0 / 12).margin(1e-3));
  CHECK(u.skewness == Approx(0).margin(0.02));
  CHECK(u.kurtosis == Approx(1.8).margin(0.02));
  const Moments z = moments_of(n, [&] { return random.normal(); });
  CHECK(z.mean == Approx(0).margin(4 / std::sqrt(double(n))));
  CHECK(z.variance == Approx(1).margin(4 * std::sqrt(2.0 / n)));
  CHECK(z.skewness == Approx(0).margin(4 * std::sqrt(6.0 / n)));
  CHECK(z.kurtosis == Approx(3).margin(4 * std::sqrt(24.0 / n)));
}

TEST_CASE("RandomSequence: uniform numbers stay in [0, 1) and in [low, high)") {
  RandomSequence random({5, 2, 0});
  for (int i = 0; i < 100000; ++i) {
    const double u = random.uniform(), v = random.uniform(-3, -2);
    REQUIRE((u >= 0 && u < 1));
    REQUIRE((v >= -3 && v < -2));
  }
  CHECK(uniform_from_bits(0) == 0.f);
  CHECK(uniform_from_bits(0xFFFFFFFFu) < 1.f);
  CHECK(uniform_from_bits(0x80000000u) == 0.5f);
}

TEST_CASE("RandomSequence: below is unbiased") {
  RandomSequence random({5, 3, 0});
  for (std::uint64_t n : {1, 2, 3, 7, 10, 64}) {
    constexpr int draws = 60000;
    std::vector<int> counts(n);
    for (int i = 0; i < draws; ++i) ++counts.at(random.below(n));
    const double expected = draws / double(n);
    double chi2 = 0;
    for (int c : counts) chi2 += (c - expected) * (c - expected) / expected;
    const double freedom = double(n) - 1;
    INFO(n << ": " << chi2);
    CHECK(chi2 <= freedom + 4.5 * std::sqrt(2 * freedom));
  }
  // Just above half of the range a plain modulo would draw the lower part twice as often.
  const std::uint64_t n = (std::uint64_t{1} << 63) + (std::uint64_t{1} << 62);
  int low = 0;
  for (int i = 0; i < 30000; ++i) low += random.below(n) < n / 3;
  CHECK(std::abs(low - 10000) < 4.5 * std::sqrt(30000 * 2.0 / 9));
}

TEST_CASE("RandomSequence: shuffle is a uniform permutation") {
  std::array<std::array<int, 5>, 5> at{};  // [value][place]
  constexpr int rounds = 20000;
  for (std::uint64_t r = 0; r < rounds; ++r) {
    RandomSequence random({9, 0, r});
    std::vector<std::size_t> v{0, 1, 2, 3, 4};
    random.shuffle(v);
    REQUIRE(std::set<std::size_t>(v.begin(), v.end()).size() == 5);
    for (std::size_t p = 0; p < 5; ++p) ++at[v[p]][p];
  }
  for (const auto& places : at)
    for (int count : places) CHECK(std::abs(count - rounds / 5) < 4.5 * std::sqrt(rounds * 0.16));
  std::vector<int> none;
  RandomSequence({1, 1, 1}).shuffle(none);
  CHECK(none.empty());
}

TEST_CASE("ParameterTable: offsets, counts, multipliers and twice the same name") {
  ParameterTable table;
  const Scope root(table), norm = (root / "backbone" / "bn").with_lr(0.5).with_decay(0);
  const auto w = root.declare("w", {3, 5}, ParameterKind::weight, Initializer::constant(1));
  const auto mean = norm.declare("_mean", {7}, ParameterKind::buffer, Initializer::constant(0));
  const auto g = norm.declare("weight", {7}, ParameterKind::norm, Initializer::constant(1));
  CHECK(w.offset == 0);
  CHECK(mean.offset == 0);
  CHECK(g.offset == 16);
  CHECK(table.trainable_size() == 32);
  CHECK(table.trainable_count() == 22);
  CHECK(table.buffer_size() == 16);
  CHECK(table.buffer_count() == 7);
  const ParameterInfo* info = table.find("backbone.bn.weight");
  REQUIRE(info != nullptr);
  CHECK(info->lr_multiplier == 0.5);
  CHECK(info->decay_multiplier == 0);
  CHECK(table.find("backbone") == nullptr);
  CHECK_THROWS_WITH(norm.declare("weight", {1}, ParameterKind::bias, Initializer::constant(0)),
                    ContainsSubstring("two parameters are named backbone.bn.weight"));
}

TEST_CASE("Initializer: moments, and element i depends on its index alone") {
  const auto filled = [](const Initializer& initializer, std::int64_t n) {
    std::vector<double> values(static_cast<std::size_t>(n));
    initializer.fill(View<double>{values.data(), {n}}, {1, stream_of("w"), 0});
    return values;
  };
  const auto normal = filled(Initializer::xavier_normal(300, 100), 40000);
  std::size_t i = 0;
  const Moments m = moments_of(40000, [&] { return normal[i++]; });
  CHECK(m.mean == Approx(0).margin(4 * std::sqrt(0.005 / 40000)));
  CHECK(m.variance == Approx(2.0 / 400).epsilon(0.04));
  const auto kaiming = filled(Initializer::kaiming_normal(50), 40000);
  i = 0;
  CHECK(moments_of(40000, [&] { return kaiming[i++]; }).variance == Approx(2.0 / 50).epsilon(0.04));
  const auto uniform = filled(Initializer::xavier_uniform(200, 100), 40000);
  const double limit = std::sqrt(6.0 / 300);
  for (double v : uniform) REQUIRE(std::abs(v) <= limit);
  i = 0;
  CHECK(moments_of(40000, [&] { return uniform[i++]; }).variance ==
        Approx(limit * limit / 3).epsilon(0.04));
  const auto shorter = filled(Initializer::xavier_normal(300, 100), 10);
  CHECK(std::equal(shorter.begin(), shorter.end(), normal.begin()));
  CHECK(filled(Initializer::constant(2.5), 3) == std::vector<double>(3, 2.5));
}
