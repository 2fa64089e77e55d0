#pragma once
// Shared by the tests of file formats: a folder that vanishes, raw bytes, and bounded fuzzing.

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/random.hpp>

#include "support/catch.hpp"

namespace kindred::test {

/// An empty folder of this process, removed with all its content at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "kindred.XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}
inline std::string read_bytes(const std::filesystem::path& path) {
  std::ostringstream all;
  all << std::ifstream(path, std::ios::binary).rdbuf();
  return all.str();
}

/// One random change of `bytes`: flipped, set, removed, inserted or doubled bytes, a digit, or a
/// truncation.
inline std::string mutated(std::string bytes, RandomSequence& random) {
  const std::uint64_t changes = 1 + random.below(4);
  for (std::uint64_t i = 0; i < changes; ++i) {
    if (bytes.empty()) return std::string(1, static_cast<char>(random.below(256)));
    const std::size_t at = random.below(bytes.size());
    const std::size_t length = std::min(bytes.size() - at, random.below(16) + 1);
    switch (random.below(7)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random.below(256));
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.insert(at, length, static_cast<char>(random.below(256)));
        break;
      case 4:
        bytes.insert(at, bytes.substr(at, length));
        break;
      case 5:
        bytes[at] = static_cast<char>('0' + random.below(10));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }
  return bytes;
}

/// Feeds mutations of `valid` and random bytes to `read` for about `seconds`, through a file.
/// FileError, DataError and NumericError are answers; anything else fails the test. Seeded by
/// `stream`.
template <class Read>
void fuzz(const std::vector<std::string>& valid, double seconds, std::uint64_t stream,
          Read&& read) {
  TemporaryFolder folder;
  const auto path = folder / "fuzzed";
  RandomSequence random({11, stream, 0});
  std::int64_t accepted = 0, refused = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  while (elapsed() < seconds || accepted + refused < 300) {
    std::string bytes;
    if (random.below(8) == 0) {
      bytes.resize(random.below(200));
      for (char& c : bytes) c = static_cast<char>(random.below(256));
    } else {
      bytes = mutated(valid[random.below(valid.size())], random);
    }
    write_bytes(path, bytes);
    const double before = elapsed();
    try {
      read(path);
      ++accepted;
    } catch (const FileError&) {
      ++refused;
    } catch (const DataError&) {
      ++refused;
    } catch (const NumericError&) {
      ++refused;
    }
    REQUIRE(elapsed() - before < 10);  // no hang, on a busy machine either
  }
  INFO(accepted << " accepted, " << refused << " refused");
  CHECK(accepted > 0);
  CHECK(refused > 0);
}

}  // namespace kindred::test
