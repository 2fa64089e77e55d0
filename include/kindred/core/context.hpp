#pragma once
// Where and how kernels run. A context belongs to one session and one thread at a time.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sched.h>
#include <sys/mman.h>
#endif

#include <kindred/core/arena.hpp>
#include <kindred/core/thread_pool.hpp>

namespace kindred {

namespace cpu {

/// Host memory aligned to cache lines; large blocks ask for huge pages, which spares TLB misses.
inline std::shared_ptr<void> allocate(std::size_t bytes) {
  constexpr std::size_t huge = std::size_t{2} << 20;
  const std::size_t align = bytes >= huge ? huge : Arena::alignment;
  const std::size_t rounded = (std::max<std::size_t>(bytes, 1) + align - 1) / align * align;
  void* data = std::aligned_alloc(align, rounded);
  if (data == nullptr)
    throw Error(text("out of memory: ", bytes, " bytes were requested; use a smaller batch"));
#ifdef __linux__
  if (bytes >= huge) madvise(data, rounded, MADV_HUGEPAGE);
#endif
  return std::shared_ptr<void>(data, std::free);
}

/// The processors that this process may use: in a container or under taskset fewer than there are,
/// which std::thread::hardware_concurrency() counts.
inline int available_processors() {
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

/// Runs kernels on the threads of this machine. Results do not depend on the number of threads:
/// work is cut into chunks by its shape alone, and partial results are combined in chunk order.
class Context {
 public:
  /// What Session gives to one thread at a time. One image leaves weights too little use, many
  /// leave the cache: 1 to 4 are within 5% of each other, 32 are 15% slower (PPLCNet at 224).
  static constexpr std::int64_t images_per_part = 4;
  /// Sessions keep weights packed for these kernels.
  static constexpr bool prepares_weights = true;
  /// Passes can store maps in BF16: see core/map.hpp.
  static constexpr bool stores_bf16 = true;

  /// threads = 0 takes as many as the machine offers to this process.
  explicit Context(int threads = 0)
      : arena_(&cpu::allocate), pool_(threads > 0 ? threads : available_processors()) {}

  int threads() const { return pool_.threads(); }
  Arena& arena() { return arena_; }
  /// True while memory is being planned: kernels check shapes, take scratch and compute nothing.
  bool planning() const { return arena_.recording(); }

  /// An array that lives until the returned tensor ends.
  template <class T>
  Tensor<T> make(const Shape& shape, const char* label) {
    return Tensor<T>(arena_, shape, label);
  }

  // What a GPU has to do at the border to the host's memory, and a processor has not.

  /// `host` where kernels can read it.
  template <class T>
  View<const T> upload(View<const T> host, Tensor<T>& /*memory*/) {
    return host;
  }
  /// Begins to bring `host` where the next upload() of it puts it.
  template <class T>
  void prefetch(View<const T> /*host*/) {}
  void forget_prefetched() {}
  /// `result` where the host can read it.
  template <class T>
  View<const T> download(View<const T> result, std::vector<T>& /*memory*/) {
    return result;
  }
  /// Waits until all kernels are done.
  void synchronize() {}
  /// Launches of kernels that are kept from pass to pass.
  struct Graph {};
  /// Runs `work`, which launches kernels.
  template <class F>
  void run_graph(Graph&, F&& work) {
    work();
  }

  /// Calls f(chunk) or f(chunk, thread) for chunk in [0, chunks). Chunks must not write the same
  /// memory, must not throw and must not call parallel_for.
  template <class F>
  void parallel_for(std::int64_t chunks, F&& f) {
    if (planning()) return;
    pool_.run(chunks, [&f](std::int64_t chunk, [[maybe_unused]] int thread) {
      if constexpr (std::is_invocable_v<F&, std::int64_t, int>)
        f(chunk, thread);
      else
        f(chunk);
    });
  }

  /// Cuts [0, n) into chunks of `chunk` elements and calls f(begin, end) for each.
  template <class F>
  void parallel_ranges(std::int64_t n, std::int64_t chunk, F&& f) {
    parallel_for((n + chunk - 1) / chunk,
                 [&](std::int64_t i) { f(i * chunk, std::min(n, (i + 1) * chunk)); });
  }

 private:
  Arena arena_;
  ThreadPool pool_;
};

}  // namespace cpu

namespace cuda {
/// Defined by kindred.cuh alone.
class Context;
}  // namespace cuda

/// The device argument of RecModel: this machine's processor.
struct Cpu {
  using Context = cpu::Context;
  template <class T>
  using Allocator = std::allocator<T>;
  static constexpr const char* name = "cpu";
  static std::shared_ptr<void> allocate(std::size_t bytes) { return cpu::allocate(bytes); }
  /// Memory for the few numbers of a pass that the host reads after it.
  static std::shared_ptr<void> allocate_results(std::size_t bytes) { return cpu::allocate(bytes); }
};

}  // namespace kindred
