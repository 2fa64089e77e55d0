#pragma once
// Every failure of the library is one exception that owns its text and names the place and the fix.

#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>

namespace kindred {

/// Base of all exceptions thrown by kindred. `what()` is the message, `where()` the throwing line.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message,
                 std::source_location where = std::source_location::current())
      : std::runtime_error(message),
        where_(std::string(where.file_name()) + ":" + std::to_string(where.line())) {}
  const std::string& where() const noexcept { return where_; }

 private:
  std::string where_;
};

/// An array has another shape than the place it is given to.
class ShapeError : public Error {
  using Error::Error;
};
/// A setting is missing, unknown or out of range.
class ConfigError : public Error {
  using Error::Error;
};
/// A file is missing, unreadable, damaged, or made for something else.
class FileError : public Error {
  using Error::Error;
};
/// A label, an image or a batch cannot be used.
class DataError : public Error {
  using Error::Error;
};
/// A value that must be finite is NaN or infinite.
class NumericError : public Error {
  using Error::Error;
};
/// A device is absent or one of its calls failed.
class DeviceError : public Error {
  using Error::Error;
};

/// Joins its arguments with operator<<: `text("expected ", a, ", got ", b)`.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace kindred
