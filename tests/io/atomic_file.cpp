#include <kindred/io/atomic_file.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "io/files.hpp"

using namespace kindred;
using namespace kindred::io;
using namespace kindred::test;

namespace {

/// Files of this process may not grow beyond `bytes` while it lives: writing fails as on a full
/// disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int) = nullptr;
};

}  // namespace

TEST_CASE("atomic file: appears whole, replaces the old one, leaves nothing beside it") {
  TemporaryFolder folder;
  const auto path = folder / "file";
  write_bytes(path, "old");
  {
    AtomicFile file(path);
    file.write(std::string(1000000, 'a'));
    file.write("bc");
    file.overwrite(0, "X", 1);
    CHECK(read_bytes(path) == "old");
    file.commit();
  }
  CHECK(read_bytes(path) == "X" + std::string(999999, 'a') + "bc");
  CHECK(folder.entries() == 1);
}

TEST_CASE("atomic file: without commit the old file stays") {
  TemporaryFolder folder;
  const auto path = folder / "file";
  write_bytes(path, "old");
  { AtomicFile(path).write("new"); }
  CHECK(read_bytes(path) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("atomic file: a full disk is one error and the old file stays") {
  TemporaryFolder folder;
  const auto path = folder / "file";
  write_bytes(path, "old");
  const std::size_t size = GENERATE(std::size_t{70000}, std::size_t{3000000});
  {
    FileSizeLimit limit(65536);
    AtomicFile file(path);
    CHECK_THROWS_WITH(([&] {
                        file.write(std::string(size, 'a'));
                        file.commit();
                      }()),
                      ContainsSubstring(path.string()) && ContainsSubstring("writing failed") &&
                          ContainsSubstring("File too large"));
    CHECK_THROWS_AS(file.commit(), Error);
  }
  CHECK(read_bytes(path) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("atomic file: folders that are missing, unwritable or no folders") {
  TemporaryFolder folder;
  CHECK_THROWS_WITH(AtomicFile(folder / "no/file"),
                    ContainsSubstring("creating the temporary file") &&
                        ContainsSubstring("No such file or directory"));
  write_bytes(folder / "plain", "x");
  CHECK_THROWS_AS(AtomicFile(folder / "plain/file"), FileError);

  std::filesystem::create_directory(folder / "locked");
  ::chmod(folder.path().c_str(), 0755);
  ::chmod((folder / "locked").c_str(), 0555);
  const bool root = ::geteuid() == 0;  // whom permissions do not stop
  if (root) REQUIRE(::seteuid(65534) == 0);
  std::string message;
  try {
    AtomicFile file(folder / "locked/file");
  } catch (const FileError& error) {
    message = error.what();
  }
  if (root) REQUIRE(::seteuid(0) == 0);
  CHECK_THAT(message, ContainsSubstring("locked/file") && ContainsSubstring("Permission denied"));
}

TEST_CASE("atomic file: refuses to replace what is no regular file") {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder / "directory");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(AtomicFile(folder / "directory"), ContainsSubstring("not a regular file"));
  CHECK_THROWS_WITH(AtomicFile(folder / "pipe"), ContainsSubstring("not a regular file"));
  CHECK(folder.entries() == 2);
}

TEST_CASE("atomic file: two writers at a time are an error, a dead writer's rest is reused") {
  TemporaryFolder folder;
  const auto path = folder / "file";
  {
    AtomicFile first(path);
    CHECK_THROWS_WITH(AtomicFile(path), ContainsSubstring("another writer"));
    first.write("first");
    first.commit();
  }
  CHECK(read_bytes(path) == "first");

  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile dying(path);
    dying.write(std::string(1000000, 'd'));
    ::raise(SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(read_bytes(path) == "first");
  CHECK(folder.entries() == 2);  // the rest of the killed writer
  AtomicFile next(path);
  next.write("next");
  next.commit();
  CHECK(read_bytes(path) == "next");
  CHECK(folder.entries() == 1);
}

TEST_CASE("input file: what cannot be read is named") {
  TemporaryFolder folder;
  CHECK_THROWS_WITH(InputFile(folder / "none"), ContainsSubstring("No such file"));
  CHECK_THROWS_WITH(InputFile(folder.path()), ContainsSubstring("not a regular file"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH(InputFile(folder / "pipe"), ContainsSubstring("not a regular file"));
  write_bytes(folder / "short", "12345");
  const InputFile file(folder / "short");
  char bytes[8];
  CHECK_THROWS_WITH(file.read(0, bytes, 8), ContainsSubstring("ends at byte 5"));
  file.read(2, bytes, 3);
  CHECK(std::string(bytes, 3) == "345");
}
