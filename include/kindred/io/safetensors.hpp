#pragma once
// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes little-endian length
// of the header, the header in JSON, then the tensors without gaps. Nothing of a header is
// believed: its length is checked before memory is taken, and every tensor must lie where its size
// says.

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/io/atomic_file.hpp>
#include <kindred/io/input_file.hpp>

namespace kindred::io {

static_assert(std::endian::native == std::endian::little,
              "kindred's file formats are little-endian; this machine is not");

/// A tensor of a safetensors file: what its header says.
struct TensorInfo {
  std::string name;
  std::string dtype;  ///< F64 F32 F16 BF16 I64 ...
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  ///< bytes, counted from the end of the header

  /// Number of elements; known not to overflow for a tensor of an opened file.
  std::int64_t size() const {
    std::int64_t n = 1;
    for (const std::int64_t extent : shape) n *= extent;
    return n;
  }
};

/// The `__metadata__` of a file.
using Metadata = std::map<std::string, std::string>;

/// The dtype that files have for T: float, double or std::int64_t.
template <class T>
constexpr const char* dtype_of() {
  static_assert(
      std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, std::int64_t>,
      "safetensors hold float, double or std::int64_t here; convert before");
  return std::is_same_v<T, float> ? "F32" : std::is_same_v<T, double> ? "F64" : "I64";
}

/// Bytes of one element, 0 for a dtype that the format does not define.
inline std::uint64_t dtype_bytes(const std::string& dtype) {
  constexpr std::pair<const char*, std::uint64_t> known[] = {
      {"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
      {"U64", 8}, {"I32", 4}, {"U32", 4},  {"I16", 2},     {"U16", 2},
      {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, bytes] : known)
    if (dtype == name) return bytes;
  return 0;
}

/// IEEE 754 half precision to single: exact.
inline float float_from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 0x1Fu;
  const std::uint32_t mantissa = half & 0x3FFu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}
/// bfloat16 to single: exact.
inline float float_from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// An opened safetensors file: the header is read and checked, tensors are read on demand.
/// Reading is const and safe from several threads. Every fault is one FileError naming the file.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path) : file_(path) {
    const std::string header = read_header();
    parse(header);
    check_layout();
  }

  const std::filesystem::path& path() const { return file_.path(); }
  /// All tensors, in the order of their bytes.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const Metadata& metadata() const { return metadata_; }
  /// The tensor of that name, or nullptr.
  const TensorInfo* find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  /// Reads a whole tensor. F16, BF16, F32 and F64 are converted to float or double, I64 is read as
  /// std::int64_t; any other pairing, a missing name or another size throws FileError.
  template <class T>
  void read(const std::string& name, std::span<T> values) const {
    const TensorInfo& tensor = at(name);
    if (tensor.size() != static_cast<std::int64_t>(values.size()))
      file_.fail(text("tensor '", printable(name), "' has ", tensor.size(), " elements, ",
                      values.size(), " were expected"));
    read_part(tensor, 0, values);
  }
  template <class T>
  std::vector<T> read(const std::string& name) const {
    std::vector<T> values(static_cast<std::size_t>(at(name).size()));
    read(name, std::span<T>(values));
    return values;
  }

  /// Reads the elements [first, first + values.size()) of a tensor of this file.
  template <class T>
  void read_part(const TensorInfo& tensor, std::int64_t first, std::span<T> values) const {
    const std::int64_t size = tensor.size(), count = static_cast<std::int64_t>(values.size());
    if (first < 0 || first > size || count > size - first)
      file_.fail(text("tensor '", printable(tensor.name), "' has no elements ", first, " to ",
                      first + count));
    if (tensor.dtype == dtype_of<T>()) {
      const std::uint64_t skipped = static_cast<std::uint64_t>(first) * sizeof(T);
      file_.read(data_ + tensor.begin + skipped, values.data(), values.size_bytes());
    } else if (std::is_floating_point_v<T> && tensor.dtype == "F32") {
      convert<float>(tensor, first, values, [](float v) { return v; });
    } else if (std::is_floating_point_v<T> && tensor.dtype == "F64") {
      convert<double>(tensor, first, values, [](double v) { return v; });
    } else if (std::is_floating_point_v<T> && tensor.dtype == "F16") {
      convert<std::uint16_t>(tensor, first, values, float_from_half);
    } else if (std::is_floating_point_v<T> && tensor.dtype == "BF16") {
      convert<std::uint16_t>(tensor, first, values, float_from_bfloat16);
    } else {
      file_.fail(text("tensor '", printable(tensor.name), "' is ", tensor.dtype,
                      " and cannot be read as ", dtype_of<T>(),
                      "; F16, BF16, F32 and F64 are read as float or double, I64 as int64"));
    }
  }

 private:
  /// The limit of the reference implementation; a real header has some hundred bytes per tensor.
  static constexpr std::uint64_t longest_header = 100'000'000;

  const TensorInfo& at(const std::string& name) const {
    const TensorInfo* tensor = find(name);
    if (tensor == nullptr) file_.fail(text("has no tensor '", printable(name), "'"));
    return *tensor;
  }

  template <class Stored, class T, class F>
  void convert(const TensorInfo& tensor, std::int64_t first, std::span<T> values, F widen) const {
    std::array<Stored, 8192> chunk;
    for (std::size_t done = 0; done < values.size(); done += chunk.size()) {
      const std::size_t n = std::min(chunk.size(), values.size() - done);
      const std::uint64_t element = static_cast<std::uint64_t>(first) + done;
      file_.read(data_ + tensor.begin + element * sizeof(Stored), chunk.data(), n * sizeof(Stored));
      for (std::size_t i = 0; i < n; ++i) values[done + i] = static_cast<T>(widen(chunk[i]));
    }
  }

  std::string read_header() {
    if (file_.size() < 8)
      file_.fail(text("is not a safetensors file: it has only ", file_.size(), " bytes"));
    std::uint64_t length = 0;
    file_.read(0, &length, sizeof length);
    if (length > file_.size() - 8)
      file_.fail(text("is damaged or not a safetensors file: its header claims ", length,
                      " bytes, the whole file has ", file_.size()));
    if (length > longest_header)
      file_.fail(
          text("its header of ", length, " bytes is above the format's limit of ", longest_header));
    std::string header(static_cast<std::size_t>(length), '\0');
    file_.read(8, header.data(), header.size());
    if (header.empty() || header[0] != '{')
      file_.fail("is not a safetensors file: its header does not begin with '{'");
    data_ = 8 + length;
    return header;
  }

  void parse(const std::string& header) {
    nlohmann::json json;
    std::vector<std::set<std::string>> keys;  // of the objects that are open
    const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
      using Event = nlohmann::json::parse_event_t;
      if (depth > 3) file_.fail("its header is nested too deeply");
      if (event == Event::object_start) keys.emplace_back();
      if (event == Event::object_end) keys.pop_back();
      if (event == Event::key && !keys.back().insert(value.get<std::string>()).second)
        file_.fail(text("its header has '", printable(value.get<std::string>()), "' twice"));
      return true;
    };
    try {
      json = nlohmann::json::parse(header, check);
    } catch (const nlohmann::json::exception& error) {
      file_.fail(text("its header is not valid JSON: ", printable(error.what(), 200)));
    }
    for (const auto& [name, value] : json.items()) {
      if (name == "__metadata__")
        parse_metadata(value);
      else
        tensors_.push_back(parse_tensor(name, value));
    }
  }

  void parse_metadata(const nlohmann::json& json) {
    if (!json.is_object()) file_.fail("its __metadata__ is not an object");
    for (const auto& [key, value] : json.items()) {
      if (!value.is_string())
        file_.fail(text("its __metadata__ '", printable(key), "' is not a string"));
      metadata_[key] = value.get<std::string>();
    }
  }

  TensorInfo parse_tensor(const std::string& name, const nlohmann::json& json) const {
    const auto bad = [&](const std::string& reason) {
      file_.fail(text("tensor '", printable(name), "': ", reason));
    };
    if (!json.is_object() || json.size() != 3 || !json.contains("dtype") ||
        !json.contains("shape") || !json.contains("data_offsets"))
      bad("expected exactly dtype, shape and data_offsets");
    TensorInfo tensor;
    tensor.name = name;
    if (!json["dtype"].is_string()) bad("its dtype is not a string");
    tensor.dtype = json["dtype"].get<std::string>();
    const std::uint64_t width = dtype_bytes(tensor.dtype);
    if (width == 0) bad(text("unknown dtype '", printable(tensor.dtype), "'"));
    const auto numbers = [&](const char* key) {
      const nlohmann::json& array = json[key];
      const bool good =
          array.is_array() && std::all_of(array.begin(), array.end(),
                                          [](const auto& n) { return n.is_number_unsigned(); });
      if (!good) bad(text("its ", key, " is not an array of non-negative integers"));
      return array.get<std::vector<std::uint64_t>>();
    };
    std::int64_t bytes = static_cast<std::int64_t>(width);
    for (const std::uint64_t extent : numbers("shape")) {
      if (__builtin_mul_overflow(bytes, extent, &bytes)) bad("its shape overflows");
      tensor.shape.push_back(static_cast<std::int64_t>(extent));
    }
    const std::vector<std::uint64_t> offsets = numbers("data_offsets");
    if (offsets.size() != 2) bad("its data_offsets are not two numbers");
    tensor.begin = offsets[0];
    tensor.end = offsets[1];
    const std::uint64_t present = file_.size() - data_;
    if (tensor.begin > tensor.end || tensor.end > present)
      bad(text("its bytes ", tensor.begin, " to ", tensor.end, " are not within the ", present,
               " bytes of data; is the file truncated?"));
    if (tensor.end - tensor.begin != static_cast<std::uint64_t>(bytes))
      bad(text("its shape needs ", bytes, " bytes, its data_offsets give ",
               tensor.end - tensor.begin));
    return tensor;
  }

  /// Tensors must follow each other without gap, overlap or rest.
  void check_layout() {
    std::sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    std::uint64_t end = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const TensorInfo& tensor = tensors_[i];
      if (tensor.begin != end)
        file_.fail(text("tensor '", printable(tensor.name), "' begins at byte ", tensor.begin,
                        tensor.begin < end ? ", inside the one before" : ", after a gap",
                        "; expected ", end));
      end = tensor.end;
      index_[tensor.name] = i;
    }
    if (end != file_.size() - data_)
      file_.fail(text("has ", file_.size() - data_ - end, " bytes after the last tensor"));
  }

  InputFile file_;
  std::uint64_t data_ = 0;  ///< where the tensors begin
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::size_t> index_;
  Metadata metadata_;
};

/// Writes a safetensors file whole or not at all: declare every tensor, then hand over the values
/// in the same order, in pieces of any size, then commit().
class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(const std::filesystem::path& path) : file_(path) {}

  /// Announces the next tensor; T is float, double or std::int64_t.
  template <class T>
  void declare(const std::string& name, const std::vector<std::int64_t>& shape) {
    if (writing_) throw Error("SafetensorsWriter: declare every tensor before begin()");
    std::int64_t bytes = sizeof(T);
    for (const std::int64_t extent : shape)
      if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes))
        throw ShapeError(text("tensor '", name, "' has no shape that can be written"));
    if (name == "__metadata__" || !names_.insert(name).second)
      throw FileError(text("cannot write ", file_.path().string(), ": two tensors named '",
                           printable(name), "'"));
    const std::uint64_t end = end_ + static_cast<std::uint64_t>(bytes);
    tensors_.push_back({name, dtype_of<T>(), shape, end_, end});
    end_ = end;
  }

  /// Writes the header. Sorting by width keeps every tensor aligned to its element, as the
  /// reference implementation does; so all tensors of 8 bytes must be declared before those of 4.
  void begin(const Metadata& metadata = {}) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    for (const TensorInfo& t : tensors_) {
      if (t.begin % dtype_bytes(t.dtype) != 0)
        throw Error(text("SafetensorsWriter: declare '", t.name, "' before narrower tensors"));
      header[t.name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {t.begin, t.end}}};
    }
    std::string words;
    try {
      words = header.dump();
    } catch (const nlohmann::json::exception& error) {
      throw FileError(text("cannot write ", file_.path().string(),
                           ": a name or the metadata is not UTF-8: ", error.what()));
    }
    words.resize((words.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = words.size();
    file_.write(&length, sizeof length);
    file_.write(words);
    writing_ = true;
  }

  /// Appends values of the tensor whose turn it is; a piece may not reach into the next tensor.
  template <class T>
  void write(std::span<const T> values) {
    if (!writing_) throw Error("SafetensorsWriter: call begin() before write()");
    while (turn_ < tensors_.size() && written_ == tensors_[turn_].end) ++turn_;
    if (values.empty()) return;
    if (turn_ == tensors_.size() || tensors_[turn_].dtype != dtype_of<T>() ||
        values.size_bytes() > tensors_[turn_].end - written_)
      throw Error(text("SafetensorsWriter: these values do not belong to ",
                       turn_ == tensors_.size() ? "any tensor" : tensors_[turn_].name));
    file_.write(values.data(), values.size_bytes());
    written_ += values.size_bytes();
  }

  void commit() {
    if (!writing_ || written_ != end_)
      throw Error(text("SafetensorsWriter: ", written_, " of ", end_, " bytes were written"));
    file_.commit();
  }

 private:
  AtomicFile file_;
  std::vector<TensorInfo> tensors_;
  std::set<std::string> names_;
  std::size_t turn_ = 0;
  std::uint64_t end_ = 0, written_ = 0;
  bool writing_ = false;
};

}  // namespace kindred::io
