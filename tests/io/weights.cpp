#include <kindred/io/weights.hpp>

#include <cmath>
#include <limits>

#include "io/files.hpp"
#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::io;
using namespace kindred::test;

namespace {

/// A small model's table: every layout, a buffer, and centres wider than one block of rows.
ParameterTable small_table(std::int64_t classes = 37) {
  ParameterTable table;
  const Scope root(table);
  const Initializer zero = Initializer::constant(0);
  (root / "conv")
      .declare("weight", {3, 2, 5, 18}, ParameterKind::weight, zero, FileLayout::convolution);
  (root / "dw")
      .declare("weight", {3, 3, 1, 7}, ParameterKind::weight, zero, FileLayout::convolution);
  (root / "bn").declare("weight", {18}, ParameterKind::norm, zero);
  (root / "bn").declare("_mean", {18}, ParameterKind::buffer, zero);
  (root / "fc").declare("weight", {18, 4}, ParameterKind::weight, zero);
  (root / "head")
      .declare("weight", {classes, 4}, ParameterKind::center, zero, FileLayout::transposed);
  return table;
}

template <class T>
struct Values {
  std::vector<T> trainable, buffers;
  explicit Values(const ParameterTable& table, std::uint64_t stream)
      : trainable(random_values<T>(table.trainable_size(), stream)),
        buffers(random_values<T>(table.buffer_size(), stream + 1)) {}
  friend bool operator==(const Values&, const Values&) = default;
};

/// Values of the parameter, without the padding around it.
template <class T>
std::vector<T> of(const Values<T>& values, const ParameterTable& table, const std::string& name) {
  const ParameterInfo& p = *table.find(name);
  const auto& region = p.kind == ParameterKind::buffer ? values.buffers : values.trainable;
  return {region.begin() + p.offset, region.begin() + p.offset + p.shape.size()};
}

template <class T>
LoadReport load(const std::filesystem::path& path, const ParameterTable& table, Values<T>& values,
                const LoadOptions& options = {}) {
  return load_weights(path, table, values.trainable.data(), values.buffers.data(), options);
}
template <class T>
void save(const std::filesystem::path& path, const ParameterTable& table, const Values<T>& values) {
  save_weights(path, table, values.trainable.data(), values.buffers.data(), {{"format", "pd"}});
}

}  // namespace

TEMPLATE_TEST_CASE("weights: what was saved is loaded, bit by bit", "", float, double) {
  TemporaryFolder folder;
  const ParameterTable table = small_table();
  const Values<TestType> saved(table, 1);
  Values<TestType> loaded(table, 3);
  save(folder / "w", table, saved);
  const LoadReport report = load(folder / "w", table, loaded);
  CHECK(report.loaded.size() == 6);
  CHECK((report.missing.empty() && report.unexpected.empty() && report.mismatched.empty()));
  for (const ParameterInfo& p : table.entries())
    CHECK(of(loaded, table, p.name) == of(saved, table, p.name));
}

TEST_CASE("weights: the file has Paddle's names, shapes and order of elements") {
  TemporaryFolder folder;
  const ParameterTable table = small_table();
  const Values<float> values(table, 1);
  save(folder / "w", table, values);
  const SafetensorsFile file(folder / "w");
  CHECK(file.metadata().at("format") == "pd");

  const auto conv = file.read<float>("conv.weight"), memory = of(values, table, "conv.weight");
  REQUIRE(file.find("conv.weight")->shape == std::vector<std::int64_t>{18, 5, 3, 2});
  const Shape m{3, 2, 5, 18};
  for (std::int64_t o = 0, at = 0; o < 18; ++o)
    for (std::int64_t i = 0; i < 5; ++i)
      for (std::int64_t h = 0; h < 3; ++h)
        for (std::int64_t w = 0; w < 2; ++w, ++at) {
          const std::int64_t place = ((h * m[1] + w) * m[2] + i) * m[3] + o;
          REQUIRE(conv[static_cast<std::size_t>(at)] == memory[static_cast<std::size_t>(place)]);
        }
  CHECK(file.find("dw.weight")->shape == std::vector<std::int64_t>{7, 1, 3, 3});
  CHECK(file.find("head.weight")->shape == std::vector<std::int64_t>{4, 37});
  const auto head = file.read<float>("head.weight"), centers = of(values, table, "head.weight");
  for (std::size_t d = 0; d < 4; ++d)
    for (std::size_t c = 0; c < 37; ++c) REQUIRE(head[d * 37 + c] == centers[c * 4 + d]);
  CHECK(file.read<float>("fc.weight") == of(values, table, "fc.weight"));
  CHECK(file.read<float>("bn._mean") == of(values, table, "bn._mean"));
}

TEST_CASE("weights: double files load into float models and back") {
  TemporaryFolder folder;
  const ParameterTable table = small_table();
  const Values<double> saved(table, 1);
  save(folder / "w", table, saved);
  Values<float> narrow(table, 3);
  load(folder / "w", table, narrow);
  CHECK(narrow.trainable[5] == static_cast<float>(saved.trainable[5]));
}

TEST_CASE("weights: strict loading names what is missing, unexpected and of another shape") {
  TemporaryFolder folder;
  const ParameterTable table = small_table(), other = small_table(38);
  save(folder / "w", table, Values<float>(table, 1));
  Values<float> values(other, 3);
  const Values<float> before = values;
  CHECK_THROWS_WITH(load(folder / "w", other, values),
                    ContainsSubstring("head.weight: file F32 [4, 37], model [4, 38]"));

  ParameterTable larger = small_table();
  Scope(larger).declare("extra", {2}, ParameterKind::bias, Initializer::constant(0));
  Values<float> more(larger, 3);
  CHECK_THROWS_WITH(load(folder / "w", larger, more), ContainsSubstring("1 missing (extra)"));

  ParameterTable smaller;
  Scope(smaller).declare("fc.weight", {18, 4}, ParameterKind::weight, Initializer::constant(0));
  Values<float> less(smaller, 3);
  CHECK_THROWS_WITH(load(folder / "w", smaller, less),
                    ContainsSubstring("5 unexpected (") && ContainsSubstring(", ...)"));
  CHECK(values == before);
}

TEST_CASE("weights: matching loading takes what fits and reports the rest") {
  TemporaryFolder folder;
  const ParameterTable table = small_table();
  ParameterTable other = small_table(38);
  Scope(other).declare("extra", {2}, ParameterKind::bias, Initializer::constant(0));
  const Values<float> saved(table, 1);
  save(folder / "w", table, saved);
  Values<float> values(other, 3);
  const Values<float> before = values;
  const LoadReport report = load(folder / "w", other, values, {.mode = LoadMode::matching});
  CHECK(report.loaded.size() == 5);
  CHECK(report.missing == std::vector<std::string>{"extra"});
  CHECK(report.unexpected.empty());
  CHECK(report.mismatched ==
        std::vector<std::string>{"head.weight: file F32 [4, 37], model [4, 38]"});
  CHECK(of(values, other, "conv.weight") == of(saved, table, "conv.weight"));
  CHECK(of(values, other, "head.weight") == of(before, other, "head.weight"));
  CHECK(of(values, other, "extra") == of(before, other, "extra"));

  Values<float> only(table, 3);
  const LoadReport part =
      load(folder / "w", table, only, {.mode = LoadMode::matching, .prefix = "conv."});
  CHECK(part.loaded == std::vector<std::string>{"conv.weight"});
  CHECK(of(only, table, "conv.weight") == of(saved, table, "conv.weight"));
  CHECK(of(only, table, "head.weight") == of(before, table, "head.weight"));
}

TEST_CASE("weights: a value that is not finite stops loading, and nothing has changed") {
  TemporaryFolder folder;
  const ParameterTable table = small_table();
  Values<float> saved(table, 1);
  const auto place = static_cast<std::size_t>(table.find("head.weight")->offset + 11);
  saved.trainable[place] =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity());
  save(folder / "w", table, saved);
  Values<float> values(table, 3);
  const Values<float> before = values;
  CHECK_THROWS_AS(load(folder / "w", table, values), NumericError);
  CHECK_THROWS_WITH(load(folder / "w", table, values), ContainsSubstring("parameter head.weight"));
  CHECK(values == before);
  load(folder / "w", table, values, {.require_finite = false});
  CHECK(!std::isfinite(values.trainable[place]));
}

TEST_CASE("weights: every truncation of a file is one FileError, and nothing has changed") {
  TemporaryFolder folder;
  const ParameterTable table = small_table();
  save(folder / "w", table, Values<float>(table, 1));
  const std::string bytes = read_bytes(folder / "w");
  Values<float> values(table, 3);
  const Values<float> before = values;
  for (std::size_t size = 0; size < bytes.size(); size += 1 + size / 20) {
    write_bytes(folder / "t", bytes.substr(0, size));
    CHECK_THROWS_AS(load(folder / "t", table, values), FileError);
  }
  CHECK(values == before);
}

TEST_CASE("weights: a layout that does not fit the rank is named") {
  TemporaryFolder folder;
  ParameterTable table;
  Scope(table).declare("w", {3}, ParameterKind::weight, Initializer::constant(0),
                       FileLayout::transposed);
  const Values<float> values(table, 1);
  CHECK_THROWS_WITH(save(folder / "w", table, values), ContainsSubstring("needs 2 dimensions"));
  CHECK(folder.entries() == 0);
}

TEST_CASE("weights: fuzzed files are loaded or refused") {
  TemporaryFolder folder;
  const ParameterTable table = small_table();
  save(folder / "w", table, Values<float>(table, 1));
  Values<float> values(table, 3);
  fuzz({read_bytes(folder / "w")}, 2, 2, [&](const std::filesystem::path& path) {
    load(path, table, values, {.mode = LoadMode::matching});
  });
}
