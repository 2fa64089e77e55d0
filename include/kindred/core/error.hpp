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

// Each of these repeats the constructor: the front end of nvcc 13 aborts on an inherited one whose
// default argument is source_location::current().

/// An array has another shape than the place it is given to.
class ShapeError : public Error {
 public:
  explicit ShapeError(const std::string& message,
                      std::source_location where = std::source_location::current())
      : Error(message, where) {}
};
/// A setting is missing, unknown or out of range.
class ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message,
                       std::source_location where = std::source_location::current())
      : Error(message, where) {}
};
/// A file is missing, unreadable, damaged, or made for something else.
class FileError : public Error {
 public:
  explicit FileError(const std::string& message,
                     std::source_location where = std::source_location::current())
      : Error(message, where) {}
};
/// A label, an image or a batch cannot be used.
class DataError : public Error {
 public:
  explicit DataError(const std::string& message,
                     std::source_location where = std::source_location::current())
      : Error(message, where) {}
};
/// A value that must be finite is NaN or infinite.
class NumericError : public Error {
 public:
  explicit NumericError(const std::string& message,
                        std::source_location where = std::source_location::current())
      : Error(message, where) {}
};
/// A device is absent or one of its calls failed.
class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message,
                       std::source_location where = std::source_location::current())
      : Error(message, where) {}
};

/// Joins its arguments with operator<<: `text("expected ", a, ", got ", b)`.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace kindred
