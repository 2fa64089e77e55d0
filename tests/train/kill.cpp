// kill -9 at any moment: the resumed run ends with the bits of one that was never killed.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "train/small_run.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

using Clock = std::chrono::steady_clock;

/// Trains to the end in a child process, from where the last one was killed.
pid_t start_training(const std::filesystem::path& output) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    SmallModel model(small_config(), Seed{4});
    MemoryLoader loader(20);
    Trainer trainer(model, optim::AdamW{}, lr::Cosine{.base = 0.01}, {.threads = 2});
    trainer.fit(loader, {.epochs = 25,
                         .output = output,
                         .print_batch_step = 3,
                         .save_every_steps = 1,
                         .resume = true,
                         .quiet = true,
                         .evaluate = fingerprint});
  } catch (const std::exception& e) {
    std::fprintf(stderr, "child: %s\n", e.what());
    ::_exit(1);
  }
  ::_exit(0);
}

/// How the child ended: its exit status, or -signal.
int ending_of(pid_t child) {
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a run killed at random moments and resumed has the bits of an undisturbed one") {
  TemporaryFolder undisturbed, killed;
  const auto begin = Clock::now();
  REQUIRE(ending_of(start_training(undisturbed.path())) == 0);
  const double whole = std::chrono::duration<double>(Clock::now() - begin).count();

  RandomSequence random({23, static_cast<std::uint64_t>(::getpid()), 0});
  INFO("process id " << ::getpid());
  int kills = 0;
  for (;;) {
    const pid_t child = start_training(killed.path());
    const bool enough = std::chrono::duration<double>(Clock::now() - begin).count() > 15 + whole;
    if (!enough) {
      // Every other life is long enough for some steps on a busy machine, too.
      const double longest = whole * (kills % 2 == 0 ? 0.05 : 0.25);
      std::this_thread::sleep_for(std::chrono::duration<double>(random.uniform(0, longest)));
      ::kill(child, SIGKILL);
    }
    const int ending = ending_of(child);
    if (ending == 0) break;
    REQUIRE(ending == -SIGKILL);
    ++kills;
  }
  INFO(kills << " kills");
  CHECK(kills >= 5);
  const Remains expected(undisturbed.path()), remains(killed.path());
  CHECK(remains.journal == expected.journal);
  CHECK(remains.latest == expected.latest);
  CHECK(remains.best == expected.best);
}
