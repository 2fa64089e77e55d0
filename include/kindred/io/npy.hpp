#pragma once
// NumPy's .npy files (numpy.lib.format): one array of float32, float64, int64 or uint8, of one or
// two dimensions, little-endian, in C order. Everything else is refused with the fix in the text.

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/shape.hpp>
#include <kindred/io/atomic_file.hpp>
#include <kindred/io/input_file.hpp>

namespace kindred::io {

static_assert(std::endian::native == std::endian::little,
              "kindred's file formats are little-endian; this machine is not");

/// How .npy spells T: float, double, std::int64_t or std::uint8_t.
template <class T>
constexpr const char* npy_descr() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> ||
                    std::is_same_v<T, std::int64_t> || std::is_same_v<T, std::uint8_t>,
                ".npy files hold float, double, std::int64_t or std::uint8_t here; convert before");
  return std::is_same_v<T, float>          ? "<f4"
         : std::is_same_v<T, double>       ? "<f8"
         : std::is_same_v<T, std::int64_t> ? "<i8"
                                           : "|u1";
}

namespace detail {

inline constexpr std::string_view npy_magic{"\x93NUMPY", 6};

/// The header of an .npy file is a Python dictionary; this reads just that much of Python.
class NpyHeaderParser {
 public:
  struct Header {
    std::optional<std::string> descr;
    std::optional<bool> fortran_order;
    std::optional<std::vector<std::int64_t>> shape;
  };

  NpyHeaderParser(const InputFile& file, std::string_view words) : file_(file), rest_(words) {}

  Header parse() {
    Header header;
    expect('{');
    while (!accept('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !header.descr)
        header.descr = descr();
      else if (key == "fortran_order" && !header.fortran_order)
        header.fortran_order = boolean();
      else if (key == "shape" && !header.shape)
        header.shape = tuple();
      else
        file_.fail(text("its .npy header has an unknown or repeated key '", printable(key), "'"));
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (!rest_.empty() || !header.descr || !header.fortran_order || !header.shape) damaged();
    return header;
  }

 private:
  [[noreturn]] void damaged() const {
    file_.fail(text("its .npy header is damaged at '", printable(rest_, 40), "'"));
  }
  void skip_blanks() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
  }
  bool accept(std::string_view token) {
    skip_blanks();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  bool accept(char token) { return accept(std::string_view(&token, 1)); }
  void expect(char token) {
    if (!accept(token)) damaged();
  }
  std::string string() {
    const char quote = accept('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos) damaged();
    std::string value(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return value;
  }
  std::string descr() {
    skip_blanks();
    if (rest_.starts_with('['))
      file_.fail("holds a structured array; save each of its fields as an array of its own");
    return string();
  }
  bool boolean() {
    if (accept("True")) return true;
    if (!accept("False")) damaged();
    return false;
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> extents;
    expect('(');
    while (!accept(')')) {
      skip_blanks();
      std::int64_t extent = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), extent);
      if (error != std::errc{} || extent < 0) damaged();
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      extents.push_back(extent);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return extents;
  }

  const InputFile& file_;
  std::string_view rest_;
};

}  // namespace detail

/// An opened .npy file: the header is read and checked against the size of the file, rows are read
/// on demand. Reading is const and safe from several threads. Faults are FileErrors.
class NpyFile {
 public:
  explicit NpyFile(const std::filesystem::path& path) : file_(path) {
    const std::string words = read_header();
    const auto header = detail::NpyHeaderParser(file_, words).parse();
    descr_ = *header.descr;
    check_descr();
    if (*header.fortran_order)
      file_.fail("is in Fortran order; save numpy.ascontiguousarray(array) instead");
    const std::vector<std::int64_t>& extents = *header.shape;
    if (extents.empty() || extents.size() > 2)
      file_.fail(text("has ", extents.size(),
                      " dimensions, 1 or 2 are expected; save array.reshape(len(array), -1)"));
    std::int64_t bytes = width();
    for (const std::int64_t extent : extents)
      if (__builtin_mul_overflow(bytes, extent, &bytes)) file_.fail("its shape overflows");
    shape_ = extents.size() == 1 ? Shape{extents[0]} : Shape{extents[0], extents[1]};
    if (static_cast<std::uint64_t>(bytes) != file_.size() - data_)
      file_.fail(text("its shape ", shape_, " needs ", bytes, " bytes of data, the file has ",
                      file_.size() - data_));
  }

  const std::filesystem::path& path() const { return file_.path(); }
  const Shape& shape() const { return shape_; }
  /// "<f4", "<f8", "<i8" or "|u1".
  const std::string& descr() const { return descr_; }

  /// Reads the rows [first, first + count) of a matrix, or elements of a vector.
  template <class T>
  void read_rows(std::int64_t first, std::int64_t count, T* values) const {
    if (descr_ != npy_descr<T>())
      file_.fail(text("has dtype '", descr_, "', '", npy_descr<T>(),
                      "' is expected; save array.astype('", npy_descr<T>(), "') instead"));
    if (first < 0 || count < 0 || first > shape_[0] || count > shape_[0] - first)
      file_.fail(text("has no rows ", first, " to ", first + count, ", its shape is ", shape_));
    const std::int64_t columns = shape_.rank() == 2 ? shape_[1] : 1;
    file_.read(data_ + static_cast<std::uint64_t>(first * columns) * sizeof(T), values,
               static_cast<std::size_t>(count * columns) * sizeof(T));
  }

 private:
  std::int64_t width() const { return descr_[2] - '0'; }

  std::string read_header() {
    std::array<unsigned char, 12> start{};
    if (file_.size() < 10) file_.fail("is not an .npy file: it is too short");
    file_.read(0, start.data(), 8);
    if (std::memcmp(start.data(), detail::npy_magic.data(), detail::npy_magic.size()) != 0)
      file_.fail("is not an .npy file: it does not begin with \\x93NUMPY");
    const int version = start[6];
    if ((version != 1 && version != 2) || start[7] != 0)
      file_.fail(text("is of .npy version ", version, '.', int{start[7]},
                      "; versions 1.0 and 2.0 are read"));
    const std::uint64_t length_bytes = version == 1 ? 2 : 4, begin = 8 + length_bytes;
    std::uint32_t length = 0;
    file_.read(8, &length, static_cast<std::size_t>(length_bytes));
    if (file_.size() < begin || length > file_.size() - begin)
      file_.fail(text("is damaged: its .npy header claims ", length, " bytes, the whole file has ",
                      file_.size()));
    if (length > longest_header)
      file_.fail(text("its .npy header of ", length, " bytes is too long for a plain array"));
    std::string words(length, '\0');
    file_.read(begin, words.data(), words.size());
    data_ = begin + length;
    return words;
  }

  void check_descr() const {
    for (const char* known : {"<f4", "<f8", "<i8", "|u1"})
      if (descr_ == known) return;
    const bool swapped = descr_.starts_with('>');
    file_.fail(text("has dtype '", printable(descr_), "'", swapped ? " (big-endian)" : "",
                    "; float32, float64, int64 and uint8 are read, little-endian: save "
                    "array.astype('<f4') instead"));
  }

  /// NumPy refuses more than 10,000 bytes by default.
  static constexpr std::uint32_t longest_header = 65536;

  InputFile file_;
  std::uint64_t data_ = 0;  ///< where the values begin
  std::string descr_;
  Shape shape_;
};

/// An array in memory of its own.
template <class T>
struct NpyArray {
  std::vector<T> values;
  Shape shape;
  View<const T> view() const { return {values.data(), shape}; }
};

/// Reads a whole .npy file of T; throws FileError.
template <class T>
NpyArray<T> read_npy(const std::filesystem::path& path) {
  const NpyFile file(path);
  if (file.descr() != npy_descr<T>()) file.read_rows<T>(0, 0, nullptr);  // says so
  NpyArray<T> array{std::vector<T>(static_cast<std::size_t>(file.shape().size())), file.shape()};
  file.read_rows(0, file.shape()[0], array.values.data());
  return array;
}

/// Writes an .npy file row by row, whole or not at all; the number of rows is entered at the end.
template <class T>
class NpyWriter {
 public:
  /// columns = -1 writes a vector, whose rows are single elements.
  explicit NpyWriter(const std::filesystem::path& path, std::int64_t columns = -1)
      : file_(path), columns_(columns) {
    if (columns < -1) throw ShapeError(text("NpyWriter: ", columns, " columns"));
    file_.write(header());
  }

  /// Appends count rows of `columns` values each.
  void append(const T* rows, std::int64_t count) {
    const std::int64_t columns = columns_ < 0 ? 1 : columns_;
    file_.write(rows, static_cast<std::size_t>(count * columns) * sizeof(T));
    rows_ += count;
  }
  /// Appends the rows of a matrix, or the elements of a vector.
  void append(In<T> rows) {
    const bool fits =
        columns_ < 0 ? rows.shape.rank() == 1 : rows.shape.rank() == 2 && rows.dim(1) == columns_;
    if (!fits)
      throw ShapeError(text("NpyWriter: expected ",
                            columns_ < 0 ? std::string("a vector") : text("[n, ", columns_, "]"),
                            ", got ", rows.shape));
    append(rows.data, rows.dim(0));
  }

  void commit() {
    const std::string words = header();
    file_.overwrite(0, words.data(), words.size());
    file_.commit();
  }

 private:
  /// Always of the same length; numpy too leaves room for growth and aligns the data to 64 bytes.
  std::string header() const {
    std::string words =
        text("{'descr': '", npy_descr<T>(), "', 'fortran_order': False, 'shape': (", rows_, ",");
    if (columns_ >= 0) words += text(' ', columns_);
    words += "), }";
    words.resize(128 - 10 - 1, ' ');
    words += '\n';
    const std::uint16_t length = static_cast<std::uint16_t>(words.size());
    std::string start(detail::npy_magic);
    start += {'\x01', '\0', static_cast<char>(length & 0xFF), static_cast<char>(length >> 8)};
    return start + words;
  }

  AtomicFile file_;
  std::int64_t columns_ = -1;
  std::int64_t rows_ = 0;
};

/// Writes a vector or a matrix; throws FileError, and ShapeError for other ranks.
template <class T>
void write_npy(const std::filesystem::path& path, View<T> array) {
  using Value = std::remove_const_t<T>;
  if (array.shape.rank() != 1 && array.shape.rank() != 2)
    throw ShapeError(text("write_npy: expected 1 or 2 dimensions, got ", array.shape));
  NpyWriter<Value> writer(path, array.shape.rank() == 2 ? array.dim(1) : -1);
  writer.append(View<const Value>{array.data, array.shape});
  writer.commit();
}

}  // namespace kindred::io
