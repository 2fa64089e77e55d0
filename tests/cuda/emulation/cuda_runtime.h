#pragma once
// CUDA on the processor, for tests: what the kernels and the context of this library use of the
// language and of the runtime, so that g++ builds the same sources and every kernel is executed in
// every test run. It proves indices and numbers, neither speed nor the order of memory accesses
// between threads that do not meet at a barrier.
//
//   * Every thread of a block is a fiber; a barrier switches fibers. A barrier that a thread misses
//     ends the program with a message.
//   * Work is done when the host waits for it and not before, so a missing synchronisation shows.
//   * Memory from cudaMalloc starts as NaN, and the host cannot touch it after a wait; memory from
//     cudaMallocManaged it cannot touch while work on it may be in flight. Shared memory starts as
//     NaN in the first blocks of every launch.
//   * Streams run as far ahead of each other as their events allow.
//   * Allocations, waits and copies of pageable memory end the program while a graph is recorded.
//   * Blocks run in ascending or descending order, see emulation::descending_blocks.
//   * What the host asks for is counted, see emulation::counts.

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#define KINDRED_CUDA_EMULATION 1
#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
// Thread-local, because the program can find such memory and fill it with NaN.
#define __shared__ static thread_local

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define KINDRED_VECTOR_TYPES(T, name, align2, align4)        \
  struct alignas(align2) name##2 {                           \
    T x, y;                                                  \
  };                                                         \
  struct alignas(align4) name##4 {                           \
    T x, y, z, w;                                            \
  };                                                         \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
KINDRED_VECTOR_TYPES(float, float, 8, 16)
KINDRED_VECTOR_TYPES(int, int, 8, 16)
KINDRED_VECTOR_TYPES(unsigned, uint, 8, 16)
KINDRED_VECTOR_TYPES(double, double, 16, 16)
#undef KINDRED_VECTOR_TYPES

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

// ---------------------------------------------------------------------------------------- fibers

namespace emulation {

/// Whether the blocks of a launch run from the last to the first.
inline bool descending_blocks = false;

/// What the host has asked for so far.
struct Counts {
  int launches = 0;        ///< kernels, one by one
  int captures = 0;        ///< graphs that were recorded,
  int instantiations = 0;  ///< made executable
  int graph_launches = 0;  ///< and launched
  int waits = 0;           ///< for work in flight, whatever the call
};
inline Counts counts;

[[noreturn]] inline void fail(const char* message) {
  std::fprintf(stderr, "emulated CUDA: %s (block %u,%u,%u thread %u,%u,%u)\n", message, blockIdx.x,
               blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  std::abort();
}

inline constexpr std::size_t stack_bytes = 64 << 10;

/// A stack with the thread that runs on it.
struct Fiber {
  char* stack = nullptr;
  int thread = -1;
#ifdef __x86_64__
  void* top = nullptr;
#else
  ucontext_t context;
#endif
};

#ifdef __x86_64__
/// Saves the registers that a call preserves and goes on where `load` was saved.
__attribute__((naked, noinline)) inline void switch_stack(void**, void*) {
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
#endif

/// Runs the threads of one block at a time.
class Block {
 public:
  static Block& get() {
    static Block block;
    return block;
  }

  template <class F>
  void run(F&& body) {
    using Body = std::remove_reference_t<F>;
    call_ = [](void* b) { (*static_cast<Body*>(b))(); };
    body_ = &body;
    threads_ = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
    next_ = finished_ = waiting_ = 0;
    warps_.assign(static_cast<std::size_t>((threads_ + 31) / 32), Warp{});
    predicates_ = 0;
    for (;;) {
      if (!ready_.empty()) {
        Fiber* fiber = ready_.back();
        ready_.pop_back();
        resume(fiber);
      } else if (next_ < threads_) {
        resume(fresh());
      } else {
        break;
      }
    }
    if (finished_ != threads_) fail("a barrier was not reached by all threads");
  }

  /// __syncthreads; returns how many threads came with a true predicate.
  int barrier(bool predicate) {
    predicates_ += predicate;
    if (finished_ > 0) fail("__syncthreads after a thread has left the kernel");
    if (++waiting_ == threads_) {
      count_ = predicates_;
      waiting_ = predicates_ = 0;
      for (Fiber* fiber : at_barrier_) ready_.push_back(fiber);
      at_barrier_.clear();
      return count_;
    }
    at_barrier_.push_back(current_);
    leave();
    return count_;
  }

  /// What a lane gets from a warp operation.
  struct Answer {
    std::uint64_t value;  ///< of the lane that it asked for, or its own where there is none
    unsigned votes;       ///< one bit for every lane of the mask whose value is not 0
  };
  /// Meets the lanes of `mask` with `value` and asks for that of lane `source`.
  Answer meet(unsigned mask, std::uint64_t value, int source) {
    const int mine = current_->thread % 32;
    Warp& warp = warps_[static_cast<std::size_t>(current_->thread / 32)];
    const unsigned present = lanes() == 32 ? ~0u : (1u << lanes()) - 1u;
    if (!(mask >> mine & 1u)) fail("a warp operation by a lane that is not in its mask");
    mask &= present;
    warp.values[mine] = value;
    warp.sources[mine] = source;
    warp.arrived |= 1u << mine;
    if ((warp.arrived & mask) != mask) {
      warp.waiting[mine] = current_;
      leave();
      return warp.answers[mine];
    }
    warp.arrived &= ~mask;
    unsigned votes = 0;
    for (int i = 0; i < 32; ++i)
      if (mask >> i & 1u) votes |= (warp.values[i] != 0 ? 1u : 0u) << i;
    for (int i = 0; i < 32; ++i) {
      if (!(mask >> i & 1u)) continue;
      const int from = warp.sources[i];
      const bool there = from >= 0 && from < 32 && (present >> from & 1u);
      if (there && !(mask >> from & 1u)) fail("a shuffle from a lane that is not in its mask");
      warp.answers[i] = {warp.values[there ? from : i], votes};
      if (warp.waiting[i] != nullptr) ready_.push_back(warp.waiting[i]);
      warp.waiting[i] = nullptr;
    }
    return warp.answers[mine];
  }
  int lane() const { return current_->thread % 32; }
  int lanes() const { return std::min(32, threads_ - current_->thread / 32 * 32); }

 private:
  struct Warp {
    unsigned arrived = 0;
    Fiber* waiting[32] = {};
    std::uint64_t values[32] = {};
    int sources[32] = {};
    Answer answers[32] = {};
  };

  /// Threads run one after the other on a fiber until one of them has to wait.
  static void loop() {
    Block& block = get();
    for (;;) {
      while (block.next_ < block.threads_) {
        block.current_->thread = block.next_++;
        block.enter();
        block.call_(block.body_);
        ++block.finished_;
        if (block.waiting_ > 0) fail("a thread left the kernel while others wait at __syncthreads");
        if (!block.ready_.empty()) break;
      }
      block.idle_.push_back(block.current_);
      block.leave();
    }
  }

  Fiber* fresh() {
    if (!idle_.empty()) {
      Fiber* fiber = idle_.back();
      idle_.pop_back();
      return fiber;
    }
    auto fiber = std::make_unique<Fiber>();
    void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) fail("no memory for a stack");
    mprotect(stack, 4096, PROT_NONE);
    fiber->stack = static_cast<char*>(stack);
#ifdef __x86_64__
    void** top = reinterpret_cast<void**>(fiber->stack + stack_bytes) - 2;
    *top = reinterpret_cast<void*>(&Block::loop);  // aligned as after a call
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber->top = top;
#else
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, &Block::loop, 0);
#endif
    fibers_.push_back(std::move(fiber));
    return fibers_.back().get();
  }

  void enter() {
    const unsigned t = static_cast<unsigned>(current_->thread);
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
  }
  void resume(Fiber* fiber) {
    current_ = fiber;
#ifdef __x86_64__
    switch_stack(&host_, fiber->top);
#else
    swapcontext(&host_, &fiber->context);
#endif
  }
  void leave() {
    Fiber* fiber = current_;
#ifdef __x86_64__
    switch_stack(&fiber->top, host_);
#else
    swapcontext(&fiber->context, &host_);
#endif
    if (fiber->thread >= 0) enter();
  }

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_, ready_, at_barrier_;
  std::vector<Warp> warps_;
  Fiber* current_ = nullptr;
  void (*call_)(void*) = nullptr;
  void* body_ = nullptr;
  int threads_ = 0, next_ = 0, finished_ = 0, waiting_ = 0, predicates_ = 0, count_ = 0;
#ifdef __x86_64__
  void* host_ = nullptr;
#else
  ucontext_t host_;
#endif
};

}  // namespace emulation

// ------------------------------------------------------------------------------- device functions

inline void __syncthreads() { emulation::Block::get().barrier(false); }
inline int __syncthreads_count(int predicate) {
  return emulation::Block::get().barrier(predicate != 0);
}
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) > 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(predicate == 0) == 0; }
inline void __syncwarp(unsigned mask = ~0u) { emulation::Block::get().meet(mask, 0, -1); }
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace emulation {

/// The value of lane `source` of those in groups of `width` lanes.
template <class T>
T shuffle(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 8);
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = Block::get().meet(mask, word, source).value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = emulation::Block::get().lane();
  return emulation::shuffle(mask, value, lane / width * width + source % width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = emulation::Block::get().lane(), from = lane ^ bits;
  return emulation::shuffle(mask, value, from / width > lane / width ? lane : from);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emulation::Block::get().lane(), from = lane + static_cast<int>(delta);
  return emulation::shuffle(mask, value, from / width != lane / width ? lane : from);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = emulation::Block::get().lane(), from = lane - static_cast<int>(delta);
  return emulation::shuffle(mask, value, from < lane / width * width ? lane : from);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emulation::Block::get().meet(mask, predicate != 0, -1).votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate == 0) == 0;
}
inline unsigned __activemask() { return ~0u; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}

// Threads of a block take turns, so a plain update is atomic.
template <class T>
T atomicAdd(T* p, T v) {
  static_assert(std::is_integral_v<T>, "sums of floating-point numbers must have a fixed order");
  return std::exchange(*p, static_cast<T>(*p + v));
}
template <class T>
T atomicMax(T* p, T v) {
  return std::exchange(*p, std::max(*p, v));
}
template <class T>
T atomicMin(T* p, T v) {
  return std::exchange(*p, std::min(*p, v));
}
template <class T>
T atomicOr(T* p, T v) {
  return std::exchange(*p, static_cast<T>(*p | v));
}
template <class T>
T atomicExch(T* p, T v) {
  return std::exchange(*p, v);
}
template <class T>
T atomicCAS(T* p, T expected, T v) {
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// ----------------------------------------------------------------------------------- the runtime

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9
};
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    default:
      return "invalid argument";
  }
}

namespace emulation {

enum class Kind { device, managed, pinned };

struct Stream {
  unsigned number = ++created;
  static inline unsigned created = 0;
};

/// Memory and work in flight.
class Runtime {
 public:
  static Runtime& get() {
    static Runtime runtime;
    return runtime;
  }

  void* allocate(std::size_t bytes, Kind kind) {
    forbid_in_graph("an allocation while a graph is recorded");
    const std::size_t rounded = (bytes + 4095) / 4096 * 4096;
    void* data = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    std::memset(data, 0xFF, rounded);
    allocations_[static_cast<char*>(data)] = {rounded, kind};
    if (kind == Kind::device) mprotect(data, rounded, open_ ? PROT_READ | PROT_WRITE : PROT_NONE);
    return data;
  }
  bool release(void* data) {
    const auto found = allocations_.find(static_cast<char*>(data));
    if (found == allocations_.end()) return false;
    munmap(data, found->second.bytes);
    allocations_.erase(found);
    return true;
  }
  /// Whether a copy may read this memory later, as it may memory that CUDA knows.
  bool knows(const void* p) const {
    const auto after = allocations_.upper_bound(const_cast<char*>(static_cast<const char*>(p)));
    if (after == allocations_.begin()) return false;
    const auto& [base, allocation] = *std::prev(after);
    return static_cast<const char*>(p) < base + allocation.bytes;
  }

  using Work = std::function<void()>;
  using Works = std::vector<Work>;

  /// What a stream waits for: that as many records of the event are done as there were.
  struct Event {
    std::uint64_t recorded = 0, done = 0;
  };

  void submit(Work work, Stream* stream) { add({std::move(work), nullptr, 0}, stream); }
  void record(Event* event, Stream* stream) {
    const std::uint64_t number = ++event->recorded;
    add({[event, number] { event->done = number; }, nullptr, 0}, stream);
  }
  void wait_for(Event* event, Stream* stream) {
    add({[] {}, event, event->recorded}, stream);
  }
  /// Work is kept in `works` from now on, instead of being done; null ends that.
  void record_in(Works* works) { recorded_ = works; }
  bool records() const { return recorded_ != nullptr; }
  /// Ends the program if a graph is being recorded, where CUDA forbids `what`.
  void forbid_in_graph(const char* what) const {
    if (recorded_ != nullptr) fail(what);
  }
  /// Does all work that was submitted; then the host cannot touch device memory any more. Work of
  /// one stream is in order; of several, everything that does not wait for an event is done first
  /// on the youngest stream, or on the oldest with descending_blocks.
  void drain() {
    forbid_in_graph("a wait while a graph is recorded");
    if (queues_.empty()) return;
    ++counts.waits;
    open(true);
    while (!queues_.empty()) {
      const auto next = runnable();
      auto& [stream, queue] = *next;
      const Work work = std::move(queue.front().work);
      queue.pop_front();
      if (queue.empty()) queues_.erase(next);
      work();
    }
    open(false);
  }

 private:
  struct Allocation {
    std::size_t bytes;
    Kind kind;
  };
  struct Item {
    Work work;
    const Event* awaited;
    std::uint64_t number;
    bool runnable() const { return awaited == nullptr || awaited->done >= number; }
  };
  using Queues = std::map<unsigned, std::deque<Item>>;  // by the age of the stream

  void open(bool on) {
    open_ = on;
    protect(Kind::device, on);
    protect(Kind::managed, true);
  }
  void protect(Kind kind, bool accessible) {
    for (auto& [data, allocation] : allocations_)
      if (allocation.kind == kind)
        mprotect(data, allocation.bytes, accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
  void add(Item item, Stream* stream) {
    if (recorded_ != nullptr) {
      recorded_->push_back(std::move(item.work));
      return;
    }
    if (queues_.empty() && !open_) protect(Kind::managed, false);
    queues_[stream == nullptr ? 0 : stream->number].push_back(std::move(item));
  }
  Queues::iterator runnable() {
    auto found = queues_.end();
    for (auto i = queues_.begin(); i != queues_.end(); ++i)
      if (i->second.front().runnable() && (found == queues_.end() || !descending_blocks)) found = i;
    if (found == queues_.end()) fail("streams wait for each other");
    return found;
  }

  std::map<char*, Allocation> allocations_;
  Queues queues_;
  Works* recorded_ = nullptr;
  bool open_ = false;
};

/// Fills the shared memory of all kernels of this program with NaN.
inline void poison_shared_memory() {
  struct Range {
    void* data = nullptr;
    std::size_t bytes = 0;
  };
  static const Range range = [] {
    Range found;
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* out) {
          for (int i = 0; i < info->dlpi_phnum; ++i)
            if (info->dlpi_phdr[i].p_type == PT_TLS)
              *static_cast<Range*>(out) = {info->dlpi_tls_data, info->dlpi_phdr[i].p_memsz};
          return 1;  // the program itself comes first
        },
        &found);
    return found;
  }();
  if (range.data != nullptr) std::memset(range.data, 0xFF, range.bytes);
}

template <class... P>
void run_grid(dim3 grid, dim3 block, void (*kernel)(P...), std::tuple<P...>& arguments) {
  gridDim = grid;
  blockDim = block;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t b = descending_blocks ? blocks - 1 - i : i;
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    if (i < 2) poison_shared_memory();
    Block::get().run([&] { std::apply(kernel, arguments); });
  }
}

struct Graph {
  Runtime::Works works;
};
/// The one graph that is being recorded.
inline Graph* recording = nullptr;

}  // namespace emulation

using cudaStream_t = emulation::Stream*;
using cudaEvent_t = emulation::Runtime::Event*;
enum { cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventDisableTiming = 2 };
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};

struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...),
                               A&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const bool valid = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7FFFFFFFu &&
                     grid.y <= 65535 && grid.z <= 65535 && block.x > 0 && block.y > 0 &&
                     block.z > 0 && block.z <= 64 &&
                     std::uint64_t{block.x} * block.y * block.z <= 1024;
  if (!valid) return cudaErrorInvalidConfiguration;
  std::tuple<P...> kept{static_cast<P>(arguments)...};
  if (!emulation::Runtime::get().records()) ++emulation::counts.launches;
  emulation::Runtime::get().submit(
      [=]() mutable { emulation::run_grid(grid, block, kernel, kept); }, config->stream);
  return cudaSuccess;
}

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  *available = *total = std::size_t{16} << 30;
  return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  *data = emulation::Runtime::get().allocate(bytes, emulation::Kind::device);
  return *data != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaMallocManaged(void** data, std::size_t bytes, unsigned = 1) {
  *data = emulation::Runtime::get().allocate(bytes, emulation::Kind::managed);
  return *data != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
  *data = emulation::Runtime::get().allocate(bytes, emulation::Kind::pinned);
  return *data != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* data) {
  emulation::Runtime::get().drain();
  return data == nullptr || emulation::Runtime::get().release(data) ? cudaSuccess
                                                                    : cudaErrorInvalidValue;
}
inline cudaError_t cudaFreeHost(void* data) { return cudaFree(data); }

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new emulation::Stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  emulation::Runtime::get().drain();
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  emulation::Runtime::get().drain();
  return cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return cudaStreamSynchronize(nullptr); }

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  emulation::Runtime& runtime = emulation::Runtime::get();
  if (runtime.knows(from)) {
    runtime.submit([=] { std::memcpy(to, from, bytes); }, stream);
  } else {  // pageable memory is read before the call returns
    runtime.forbid_in_graph("a copy of pageable memory while a graph is recorded");
    const char* begin = static_cast<const char*>(from);
    runtime.submit(
        [to, kept = std::vector<char>(begin, begin + bytes)] {
          if (!kept.empty()) std::memcpy(to, kept.data(), kept.size());
        },
        stream);
  }
  if (!runtime.knows(to)) runtime.drain();  // a copy to pageable memory waits
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return cudaDeviceSynchronize();
}
inline cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  emulation::Runtime::get().submit([=] { std::memset(data, value, bytes); }, stream);
  return cudaSuccess;
}

using cudaGraph_t = emulation::Graph*;
using cudaGraphExec_t = emulation::Graph*;
struct cudaGraphExecUpdateResultInfo {};
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  ++emulation::counts.captures;
  emulation::recording = new emulation::Graph;
  emulation::Runtime::get().record_in(&emulation::recording->works);
  return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(emulation::recording, nullptr);
  emulation::Runtime::get().record_in(nullptr);
  return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                        unsigned long long) {
  ++emulation::counts.instantiations;
  *executable = new emulation::Graph(*graph);
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph,
                                       cudaGraphExecUpdateResultInfo*) {
  if (executable->works.size() != graph->works.size()) return cudaErrorInvalidValue;
  *executable = *graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  ++emulation::counts.graph_launches;
  for (const auto& work : executable->works) emulation::Runtime::get().submit(work, stream);
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return cudaGraphDestroy(executable);
}

inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new emulation::Runtime::Event;
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaEventCreate(event);
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  emulation::Runtime::get().drain();
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  emulation::Runtime::get().record(event, stream);
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaDeviceSynchronize(); }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned = 0) {
  emulation::Runtime::get().wait_for(event, stream);
  return cudaSuccess;
}
/// No time is emulated.
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0;
  return cudaSuccess;
}
