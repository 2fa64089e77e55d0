#pragma once
// Where and how kernels run on an NVIDIA GPU. A context belongs to one session and one thread at a
// time; it has one stream, so its kernels run one after the other.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_runtime.h>
#ifdef KINDRED_HAS_CUBLAS
#include <cublas_v2.h>
#endif

#include <kindred/core/map.hpp>

namespace kindred {

namespace cuda {

/// Throws DeviceError that names the failing call unless `status` is success.
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // who asks for it after a launch of his own must not meet this one
  throw DeviceError(text(call, ": ", cudaGetErrorString(status)));
}

#ifdef KINDRED_HAS_CUBLAS
inline void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw DeviceError(text(call, ": ", cublasGetStatusString(status)));
}
#endif

/// Throws DeviceError if this machine has no usable device.
inline void require_device() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0)
    throw DeviceError(text("no CUDA device: ",
                           status != cudaSuccess ? cudaGetErrorString(status) : "none is installed",
                           "; use kindred::Cpu"));
}

/// Memory of the device, which the host cannot read. Unlike managed memory it cannot exceed the
/// device's, and it never moves.
inline std::shared_ptr<void> allocate_device(std::size_t bytes) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, std::max<std::size_t>(bytes, 1));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the next call must not report this one
    std::size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    throw DeviceError(text("out of device memory: ", bytes, " bytes were requested, ", available,
                           " of ", total, " are free; use a smaller batch"));
  }
  check(status, "cudaMalloc");
  return std::shared_ptr<void>(data, [](void* p) { cudaFree(p); });
}

/// Bytes that allocate_managed has given out.
inline std::atomic<std::size_t> managed_bytes{0};

/// Memory that the device and, while no kernel runs, the host can read and write: parameters,
/// gradients and moments, so that whatever reads or fills them on the host needs no second version.
inline void* allocate_managed(std::size_t bytes) {
  require_device();
  // Beyond the device's memory the driver would move pages to and fro without an error.
  std::size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
  if (bytes > available || managed_bytes + bytes > total)
    throw DeviceError(text("out of device memory: ", bytes, " bytes were requested beside ",
                           managed_bytes, " of other parameters, ", available, " of ", total,
                           " are free; use a smaller model"));
  void* data = nullptr;
  check(cudaMallocManaged(&data, std::max<std::size_t>(bytes, 1)), "cudaMallocManaged");
  managed_bytes += bytes;
  return data;
}
inline void free_managed(void* data, std::size_t bytes) {
  cudaFree(data);
  managed_bytes -= bytes;
}

/// allocate_managed for containers of the standard library.
template <class T>
struct ManagedAllocator {
  using value_type = T;
  ManagedAllocator() = default;
  template <class U>
  ManagedAllocator(const ManagedAllocator<U>&) {}

  T* allocate(std::size_t n) { return static_cast<T*>(allocate_managed(n * sizeof(T))); }
  void deallocate(T* data, std::size_t n) { free_managed(data, n * sizeof(T)); }
  friend bool operator==(const ManagedAllocator&, const ManagedAllocator&) { return true; }
};

/// Host memory that the device can reach: for a few numbers that kernels write and the host reads.
inline std::shared_ptr<void> allocate_pinned(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMallocHost(&data, std::max<std::size_t>(bytes, 1)), "cudaMallocHost");
  return std::shared_ptr<void>(data, [](void* p) { cudaFreeHost(p); });
}

/// A point in the work of a stream.
class Event {
 public:
  Event() {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "cudaEventCreate");
    event_.reset(event);
  }
  /// The point is after all that was given to `stream` so far.
  void record(cudaStream_t stream) { check(cudaEventRecord(event_.get(), stream), "an event"); }
  /// What is given to `stream` from now on starts after the point.
  void precede(cudaStream_t stream) const {
    check(cudaStreamWaitEvent(stream, event_.get(), 0), "an event");
  }
  /// The host waits until the point is passed.
  void synchronize() const { check(cudaEventSynchronize(event_.get()), "a kernel"); }
  /// Milliseconds from `begin` to this point; both must have been passed.
  double since(const Event& begin) const {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin.event_.get(), event_.get()),
          "cudaEventElapsedTime");
    return static_cast<double>(milliseconds);
  }

 private:
  struct Destroy {
    void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, Destroy> event_;
};

struct DestroyStream {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
/// A stream that the default stream neither waits for nor holds up.
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return Stream(stream);
}

/// How factors of float are multiplied in matrix products and convolutions that are not depthwise.
/// Sums and everything else stay FP32, and so do arrays but for maps, see Storage. With cuBLAS the
/// modes are faster, as tensor cores do the products; kindred's own kernels round alike, but take
/// as long as in FP32.
enum class MathMode {
  fp32,  ///< full precision
  tf32,  ///< factors rounded to 10 bits of mantissa
  bf16,  ///< factors rounded to 7 bits of mantissa
};

/// The threads of a block, x by y: whole warps, so that warps can combine their values, or one
/// thread. A kernel's __launch_bounds__ name the same constants.
template <int x, int y = 1>
struct Block {
  static_assert(x >= 1 && y >= 1 && x * y <= 1024, "a block has at most 1024 threads");
  static_assert(x % 32 == 0 || x * y == 1, "a block has whole warps, or a single thread");
};
template <int x, int y = 1>
inline constexpr Block<x, y> block{};

/// Launches kernels on one stream of the current device. Results do not depend on the device's
/// number of processors: work is cut by its shape alone, and no sum is taken in random order.
class Context {
 public:
  /// Passes can store maps in BF16: see core/map.hpp.
  static constexpr bool stores_bf16 = true;

  /// The number of threads is that of cpu::Context and has no meaning here. Throws DeviceError if
  /// there is no device.
  explicit Context(int /*threads*/ = 0) : arena_(&allocate_device) {
    require_device();
    stream_ = make_stream();
    label_error_ = std::static_pointer_cast<int>(allocate_pinned(sizeof(int)));
    *label_error_ = 0;
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  /// Waits for the streams, which still use the memory of the context.
  ~Context() {
    if (ahead_ != nullptr) cudaStreamSynchronize(ahead_->stream.get());
    cudaStreamSynchronize(stream_.get());
  }

  cudaStream_t stream() const { return stream_.get(); }
  Arena& arena() { return arena_; }
  /// True while memory is being planned: kernels check shapes, take scratch and compute nothing.
  bool planning() const { return arena_.recording(); }
  MathMode math() const { return math_; }
  void set_math(MathMode mode) { math_ = mode; }
  /// The mode of a session whose maps are stored so, until set_math(): with BF16 maps, which tensor
  /// cores multiply as they are, the other factors are rounded, too.
  void adapt_math(Storage maps) { math_ = maps == Storage::bf16 ? MathMode::bf16 : MathMode::fp32; }

  /// An array that lives until the returned tensor ends.
  template <class T>
  Tensor<T> make(const Shape& shape, const char* label) {
    Tensor<T> array(arena_, shape, label);
    if (poison_ && !planning() && array.size() > 0)
      check(cudaMemsetAsync(array.data, 0xFF, static_cast<std::size_t>(array.size()) * sizeof(T),
                            stream()),
            label);
    return array;
  }
  /// For tests: arrays start full of NaN.
  void set_poison(bool on) { poison_ = on; }

  /// A copy of `host` in `memory`, which this makes. The copy is done when the call returns, unless
  /// the array lies in memory that CUDA made, where it is done in order with the kernels.
  template <class T>
  View<const T> upload(View<const T> host, Tensor<T>& memory) {
    memory = make<T>(host.shape, "uploaded");
    if (planning()) return memory;
    const bool fetched = ahead_ != nullptr && ahead_->holds(host.data, bytes_of(host));
    if (fetched) ahead_->copied.precede(stream());
    copy_bytes(memory.data, fetched ? ahead_->memory.get() : host.data, bytes_of(host), "upload");
    if (fetched) ahead_->give_back(stream());
    return memory;
  }
  /// Begins to copy `host` to the device while kernels run; the next upload() of the same array
  /// takes this copy. Until then its numbers must stay as they are. From memory that CUDA did not
  /// make the copy is not ahead: the call waits for it. The first call, and one for a larger array
  /// than before, allocates as much on the device.
  template <class T>
  void prefetch(View<const T> host) {
    if (ahead_ == nullptr) ahead_ = std::make_unique<Ahead>();
    ahead_->fetch(host.data, bytes_of(host));
  }
  /// The next upload() copies whatever it is given: for who changes what was to be fetched.
  void forget_prefetched() {
    if (ahead_ != nullptr) ahead_->source = nullptr;
  }
  /// A copy of `result` in `memory`; waits for it.
  template <class T>
  View<const T> download(View<const T> result, std::vector<T>& memory) {
    memory.resize(static_cast<std::size_t>(result.size()));
    copy_bytes(memory.data(), result.data, bytes_of(result), "download");
    synchronize();
    return {memory.data(), result.shape};
  }

  /// Runs kernel(arguments...) on a grid of blocks of x by y threads. Does nothing while planning,
  /// and where an extent of the grid is 0. Throws DeviceError that names the operation, `name`.
  template <int x, int y, class... P, class... A>
  void launch(const char* name, dim3 grid, Block<x, y>, void (*kernel)(P...), A&&... arguments) {
    if (planning() || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(x, y);
    config.stream = stream();
    check(cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...), name);
  }

  /// Waits until all kernels are done. Throws DeviceError if one failed, and DataError if
  /// check_labels met a label that is not a class.
  void synchronize() {
    check(cudaStreamSynchronize(stream()), "a kernel");
    if (std::exchange(*label_error_, 0) != 0)
      throw DataError(
          "a label of the batch is not in [0, class_num); set class_num to at least the largest "
          "label + 1");
  }

  /// Launches that were recorded once; they start with one call, without gaps between kernels.
  class Graph {
   public:
    Graph() = default;
    Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
    Graph& operator=(Graph&&) = delete;
    ~Graph() { clear(); }

   private:
    friend class Context;
    void clear() {
      if (executable_ != nullptr) cudaGraphExecDestroy(std::exchange(executable_, nullptr));
    }
    cudaGraphExec_t executable_ = nullptr;
  };

  /// Launches what `work` launches as one graph. `work` must not wait for the device. The graph is
  /// built once; later calls walk through `work` on the host again, without launching anything, and
  /// put its arguments (a learning rate, the step of a dropout) into the graph that is there.
  template <class F>
  void run_graph(Graph& graph, F&& work) {
    cudaGraph_t recorded = record(work);
    if (graph.executable_ != nullptr) {
      cudaGraphExecUpdateResultInfo info{};
      if (cudaGraphExecUpdate(graph.executable_, recorded, &info) != cudaSuccess) {
        cudaGetLastError();  // another sequence of kernels: a new graph
        graph.clear();
      }
    }
    cudaError_t status = cudaSuccess;
    if (graph.executable_ == nullptr)
      status = cudaGraphInstantiate(&graph.executable_, recorded, 0);
    cudaGraphDestroy(recorded);
    check(status, "cudaGraphInstantiate");
    check(cudaGraphLaunch(graph.executable_, stream()), "cudaGraphLaunch");
  }

  /// A number on the device that kernels set to 1 where they meet such a label; it stays set until
  /// synchronize() has reported it.
  int* label_error() { return label_error_.get(); }

#ifdef KINDRED_HAS_CUBLAS
  /// The handle of cuBLAS on this stream, made at the first call. Its workspace is its own from
  /// then on, so that products allocate nothing and give the same bits every time.
  cublasHandle_t cublas() {
    if (cublas_ == nullptr) {
      cublasHandle_t handle = nullptr;
      check(cublasCreate(&handle), "cublasCreate");
      cublas_.reset(handle);
      check(cublasSetStream(handle, stream()), "cublasSetStream");
      constexpr std::size_t workspace = std::size_t{32} << 20;
      workspace_ = allocate_device(workspace);
      check(cublasSetWorkspace(handle, workspace_.get(), workspace), "cublasSetWorkspace");
    }
    return cublas_.get();
  }
#endif

 private:
  template <class T>
  static std::size_t bytes_of(View<const T> view) {
    return static_cast<std::size_t>(view.size()) * sizeof(T);
  }
  void copy_bytes(void* to, const void* from, std::size_t bytes, const char* name) {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream()), name);
  }
  /// What `work` launches, recorded instead.
  template <class F>
  cudaGraph_t record(F&& work) {
#ifdef KINDRED_HAS_CUBLAS
    cublas();  // it allocates, which is not allowed below
#endif
    // Relaxed: cuBLAS and the runtime load a kernel when it is first launched, which may allocate.
    check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "a graph");
    cudaGraph_t recorded = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream(), &recorded);
      if (recorded != nullptr) cudaGraphDestroy(recorded);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream(), &recorded), "a graph");
    return recorded;
  }

  /// One array that is copied by a stream of its own.
  struct Ahead {
    Stream stream = make_stream();
    Event copied, taken;
    std::shared_ptr<void> memory;
    std::size_t capacity = 0, bytes = 0;
    const void* source = nullptr;  ///< of what `memory` holds; null: nothing

    void fetch(const void* host, std::size_t size) {
      source = nullptr;
      if (size > capacity) {
        memory.reset();  // waits for the device
        capacity = 0;
        memory = allocate_device(size);
        capacity = size;
      }
      taken.precede(stream.get());
      check(cudaMemcpyAsync(memory.get(), host, size, cudaMemcpyDefault, stream.get()), "prefetch");
      copied.record(stream.get());
      source = host;
      bytes = size;
    }
    bool holds(const void* host, std::size_t size) const {
      return source != nullptr && source == host && bytes == size;
    }
    void give_back(cudaStream_t user) {
      taken.record(user);
      source = nullptr;
    }
  };

  Stream stream_;
#ifdef KINDRED_HAS_CUBLAS
  struct DestroyCublas {
    void operator()(cublasHandle_t handle) const { cublasDestroy(handle); }
  };
  std::shared_ptr<void> workspace_;
  std::unique_ptr<std::remove_pointer_t<cublasHandle_t>, DestroyCublas> cublas_;
#endif
  std::shared_ptr<int> label_error_;
  Arena arena_;
  std::unique_ptr<Ahead> ahead_;
  MathMode math_ = MathMode::fp32;
  bool poison_ = false;
};

}  // namespace cuda

/// The device argument of RecModel: the current NVIDIA GPU.
struct Cuda {
  using Context = cuda::Context;
  static constexpr const char* name = "cuda";
  template <class T>
  using Allocator = cuda::ManagedAllocator<T>;
  static std::shared_ptr<void> allocate(std::size_t bytes) {
    return std::shared_ptr<void>(cuda::allocate_managed(bytes),
                                 [bytes](void* p) { cuda::free_managed(p, bytes); });
  }
  /// Memory for the few numbers of a pass that the host reads after it.
  static std::shared_ptr<void> allocate_results(std::size_t bytes) {
    return cuda::allocate_pinned(bytes);
  }
};

}  // namespace kindred
