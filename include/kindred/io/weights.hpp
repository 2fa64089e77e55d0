#pragma once
// The parameters of a model as a safetensors file with Paddle's names and Paddle's layouts, so that
// published weights load by name and tools of that world read ours.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/parameters.hpp>
#include <kindred/io/safetensors.hpp>

namespace kindred::io {

/// Whether every parameter must be in the file and the file have nothing else (strict), or what
/// fits by name and shape is taken (matching: a pretrained backbone under another head).
enum class LoadMode { strict, matching };

struct LoadOptions {
  LoadMode mode = LoadMode::strict;
  bool require_finite = true;  ///< NaN or infinity in a loaded weight throws NumericError
  std::string prefix = {};     ///< matching: nothing is taken but names that begin so
};

/// What load_weights did, by parameter name.
struct LoadReport {
  std::vector<std::string> loaded;
  std::vector<std::string> missing;     ///< in the model, not in the file
  std::vector<std::string> unexpected;  ///< in the file, not in the model
  std::vector<std::string> mismatched;  ///< in both: "name: file F32 [64, 3], model [64, 4]"
};

/// Names that begin so belong to the state of an optimizer, not to the model.
inline constexpr std::string_view optimizer_prefix = "optimizer.";

namespace detail {

/// A parameter in memory is a matrix [rows, first] whose columns are the first extent of its shape
/// in the file; `row_of` says in which of them the r-th element of a file row lies.
struct FileOrder {
  std::vector<std::int64_t> shape;  ///< in the file
  std::int64_t first = 1, rest = 1;
  std::int64_t inputs = 1, height = 1, width = 1;  ///< of a convolution
  FileLayout layout = FileLayout::same;

  explicit FileOrder(const ParameterInfo& p) : layout(p.layout) {
    const Shape& s = p.shape;
    const int rank = layout == FileLayout::transposed    ? 2
                     : layout == FileLayout::convolution ? 4
                                                         : s.rank();
    if (s.rank() != rank)
      throw ConfigError(text("parameter ", p.name, " of shape ", s, ": its file layout needs ",
                             rank, " dimensions"));
    if (layout == FileLayout::same) {
      for (int axis = 0; axis < rank; ++axis) shape.push_back(s[axis]);
    } else if (layout == FileLayout::transposed) {
      shape = {s[1], s[0]};
    } else {
      shape = {s[3], s[2], s[0], s[1]};
      inputs = s[2];
      height = s[0];
      width = s[1];
    }
    if (layout == FileLayout::same) return;
    first = shape[0];
    rest = first == 0 ? 0 : s.size() / first;
  }
  std::int64_t row_of(std::int64_t r) const {
    if (layout == FileLayout::transposed) return r;
    const std::int64_t input = r / (height * width), place = r % (height * width);
    return place * inputs + input;
  }
  /// Rows of the file handled at a time: a cache line of the memory layout.
  static constexpr std::int64_t block = 16;
};

inline std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::ostringstream out;
  out << '[';
  for (std::size_t i = 0; i < shape.size(); ++i) out << (i ? ", " : "") << shape[i];
  out << ']';
  return out.str();
}

template <class T>
void write_parameter(SafetensorsWriter& writer, const ParameterInfo& p, const T* values) {
  if (p.layout == FileLayout::same) {
    writer.write(std::span<const T>(values, static_cast<std::size_t>(p.shape.size())));
    return;
  }
  const FileOrder order(p);
  std::vector<T> rows;
  for (std::int64_t begin = 0; begin < order.first; begin += FileOrder::block) {
    const std::int64_t count = std::min(FileOrder::block, order.first - begin);
    rows.resize(static_cast<std::size_t>(count * order.rest));
    for (std::int64_t r = 0; r < order.rest; ++r) {
      const T* from = values + order.row_of(r) * order.first + begin;
      for (std::int64_t i = 0; i < count; ++i)
        rows[static_cast<std::size_t>(i * order.rest + r)] = from[i];
    }
    writer.write(std::span<const T>(rows));
  }
}

template <class T>
void read_parameter(const SafetensorsFile& file, const TensorInfo& tensor, const ParameterInfo& p,
                    T* values) {
  if (p.layout == FileLayout::same) {
    file.read_part(tensor, 0, std::span<T>(values, static_cast<std::size_t>(p.shape.size())));
    return;
  }
  const FileOrder order(p);
  std::vector<T> rows;
  for (std::int64_t begin = 0; begin < order.first; begin += FileOrder::block) {
    const std::int64_t count = std::min(FileOrder::block, order.first - begin);
    rows.resize(static_cast<std::size_t>(count * order.rest));
    file.read_part(tensor, begin * order.rest, std::span<T>(rows));
    for (std::int64_t r = 0; r < order.rest; ++r) {
      T* to = values + order.row_of(r) * order.first + begin;
      for (std::int64_t i = 0; i < count; ++i)
        to[i] = rows[static_cast<std::size_t>(i * order.rest + r)];
    }
  }
}

/// "3 missing (a, b, c)", or nothing for an empty list.
inline std::string list_text(const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return {};
  constexpr std::size_t shown = 3;
  std::string out = text("; ", names.size(), ' ', what, " (");
  for (std::size_t i = 0; i < std::min(shown, names.size()); ++i)
    out += (i ? ", " : "") + printable(names[i], 200);
  return out + (names.size() > shown ? ", ...)" : ")");
}

inline bool is_float(const std::string& dtype) {
  return dtype == "F32" || dtype == "F64" || dtype == "F16" || dtype == "BF16";
}

/// Sorts the names of table and file into the lists of a report; `loaded` has what fits.
inline LoadReport compare(const SafetensorsFile& file, const ParameterTable& table) {
  LoadReport report;
  for (const ParameterInfo& p : table.entries()) {
    const TensorInfo* tensor = file.find(p.name);
    const FileOrder order(p);
    if (tensor == nullptr)
      report.missing.push_back(p.name);
    else if (tensor->shape != order.shape || !is_float(tensor->dtype))
      report.mismatched.push_back(text(p.name, ": file ", tensor->dtype, ' ',
                                       shape_text(tensor->shape), ", model ",
                                       shape_text(order.shape)));
    else
      report.loaded.push_back(p.name);
  }
  for (const TensorInfo& tensor : file.tensors())
    if (table.find(tensor.name) == nullptr && !tensor.name.starts_with(optimizer_prefix))
      report.unexpected.push_back(tensor.name);
  return report;
}

}  // namespace detail

/// A flat array saved beside the parameters: the moments of an optimizer. Its name begins with
/// optimizer_prefix, so that load_weights passes over it.
template <class T>
struct FlatTensor {
  std::string name;
  std::span<const T> values;
};

/// Saves every parameter of `table` whole or not at all: names and layouts as Paddle has them
/// (Linear [in, out], class centres [D, C], convolutions [O, I, kh, kw]), F32 for float and F64 for
/// double. `trainable` and `buffers` are the flat regions of the table. Throws FileError.
template <class T>
void save_weights(const std::filesystem::path& path, const ParameterTable& table,
                  const T* trainable, const std::type_identity_t<T>* buffers,
                  const Metadata& metadata = {},
                  std::span<const FlatTensor<std::type_identity_t<T>>> extras = {}) {
  SafetensorsWriter writer(path);
  for (const ParameterInfo& p : table.entries())
    writer.declare<T>(p.name, detail::FileOrder(p).shape);
  for (const FlatTensor<T>& extra : extras)
    writer.declare<T>(extra.name, {static_cast<std::int64_t>(extra.values.size())});
  writer.begin(metadata);
  for (const ParameterInfo& p : table.entries())
    detail::write_parameter(writer, p,
                            (p.kind == ParameterKind::buffer ? buffers : trainable) + p.offset);
  for (const FlatTensor<T>& extra : extras) writer.write(extra.values);
  writer.commit();
}

/// Loads what save_weights or another program saved under the same names. All or nothing: the
/// regions change only after every value was read and checked. Throws FileError for a damaged file
/// and, in strict mode, for missing, unexpected or mismatched names (the first of each are listed);
/// NumericError, with the parameter's name, for a value that is not finite.
template <class T>
LoadReport load_weights(const std::filesystem::path& path, const ParameterTable& table,
                        T* trainable, std::type_identity_t<T>* buffers,
                        const LoadOptions& options = {}) {
  const SafetensorsFile file(path);
  LoadReport report = detail::compare(file, table);
  if (options.mode == LoadMode::matching)
    std::erase_if(report.loaded,
                  [&](const std::string& n) { return !n.starts_with(options.prefix); });
  const std::string complaints = detail::list_text("missing", report.missing) +
                                 detail::list_text("unexpected", report.unexpected) +
                                 detail::list_text("of another shape or type", report.mismatched);
  if (options.mode == LoadMode::strict && !complaints.empty())
    throw FileError(text(path.string(), ": does not fit the model", complaints));

  const auto region = [](const T* from, std::int64_t size) {
    return std::vector<T>(from, from + size);
  };
  std::vector<T> new_trainable = region(trainable, table.trainable_size());
  std::vector<T> new_buffers = region(buffers, table.buffer_size());
  for (const std::string& name : report.loaded) {
    const ParameterInfo& p = *table.find(name);
    T* values = (p.kind == ParameterKind::buffer ? new_buffers : new_trainable).data() + p.offset;
    detail::read_parameter(file, *file.find(name), p, values);
    if (options.require_finite &&
        !std::all_of(values, values + p.shape.size(), [](T v) { return std::isfinite(v); }))
      throw NumericError(text(path.string(), ": parameter ", printable(name, 200),
                              " has values that are not finite"));
  }
  std::copy(new_trainable.begin(), new_trainable.end(), trainable);
  std::copy(new_buffers.begin(), new_buffers.end(), buffers);
  return report;
}

}  // namespace kindred::io
