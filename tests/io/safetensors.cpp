#include <kindred/io/safetensors.hpp>

#include <cmath>
#include <limits>

#include "io/files.hpp"

using namespace kindred;
using namespace kindred::io;
using namespace kindred::test;

namespace {

/// A file of this header and this many bytes of data.
std::string file_of(const std::string& header, std::size_t data) {
  std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data, '\1');
}

/// What the safetensors package 0.8.0 (Python) wrote for {"linear.weight": float32 [2,3],
/// "epoch": int64 [1], "half": float16 [4], "empty": float64 [0,4]} with metadata.
std::string python_file() {
  const std::string header =
      R"({"__metadata__":{"format":"pt","made by":"safetensors"},)"
      R"("epoch":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("empty":{"dtype":"F64","shape":[0,4],"data_offsets":[8,8]},)"
      R"("linear.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
      R"("half":{"dtype":"F16","shape":[4],"data_offsets":[32,40]}}      )";
  std::string bytes = file_of(header, 0);
  constexpr unsigned char data[] = {7,    0,    0,    0,    0, 0,    0,    0,    0,    0,
                                    0x80, 0x3F, 0,    0,    0, 0x40, 0,    0,    0x40, 0x40,
                                    0,    0,    0x80, 0x40, 0, 0,    0xA0, 0x40, 0,    0,
                                    0xD0, 0x40, 0,    0x3C, 0, 0xC0, 0xFF, 0x7B, 1,    0};
  bytes.append(reinterpret_cast<const char*>(data), sizeof data);
  return bytes;
}

/// The message of the FileError that opening these bytes throws.
std::string refusal(const std::string& bytes) {
  TemporaryFolder folder;
  const auto path = folder / "weights.safetensors";
  write_bytes(path, bytes);
  try {
    const SafetensorsFile file(path);
  } catch (const FileError& error) {
    CHECK_THAT(error.what(), ContainsSubstring(path.string()));
    return error.what();
  }
  return "accepted";
}

/// One tensor described by `entry`, over `data` bytes.
std::string refusal_of_entry(const std::string& entry, std::size_t data) {
  return refusal(file_of("{\"a\":" + entry + "}", data));
}

}  // namespace

TEST_CASE("safetensors: what was written is read, bit by bit") {
  TemporaryFolder folder;
  const auto path = folder / "w.safetensors";
  const std::vector<double> d{1.5, -0.0, std::numeric_limits<double>::infinity()};
  const std::vector<std::int64_t> n{-1, std::numeric_limits<std::int64_t>::min()};
  std::vector<float> f(100000);
  for (std::size_t i = 0; i < f.size(); ++i) f[i] = static_cast<float>(i) * 0.1f;
  {
    SafetensorsWriter writer(path);
    writer.declare<double>("d", {3});
    writer.declare<std::int64_t>("n \"quoted\" \u00e9", {2, 1});
    writer.declare<float>("nothing", {0, 5});
    writer.declare<float>("f", {100, 10, 100});
    writer.declare<float>("scalar", {});
    writer.begin({{"kindred", "1"}, {"note", "a\nb"}});
    writer.write(std::span<const double>(d));
    writer.write(std::span<const std::int64_t>(n));
    writer.write(std::span<const float>(f).first(7));
    writer.write(std::span<const float>(f).subspan(7));
    writer.write(std::span<const float>(f).first(1));
    writer.commit();
  }
  const SafetensorsFile file(path);
  CHECK(file.tensors().size() == 5);
  CHECK(file.metadata() == Metadata{{"kindred", "1"}, {"note", "a\nb"}});
  CHECK(std::memcmp(file.read<double>("d").data(), d.data(), 24) == 0);
  CHECK(file.read<std::int64_t>("n \"quoted\" \u00e9") == n);
  CHECK(file.read<float>("f") == f);
  CHECK(file.read<float>("nothing").empty());
  CHECK(file.read<float>("scalar") == std::vector<float>{0.f});
  CHECK(file.find("f")->shape == std::vector<std::int64_t>{100, 10, 100});
  CHECK(file.find("g") == nullptr);
  std::vector<float> part(3);
  file.read_part(*file.find("f"), 500, std::span<float>(part));
  CHECK(part == std::vector<float>(f.begin() + 500, f.begin() + 503));
  CHECK_THROWS_AS(file.read_part(*file.find("f"), 99998, std::span<float>(part)), FileError);

  std::uint64_t header = 0;
  const std::string bytes = read_bytes(path);
  std::memcpy(&header, bytes.data(), 8);
  CHECK(header % 8 == 0);  // so that the tensors are aligned in a mapped file
}

TEST_CASE("safetensors: a file of the Python package is read") {
  TemporaryFolder folder;
  write_bytes(folder / "p", python_file());
  const SafetensorsFile file(folder / "p");
  CHECK(file.metadata().at("made by") == "safetensors");
  CHECK(file.read<std::int64_t>("epoch") == std::vector<std::int64_t>{7});
  CHECK(file.read<float>("linear.weight") == std::vector<float>{1, 2, 3, 4, 5, 6.5});
  CHECK(file.read<double>("linear.weight") == std::vector<double>{1, 2, 3, 4, 5, 6.5});
  CHECK(file.read<double>("half") == std::vector<double>{1, -2, 65504, 0x1p-24});
  CHECK(file.read<float>("empty").empty());
}

TEST_CASE("safetensors: the writer's bytes are those of the Python package") {
  TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder / "w");
    writer.declare<std::int64_t>("epoch", {1});
    writer.declare<double>("empty", {0, 4});
    writer.declare<float>("linear.weight", {2, 3});
    writer.begin({{"format", "pt"}, {"made by", "safetensors"}});
    writer.write(std::span<const std::int64_t>(std::vector<std::int64_t>{7}));
    writer.write(std::span<const float>(std::vector<float>{1, 2, 3, 4, 5, 6.5}));
    writer.commit();
  }
  // The same header without the tensor that kindred does not write.
  const std::string python = python_file(), written = read_bytes(folder / "w");
  const std::size_t half = python.find(",\"half\""), after = python.find("}}", half) + 1;
  const std::string header = python.substr(8, half - 8) + python.substr(after, 1);
  CHECK(written.substr(8, header.size()) == header);
  CHECK(written.substr(written.size() - 32) == python.substr(python.size() - 40, 32));
}

TEST_CASE("safetensors: half precision is widened exactly") {
  CHECK(float_from_half(0x3C00) == 1.f);
  CHECK(float_from_half(0xC000) == -2.f);
  CHECK(float_from_half(0x7BFF) == 65504.f);
  CHECK(float_from_half(0x0400) == 0x1p-14f);
  CHECK(float_from_half(0x0001) == 0x1p-24f);
  CHECK(float_from_half(0x83FF) == -1023 * 0x1p-24f);
  CHECK(std::signbit(float_from_half(0x8000)));
  CHECK(float_from_half(0xFC00) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(float_from_half(0x7E00)));
  CHECK(float_from_bfloat16(0x3F80) == 1.f);
  CHECK(float_from_bfloat16(0xC049) == -3.140625f);
  CHECK(std::isnan(float_from_bfloat16(0x7FC0)));
}

TEST_CASE("safetensors: wrong questions are answered with the name") {
  TemporaryFolder folder;
  write_bytes(folder / "p", file_of(R"({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},)"
                                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                                    12));
  const SafetensorsFile file(folder / "p");
  CHECK_THROWS_WITH(file.read<float>("c"), ContainsSubstring("has no tensor 'c'"));
  CHECK_THROWS_WITH(file.read<float>("a"), ContainsSubstring("is I32 and cannot be read as F32"));
  CHECK_THROWS_WITH(file.read<std::int64_t>("b"), ContainsSubstring("cannot be read as I64"));
  std::vector<float> two(2);
  CHECK_THROWS_WITH(file.read("b", std::span<float>(two)), ContainsSubstring("1 elements, 2"));
}

TEST_CASE("safetensors: tensors may lie unaligned; they are copied, never mapped") {
  TemporaryFolder folder;
  std::string bytes = file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
                              5);
  const float value = 2.5f;
  std::memcpy(bytes.data() + bytes.size() - 4, &value, 4);
  write_bytes(folder / "p", bytes);
  CHECK(SafetensorsFile(folder / "p").read<float>("b") == std::vector<float>{2.5f});
}

TEST_CASE("safetensors: hostile headers are one clear error each") {
  const auto header = [](std::uint64_t length) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes + "{}";
  };
  CHECK_THAT(refusal(""), ContainsSubstring("only 0 bytes"));
  CHECK_THAT(refusal("1234567"), ContainsSubstring("only 7 bytes"));
  CHECK_THAT(refusal(header(std::uint64_t{1} << 42)), ContainsSubstring("claims 4398046511104"));
  CHECK_THAT(refusal(header(~std::uint64_t{0})), ContainsSubstring("claims 18446744073709551615"));
  CHECK_THAT(refusal(header(3)), ContainsSubstring("claims 3 bytes"));
  CHECK_THAT(refusal(header(0)), ContainsSubstring("does not begin with '{'"));
  CHECK_THAT(refusal(header(1)), ContainsSubstring("not valid JSON"));
  CHECK_THAT(refusal(file_of("{\"a\xff\":1}", 0)), ContainsSubstring("not valid JSON"));
  CHECK_THAT(refusal(file_of("[]", 0)), ContainsSubstring("does not begin with '{'"));
  CHECK_THAT(refusal(file_of("{} {}", 0)), ContainsSubstring("not valid JSON"));
  CHECK_THAT(refusal(file_of("{\"a\":" + std::string(1000000, '['), 0)),
             ContainsSubstring("nested too deeply"));
  CHECK_THAT(refusal(file_of("{}", 4)), ContainsSubstring("4 bytes after the last tensor"));
  CHECK(refusal(file_of("{}", 0)) == "accepted");
  CHECK_THAT(refusal(file_of(R"({"__metadata__":[]})", 0)), ContainsSubstring("not an object"));
  CHECK_THAT(refusal(file_of(R"({"__metadata__":{"a":1}})", 0)), ContainsSubstring("not a string"));
  CHECK_THAT(refusal(file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0)),
             ContainsSubstring("'a' twice"));
}

TEST_CASE("safetensors: hostile tensors are one clear error each") {
  const std::string good = R"({"dtype":"F32","shape":[2,2],"data_offsets":[0,16]})";
  CHECK(refusal_of_entry(good, 16) == "accepted");
  CHECK_THAT(refusal_of_entry(good, 15), ContainsSubstring("is the file truncated?"));
  CHECK_THAT(refusal_of_entry(good, 17), ContainsSubstring("1 bytes after the last tensor"));
  CHECK_THAT(refusal(file_of("{\"a\":" + good + ",\"a\":" + good + "}", 16)),
             ContainsSubstring("has 'a' twice"));
  CHECK_THAT(refusal(file_of("{\"a\":" + good + ",\"b\":" + good + "}", 16)),
             ContainsSubstring("tensor 'b' begins at byte 0, inside the one before"));
  CHECK_THAT(refusal_of_entry(R"({"dtype":"F32","shape":[2],"data_offsets":[8,16]})", 16),
             ContainsSubstring("after a gap"));
  const std::pair<const char*, const char*> cases[] = {
      {"1", "expected exactly dtype"},
      {R"({"dtype":"F32","shape":[2]})", "expected exactly dtype"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})", "expected exactly dtype"},
      {R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})", "dtype is not a string"},
      {R"({"dtype":"F33","shape":[2],"data_offsets":[0,8]})", "unknown dtype 'F33'"},
      {R"({"dtype":"F64","shape":[2],"data_offsets":[0,8]})", "needs 16 bytes"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", "needs 12 bytes"},
      {R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", "non-negative integers"},
      {R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})", "non-negative integers"},
      {R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})", "non-negative integers"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})", "not two numbers"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "not within"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,99999999999999]})", "not within"},
      {R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})", "overflows"},
      {R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})", "overflows"},
      {R"({"dtype":"U8","shape":[4611686018427387904,2,0],"data_offsets":[0,0]})", "overflows"},
      {R"({"dtype":"F32","shape":[1e99999],"data_offsets":[0,8]})", "not valid JSON"},
  };
  for (const auto& [entry, reason] : cases) {
    INFO(entry);
    CHECK_THAT(refusal_of_entry(entry, 8), ContainsSubstring(reason));
  }
  const std::string long_name(100000, 'x');
  CHECK(refusal(file_of("{\"" + long_name + "\":1}", 0)).size() < 400);
}

TEST_CASE("safetensors: the writer refuses what it cannot write, and then leaves no file") {
  TemporaryFolder folder;
  const auto path = folder / "w";
  const std::vector<float> values(4);
  {
    SafetensorsWriter writer(path);
    writer.declare<float>("a", {4});
    CHECK_THROWS_WITH(writer.declare<float>("a", {4}), ContainsSubstring("two tensors named 'a'"));
    CHECK_THROWS_AS(writer.declare<float>("b", {-1}), ShapeError);
    CHECK_THROWS_AS(writer.declare<float>("__metadata__", {1}), FileError);
    CHECK_THROWS_AS(writer.write(std::span<const float>(values)), Error);
    writer.begin();
    writer.write(std::span<const float>(values).first(3));
    CHECK_THROWS_AS(writer.write(std::span<const float>(values)), Error);
    CHECK_THROWS_WITH(writer.commit(), ContainsSubstring("12 of 16 bytes"));
  }
  {
    SafetensorsWriter writer(path);
    writer.declare<float>("odd", {1});
    writer.declare<double>("wide", {1});
    CHECK_THROWS_WITH(writer.begin(), ContainsSubstring("'wide' before narrower"));
  }
  {
    SafetensorsWriter writer(path);
    writer.declare<float>("\xff", {1});
    CHECK_THROWS_WITH(writer.begin(), ContainsSubstring("not UTF-8"));
  }
  CHECK(folder.entries() == 0);
}

TEST_CASE("safetensors: fuzzed files are read or refused") {
  const std::vector<std::string> valid{
      python_file(), file_of(R"({"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}})", 8)};
  fuzz(valid, 2, 1, [](const std::filesystem::path& path) {
    const SafetensorsFile file(path);
    for (const TensorInfo& tensor : file.tensors()) {
      std::vector<float> values(static_cast<std::size_t>(tensor.size()));
      file.read(tensor.name, std::span<float>(values));
    }
  });
}
