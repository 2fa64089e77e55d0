// Every chunk once, whoever comes late, sleeps or leaves.

#include <kindred/core/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include <kindred/core/context.hpp>

#include "support/catch.hpp"

using namespace kindred;

namespace {

/// Runs one loop and says whether every chunk was called exactly once by a thread of the pool.
bool every_chunk_once(ThreadPool& pool, std::int64_t chunks) {
  std::vector<std::atomic<int>> calls(static_cast<std::size_t>(chunks));
  std::atomic<bool> fine{true};
  pool.run(chunks, [&](std::int64_t chunk, int thread) {
    if (chunk < 0 || chunk >= chunks || thread < 0 || thread >= pool.threads())
      fine = false;
    else
      calls[static_cast<std::size_t>(chunk)].fetch_add(1);
  });
  for (const auto& c : calls) fine = fine && c == 1;
  return fine;
}

void rest(int microseconds) {
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
}

}  // namespace

TEST_CASE("ThreadPool: every chunk is called exactly once, for 1 to 8 threads") {
  for (int threads = 1; threads <= 8; ++threads) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    bool fine = true;
    for (std::int64_t chunks : {0, 1, 2, 3, 7, 8, 9, 64, 1000})
      for (int repeat = 0; repeat < 20; ++repeat) fine = fine && every_chunk_once(pool, chunks);
    CHECK(fine);
  }
}

TEST_CASE("ThreadPool: many small loops of changing length") {
  for (int threads : {2, 3, 8}) {
    ThreadPool pool(threads);
    std::int64_t expected = 0;
    std::atomic<std::int64_t> sum{0};
    for (std::int64_t i = 0; i < 20000; ++i) {
      const std::int64_t chunks = 2 + i % 7;
      expected += chunks * (chunks - 1) / 2 + i * chunks;
      // The function dies with its loop: a late worker would read freed memory.
      const auto f = std::make_unique<std::int64_t>(i);
      pool.run(chunks, [&, value = f.get()](std::int64_t chunk, int) { sum += chunk + *value; });
    }
    CHECK(sum == expected);
  }
}

TEST_CASE("ThreadPool: what the chunks wrote is seen after the loop") {
  ThreadPool pool(4);
  std::vector<std::int64_t> plain(512);
  for (std::int64_t round = 1; round <= 500; ++round) {
    pool.run(512,
             [&](std::int64_t chunk, int) { plain[static_cast<std::size_t>(chunk)] += round; });
    const std::int64_t sum = std::accumulate(plain.begin(), plain.end(), std::int64_t{0});
    REQUIRE(sum == 512 * round * (round + 1) / 2);
  }
}

TEST_CASE("ThreadPool: sleeping workers wake, and slow chunks are waited for") {
  ThreadPool pool(3);
  for (int i = 0; i < 20; ++i) {
    rest(2000);  // long enough for the workers to sleep
    std::atomic<int> done{0};
    std::atomic<int> by_workers{0};
    pool.run(6, [&](std::int64_t, int thread) {
      rest(300);
      if (thread != 0) ++by_workers;
      ++done;
    });
    REQUIRE(done == 6);
    if (i > 0) continue;
    // Chunks sleep, so even one processor leaves some to the workers.
    CHECK(by_workers > 0);
  }
}

TEST_CASE("ThreadPool: pools come and go, used, idle or asleep") {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 8);
    if (i % 3 == 0) CHECK(every_chunk_once(pool, 10));
    if (i % 20 == 0) rest(3000);
  }
}

TEST_CASE("ThreadPool: pools of several threads work side by side") {
  std::atomic<int> failures{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&failures] {
      ThreadPool pool(3);
      for (int i = 0; i < 300; ++i)
        if (!every_chunk_once(pool, 1 + i % 40)) ++failures;
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(failures == 0);
}

TEST_CASE("Context: parallel_for, its ranges, and silence while planning") {
  cpu::Context ctx(3);
  std::vector<int> hits(1000);
  ctx.parallel_ranges(1000, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
  });
  CHECK(hits == std::vector<int>(1000, 1));
  std::vector<int> threads(50, -1);
  ctx.parallel_for(50, [&](std::int64_t chunk, int thread) {
    threads[static_cast<std::size_t>(chunk)] = thread;
  });
  for (int t : threads) CHECK((t >= 0 && t < ctx.threads()));
  ctx.arena().begin_recording();
  std::atomic<int> calls{0};
  ctx.parallel_for(10, [&](std::int64_t) { ++calls; });
  ctx.arena().end_recording();
  CHECK(calls == 0);
}
