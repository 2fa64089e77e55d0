#pragma once
// The threads of one context. A network step has hundreds of short parallel loops, often beside
// threads that decode images. OpenMP's team must meet at a barrier after every loop, so a member
// that the system has put aside holds up all others; here the caller works through the chunks
// itself and waits only for chunks that somebody has begun.
//
// Every thread begins with its own share of the chunks, the same in each loop over as many, and
// then helps the others: what one loop has written is read by the next one on the same core.

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace kindred {

/// Runs loops on the calling thread and `threads - 1` workers. One caller at a time.
class ThreadPool {
 public:
  explicit ThreadPool(int threads)
      : threads_(threads), shares_(std::make_unique<Share[]>(static_cast<std::size_t>(threads))) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() {
    stopping_ = true;
    wake();
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const { return threads_; }

  /// Calls f(chunk, thread) once for every chunk in [0, chunks), in any order; thread in
  /// [0, threads()). Returns when all are done. f must not throw.
  template <class F>
  void run(std::int64_t chunks, F&& f) {
    if (workers_.empty() || chunks <= 1 || chunks > most_chunks) {
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) f(chunk, 0);
      return;
    }
    // Workers read the job only after they have claimed a chunk of it, and it stands until the last
    // claimed chunk is done.
    job_ = {[](void* function, std::int64_t chunk, int thread) {
              (*static_cast<std::remove_reference_t<F>*>(function))(chunk, thread);
            },
            &f, static_cast<std::uint32_t>(chunks)};
    unfinished_.store(static_cast<std::uint32_t>(chunks), std::memory_order_relaxed);
    ++generation_;
    for (int t = 0; t < threads(); ++t)
      shares_[size(t)].state.store(
          generation_ << 32 |
          static_cast<std::uint64_t>(job_.begin(t + 1, threads()) - job_.begin(t, threads())));
    wake();
    while (claim_and_run(0)) {
    }
    for (int spin = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spin) {
      if (spin < spins)
        pause();
      else
        std::this_thread::yield();
    }
  }

 private:
  struct Job {
    void (*call)(void*, std::int64_t, int) = nullptr;
    void* function = nullptr;
    std::uint32_t chunks = 0;
    /// First chunk of a thread's share.
    std::int64_t begin(int thread, int threads) const {
      return static_cast<std::int64_t>(chunks) * thread / threads;
    }
  };
  /// Chunks of one thread that nobody has claimed; on its own cache line.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> state{0};  ///< generation of the job, number of chunks
  };
  static std::size_t size(int n) { return static_cast<std::size_t>(n); }
  static constexpr std::int64_t most_chunks = 0xFFFFFFFF;
  static constexpr int spins = 2000;  // some 50 microseconds: longer than the gaps within a step

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  /// Takes one chunk, of its own share or of another, if any is left, and runs it.
  bool claim_and_run(int thread) {
    for (int i = 0; i < threads(); ++i)
      if (claim_and_run(thread, (thread + i) % threads())) return true;
    return false;
  }
  bool claim_and_run(int thread, int owner) {
    std::atomic<std::uint64_t>& share = shares_[size(owner)].state;
    std::uint64_t state = share.load(std::memory_order_acquire);
    std::uint32_t left;
    do {
      left = static_cast<std::uint32_t>(state);
      if (left == 0) return false;
    } while (!share.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire));
    job_.call(job_.function, job_.begin(owner + 1, threads()) - left, thread);
    unfinished_.fetch_sub(1, std::memory_order_release);
    return true;
  }
  bool has_work() const {
    for (int t = 0; t < threads(); ++t)
      if (static_cast<std::uint32_t>(shares_[size(t)].state.load()) != 0) return true;
    return false;
  }

  void wake() {
    calls_.fetch_add(1);
    if (sleepers_.load() > 0) calls_.notify_all();
  }

  void work(int thread) {
    int spin = 0;
    while (!stopping_.load(std::memory_order_relaxed)) {
      if (claim_and_run(thread)) {
        spin = 0;
      } else if (++spin < spins) {
        pause();
      } else {
        sleepers_.fetch_add(1);
        const std::uint32_t seen = calls_.load();
        if (!has_work() && !stopping_) calls_.wait(seen);
        sleepers_.fetch_sub(1);
        spin = 0;
      }
    }
  }

  const int threads_;
  Job job_;
  std::unique_ptr<Share[]> shares_;           // one for each thread
  std::uint64_t generation_ = 0;              // tells a job from the one before
  std::atomic<std::uint32_t> unfinished_{0};  // chunks not yet done
  std::atomic<std::uint32_t> calls_{0};       // what sleeping workers wait for
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace kindred
