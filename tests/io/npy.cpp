#include <kindred/io/npy.hpp>

#include "io/files.hpp"
#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::io;
using namespace kindred::test;

namespace {

std::string npy_of(const std::string& header, std::size_t data, char version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += {version, '\0', static_cast<char>(header.size() & 0xFF),
            static_cast<char>(header.size() >> 8)};
  if (version == 2) bytes += std::string(2, '\0');
  return bytes + header + std::string(data, '\0');
}
std::string dictionary(const std::string& descr, const std::string& order,
                       const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

std::string refusal(const std::string& bytes) {
  TemporaryFolder folder;
  write_bytes(folder / "a.npy", bytes);
  try {
    const NpyFile file(folder / "a.npy");
  } catch (const FileError& error) {
    CHECK_THAT(error.what(), ContainsSubstring("a.npy: "));
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEMPLATE_TEST_CASE("npy: what was written is read", "", float, double, std::int64_t, std::uint8_t) {
  TemporaryFolder folder;
  std::vector<TestType> values(35);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<TestType>(3 * i);
  for (const Shape& shape : {Shape{35}, Shape{5, 7}, Shape{35, 1}}) {
    write_npy(folder / "a.npy", View<const TestType>{values.data(), shape});
    const auto array = read_npy<TestType>(folder / "a.npy");
    CHECK(array.values == values);
    CHECK(array.shape == shape);
  }
  write_npy(folder / "a.npy", View<const TestType>{nullptr, {0, 512}});
  CHECK(read_npy<TestType>(folder / "a.npy").shape == Shape{0, 512});
}

TEST_CASE("npy: the bytes are those of numpy 2.4.6") {
  TemporaryFolder folder;
  const std::vector<float> values{0, 1, 2, 3, 4, 5};
  write_npy(folder / "a.npy", view(values, {2, 3}));
  const std::string written = read_bytes(folder / "a.npy");
  std::string expected = "\x93NUMPY";
  expected += {'\1', '\0', 'v', '\0'};
  expected += "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + std::string(58, ' ');
  expected += '\n';
  CHECK(written.substr(0, 128) == expected);
  CHECK(written.size() == 128 + 24);
  CHECK(std::memcmp(written.data() + 128, values.data(), 24) == 0);
}

TEST_CASE("npy: rows are written one after the other and read in part") {
  TemporaryFolder folder;
  const auto values = random_values<float>(1000 * 33, 1);
  {
    NpyWriter<float> writer(folder / "a.npy", 33);
    for (std::int64_t row = 0; row < 1000; row += 8) writer.append(values.data() + row * 33, 8);
    CHECK_THROWS_AS(writer.append({values.data(), {1, 34}}), ShapeError);
    writer.commit();
  }
  const NpyFile file(folder / "a.npy");
  CHECK(file.shape() == Shape{1000, 33});
  std::vector<float> part(66);
  file.read_rows(998, 2, part.data());
  CHECK(std::equal(part.begin(), part.end(), values.end() - 66));
  CHECK_THROWS_WITH(file.read_rows(999, 2, part.data()), ContainsSubstring("no rows 999 to 1001"));
  CHECK(folder.entries() == 1);
}

TEST_CASE("npy: other spellings of the header are read") {
  for (const std::string& header :
       {dictionary("'<f4'", "False", "(2, 3)"), dictionary("\"<f4\"", "False", "(2,3,)"),
        std::string("{'shape':(2,3),'descr':'<f4','fortran_order':False}")}) {
    CHECK(refusal(npy_of(header, 24)) == "accepted");
    CHECK(refusal(npy_of(header, 24, 2)) == "accepted");
  }
}

TEST_CASE("npy: hostile and foreign files are one clear error each") {
  const std::string good = dictionary("'<f4'", "False", "(2, 3)");
  CHECK_THAT(refusal(""), ContainsSubstring("too short"));
  CHECK_THAT(refusal("PK\3\4 a zip archive"), ContainsSubstring("not an .npy file"));
  CHECK_THAT(refusal(npy_of(good, 24, 3)), ContainsSubstring("version 3.0"));
  CHECK_THAT(refusal(npy_of(good, 23)),
             ContainsSubstring("needs 24 bytes of data, the file has 23"));
  CHECK_THAT(refusal(npy_of(good, 25)), ContainsSubstring("the file has 25"));
  std::string huge = npy_of(good, 24, 2);
  huge.replace(8, 4, "\xff\xff\xff\xff");
  CHECK_THAT(refusal(huge), ContainsSubstring("claims 4294967295 bytes"));
  CHECK_THAT(refusal(huge.substr(0, 11)), ContainsSubstring("ends at byte 11"));

  const std::pair<std::string, const char*> cases[] = {
      {dictionary("'<f4'", "True", "(2, 3)"), "numpy.ascontiguousarray"},
      {dictionary("'>f4'", "False", "(2, 3)"), "(big-endian)"},
      {dictionary("'<f2'", "False", "(2, 3)"), "array.astype('<f4')"},
      {dictionary("'<U4'", "False", "(2, 3)"), "array.astype"},
      {dictionary("'|O'", "False", "(2, 3)"), "dtype '|O'"},
      {dictionary("[('a', '<f4')]", "False", "(2,)"), "structured array"},
      {dictionary("'<f4'", "False", "()"), "has 0 dimensions"},
      {dictionary("'<f4'", "False", "(1, 2, 3)"), "array.reshape"},
      {dictionary("'<f4'", "False", "(-2, 3)"), "damaged at '-2"},
      {dictionary("'<f4'", "False", "(9223372036854775807, 3)"), "overflows"},
      {dictionary("'<f4'", "False", "(99999999999999999999,)"), "damaged at '9999"},
      {dictionary("'<f4'", "False", "(1000000000000, 512)"), "needs 2048000000000000 bytes"},
      {dictionary("'<f4'", "Maybe", "(2, 3)"), "damaged at 'Maybe"},
      {dictionary("'<f4", "False", "(2, 3)"), "damaged"},
      {"{'descr': '<f4', 'fortran_order': False}", "damaged"},
      {"{'descr': '<f4', 'descr': '<f4'}", "repeated key 'descr'"},
      {"{'colour': 1}", "key 'colour'"},
      {"", "damaged"},
      {good + "x", "damaged at 'x'"},
  };
  for (const auto& [header, reason] : cases) {
    INFO(header);
    CHECK_THAT(refusal(npy_of(header, 24)), ContainsSubstring(reason));
  }
}

TEST_CASE("npy: another element type than asked for is refused with the fix") {
  TemporaryFolder folder;
  const std::vector<double> values(6);
  write_npy(folder / "a.npy", view(values, {2, 3}));
  CHECK_THROWS_WITH(read_npy<float>(folder / "a.npy"), ContainsSubstring("array.astype('<f4')"));
  CHECK_THROWS_AS(write_npy(folder / "b.npy", view(values, {1, 2, 3})), ShapeError);
  CHECK(folder.entries() == 1);
}

TEST_CASE("npy: fuzzed files are read or refused") {
  fuzz({npy_of(dictionary("'<f4'", "False", "(2, 3)"), 24),
        npy_of(dictionary("'<f4'", "False", "(7,)"), 28, 2)},
       2, 3, [](const std::filesystem::path& path) { read_npy<float>(path); });
}
