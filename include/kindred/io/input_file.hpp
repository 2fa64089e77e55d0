#pragma once
// A regular file read at any position. Every failure is one FileError that names the file.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <kindred/core/error.hpp>

namespace kindred::io {

/// The words for an errno value.
inline std::string error_text(int number) { return std::generic_category().message(number); }

/// Text out of a file, shortened and without control characters, fit for a message.
inline std::string printable(std::string_view raw, std::size_t longest = 80) {
  std::string shown;
  for (const char c : raw.substr(0, longest))
    shown += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
  return raw.size() > longest ? shown + "..." : shown;
}

/// An open regular file; reading is const and safe from several threads.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path) : path_(std::move(path)) {
    // O_NONBLOCK: a pipe must be refused below, not waited for.
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) fail(text("cannot be opened: ", error_text(errno)));
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0)
      close_and_fail(text("cannot be examined: ", error_text(errno)));
    if (!S_ISREG(status.st_mode)) close_and_fail("is not a regular file");
    size_ = static_cast<std::uint64_t>(status.st_size);
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  InputFile(InputFile&& other) noexcept
      : path_(std::move(other.path_)),
        size_(other.size_),
        descriptor_(std::exchange(other.descriptor_, -1)) {}
  InputFile& operator=(InputFile&&) = delete;
  ~InputFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }

  /// Reads exactly `bytes` bytes at `offset`; throws FileError if they are not there.
  void read(std::uint64_t offset, void* target, std::size_t bytes) const {
    char* out = static_cast<char*>(target);
    while (bytes > 0) {
      const ssize_t got = ::pread(descriptor_, out, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(text("cannot be read: ", error_text(errno)));
      if (got == 0) fail(text("ends at byte ", offset, ", more was expected"));
      out += got;
      offset += static_cast<std::uint64_t>(got);
      bytes -= static_cast<std::size_t>(got);
    }
  }

  /// Throws the FileError "PATH: REASON".
  [[noreturn]] void fail(const std::string& reason) const {
    throw FileError(text(path_.string(), ": ", reason));
  }

 private:
  [[noreturn]] void close_and_fail(const std::string& reason) {
    ::close(std::exchange(descriptor_, -1));
    fail(reason);
  }

  std::filesystem::path path_;
  std::uint64_t size_ = 0;
  int descriptor_ = -1;
};

}  // namespace kindred::io
