#pragma once
// Files that appear whole or not at all: written beside their place, then renamed over it.

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/io/input_file.hpp>

namespace kindred::io {

/// Writes PATH.tmp and, on commit(), makes it durable and renames it to PATH. Until then, and
/// after any failure or a kill, the old PATH is untouched; the next writer reuses a left-over
/// PATH.tmp. Two writers of one PATH at a time are an error, not a mixture: PATH.tmp is locked.
/// Every failure throws FileError with the path, the failing step and the system's reason; a full
/// disk is one. (If syncing the folder fails, the last step, the new file is already in place.)
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path)
      : path_(std::move(path)), temporary_(path_.string() + ".tmp") {
    std::error_code ignored;
    if (std::filesystem::exists(path_, ignored) &&
        !std::filesystem::is_regular_file(path_, ignored))
      throw FileError(text("cannot write ", path_.string(), ": it is not a regular file"));
    open_locked();
    if (::ftruncate(descriptor_, 0) != 0) fail("emptying the temporary file");
    buffer_.reserve(buffer_size);
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() { abandon(); }

  const std::filesystem::path& path() const { return path_; }

  /// Appends bytes.
  void write(const void* data, std::size_t bytes) {
    if (buffer_.size() + bytes > buffer_size) flush();
    if (bytes > buffer_size) {
      write_at(end_, data, bytes);
      end_ += bytes;
    } else {
      const char* from = static_cast<const char*>(data);
      buffer_.insert(buffer_.end(), from, from + bytes);
    }
  }
  void write(const std::string& words) { write(words.data(), words.size()); }

  /// Overwrites bytes that were written before (a header whose counts are known at the end).
  void overwrite(std::uint64_t offset, const void* data, std::size_t bytes) {
    flush();
    if (offset > end_ || bytes > end_ - offset)
      throw Error(text("overwriting beyond the end of ", path_.string()));
    write_at(offset, data, bytes);
  }

  /// Makes the file durable and visible under its name.
  void commit() {
    flush();
    if (::fsync(descriptor_) != 0) fail("syncing the file");
    const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
    const int opened = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) fail("opening the folder");
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
      const int reason = errno;
      ::close(opened);
      errno = reason;
      fail("renaming the temporary file");
    }
    ::close(std::exchange(descriptor_, -1));
    const int synced = ::fsync(opened);
    const int reason = errno;
    ::close(opened);
    if (synced != 0 && reason != EINVAL)  // EINVAL: this file system has no such operation
      throw FileError(message("syncing the folder", reason));
  }

 private:
  static constexpr std::size_t buffer_size = std::size_t{1} << 18;

  /// Opens the temporary file and locks it. The previous holder may have renamed it meanwhile;
  /// then the lock is on a file that has another name now, and opening starts again.
  void open_locked() {
    for (;;) {
      descriptor_ = ::open(temporary_.c_str(),
                           O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
      if (descriptor_ < 0) throw FileError(message("creating the temporary file", errno));
      if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
        const int reason = errno;
        ::close(std::exchange(descriptor_, -1));
        throw FileError(message("locking the temporary file (is another writer at work?)", reason));
      }
      struct stat mine {
      }, named{};
      if (::fstat(descriptor_, &mine) == 0 && ::stat(temporary_.c_str(), &named) == 0 &&
          mine.st_dev == named.st_dev && mine.st_ino == named.st_ino)
        return;
      ::close(std::exchange(descriptor_, -1));
    }
  }
  void flush() {
    if (descriptor_ < 0) throw Error(text("writing to the closed file ", path_.string()));
    write_at(end_, buffer_.data(), buffer_.size());
    end_ += buffer_.size();
    buffer_.clear();
  }
  void write_at(std::uint64_t offset, const void* data, std::size_t bytes) {
    const char* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t done = ::pwrite(descriptor_, from, bytes, static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done == 0) errno = ENOSPC;
      if (done <= 0) fail("writing");
      from += done;
      offset += static_cast<std::uint64_t>(done);
      bytes -= static_cast<std::size_t>(done);
    }
  }
  void abandon() noexcept {
    if (descriptor_ < 0) return;
    ::unlink(temporary_.c_str());  // before the lock is released
    ::close(std::exchange(descriptor_, -1));
  }
  [[noreturn]] void fail(const char* step) {
    const int reason = errno;
    abandon();
    throw FileError(message(step, reason));
  }
  std::string message(const char* step, int reason) const {
    return text("cannot write ", path_.string(), ": ", step, " failed: ", error_text(reason));
  }

  std::filesystem::path path_;
  std::string temporary_;
  int descriptor_ = -1;
  std::vector<char> buffer_;
  std::uint64_t end_ = 0;  ///< bytes already handed to the system
};

}  // namespace kindred::io
