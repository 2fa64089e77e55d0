// The emulation itself: that it computes what CUDA defines, and ends programs that are wrong.

#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

#include <cuda_runtime.h>

namespace {

int failures = 0;

void check(bool passed, const char* what) {
  if (passed) return;
  std::printf("FAILED: %s\n", what);
  ++failures;
}

template <class... P, class... A>
void launch(dim3 grid, dim3 block, void (*kernel)(P...), A... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  check(cudaLaunchKernelEx(&config, kernel, arguments...) == cudaSuccess, "a launch");
}

int* managed(std::size_t n) {
  void* data = nullptr;
  check(cudaMallocManaged(&data, n * sizeof(int)) == cudaSuccess, "cudaMallocManaged");
  return static_cast<int*>(data);
}

/// The status of a child that calls f.
template <class F>
int status_of(F&& f) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}
/// Whether a child that calls f is ended by `signal`.
template <class F>
bool ends_with(int signal, F&& f) {
  const int status = status_of(f);
#ifdef __SANITIZE_THREAD__
  if (signal == SIGSEGV) return WIFEXITED(status) && WEXITSTATUS(status) == 66;  // its report
#endif
  return WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

__global__ void shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x), all = -1;
  int* mine = out + 8 * lane;
  const unsigned mask = static_cast<unsigned>(all);
  mine[0] = __shfl_sync(mask, lane, 5);
  mine[1] = __shfl_xor_sync(mask, lane, 3);
  mine[2] = __shfl_down_sync(mask, lane, 4);
  mine[3] = __shfl_up_sync(mask, lane, 4);
  mine[4] = __shfl_sync(mask, lane, 1, 8);
  mine[5] = static_cast<int>(__ballot_sync(mask, lane % 3 == 0));
  mine[6] = __any_sync(mask, lane == 7) + 2 * __all_sync(mask, lane < 32);
  mine[7] = lane < 16 ? __shfl_xor_sync(0xFFFFu, lane, 8) : -1;
}

void check_shuffles() {
  int* out = managed(8 * 32);
  launch(1, 32, shuffles, out);
  cudaDeviceSynchronize();
  unsigned thirds = 0;
  for (int lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
  for (int lane = 0; lane < 32; ++lane) {
    const int* mine = out + 8 * lane;
    check(mine[0] == 5 && mine[1] == (lane ^ 3), "shfl and shfl_xor");
    check(mine[2] == (lane < 28 ? lane + 4 : lane), "shfl_down");
    check(mine[3] == (lane >= 4 ? lane - 4 : lane), "shfl_up");
    check(mine[4] == lane / 8 * 8 + 1, "shfl in groups of 8");
    check(static_cast<unsigned>(mine[5]) == thirds && mine[6] == 3, "votes");
    check(mine[7] == (lane < 16 ? (lane ^ 8) : -1), "half a warp");
  }
  cudaFree(out);
}

/// Every thread reads what its neighbour wrote, round and round.
__global__ void pass_on(int* out) {
  __shared__ int values[2][100];
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  values[0][t] = t;
  for (int round = 0; round < 10; ++round) {
    __syncthreads();
    values[(round + 1) % 2][t] = values[round % 2][(t + 1) % n];
  }
  out[static_cast<int>(blockIdx.x) * n + t] = values[0][t];
}

void check_barriers() {
  int* out = managed(300);
  launch(3, 100, pass_on, out);
  cudaDeviceSynchronize();
  for (int i = 0; i < 300; ++i) check(out[i] == (i % 100 + 10) % 100, "barriers");
  cudaFree(out);
}

__global__ void read_shared(int* out) {
  __shared__ float values[32];
  out[threadIdx.x] = values[threadIdx.x] != values[threadIdx.x];
  values[threadIdx.x] = 1;
}
__global__ void missed_barrier() {
  if (threadIdx.x != 7) __syncthreads();
}
__global__ void stranger_in_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xFFFFu, 1, 20);
}
__global__ void order(int* out, int* count) { out[blockIdx.x] = (*count)++; }
__global__ void order_of_threads(int* out, int* count) { out[threadIdx.x] = atomicAdd(count, 1); }

void check_memory() {
  int* out = managed(32);
  launch(1, 32, read_shared, out);
  cudaDeviceSynchronize();
  for (int i = 0; i < 32; ++i) check(out[i] == 1, "shared memory starts as NaN");
  void* device = nullptr;
  check(cudaMalloc(&device, 4096) == cudaSuccess, "cudaMalloc");
  check(ends_with(SIGSEGV, [&] { *static_cast<volatile int*>(device) = 1; }),
        "the host cannot write device memory");
  check(ends_with(SIGABRT,
                  [] {
                    launch(1, 64, missed_barrier);
                    cudaDeviceSynchronize();
                  }),
        "a missed barrier is found");
  check(ends_with(SIGABRT,
                  [&] {
                    launch(1, 32, stranger_in_mask, out);
                    cudaDeviceSynchronize();
                  }),
        "a shuffle from outside of the mask is found");
  cudaFree(device);
  cudaFree(out);
}

__global__ void assign(int* out, int value) { *out = value; }
__global__ void add_and_scale(int* out, int value) { *out = 10 * *out + value; }

/// Work of two streams on one number; `ordered` makes the second wait for the first.
int of_two_streams(bool ordered) {
  cudaStream_t streams[2] = {};
  cudaEvent_t event = nullptr;
  int* out = managed(1);
  *out = 0;
  for (cudaStream_t& stream : streams) cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaEventCreate(&event);
  cudaLaunchConfig_t config{};
  for (int i = 0; i < 2; ++i) {
    config.stream = streams[i];
    if (ordered && i == 1) cudaStreamWaitEvent(streams[1], event);
    cudaLaunchKernelEx(&config, add_and_scale, out, i + 1);
    if (i == 0) cudaEventRecord(event, streams[0]);
  }
  cudaDeviceSynchronize();
  const int result = *out;
  cudaEventDestroy(event);
  for (cudaStream_t stream : streams) cudaStreamDestroy(stream);
  cudaFree(out);
  return result;
}

void check_streams() {
  for (const bool descending : {false, true}) {
    emulation::descending = descending;
    check(of_two_streams(true) == 12, "an event orders two streams");
    check(of_two_streams(false) == (descending ? 12 : 21), "without it, both orders are tried");
  }
  int* out = managed(1);
  check(ends_with(SIGSEGV,
                  [&] {
                    launch(1, 1, assign, out, 1);
                    *static_cast<volatile int*>(out) = 2;
                  }),
        "the host cannot touch managed memory while work is in flight");
  check(ends_with(SIGABRT,
                  [] {
                    void* data = nullptr;
                    cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed);
                    cudaMalloc(&data, 1);
                  }),
        "an allocation while a graph is recorded is found");
  check(ends_with(SIGABRT,
                  [&] {
                    const int value = 3;
                    cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed);
                    cudaMemcpyAsync(out, &value, sizeof value, cudaMemcpyDefault, nullptr);
                  }),
        "a copy of pageable memory while a graph is recorded is found");
  cudaStream_t other = nullptr;
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  check(ends_with(SIGABRT,
                  [&] {
                    cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed);
                    cudaMemsetAsync(out, 0, sizeof(int), other);
                  }),
        "work of another stream while a graph is recorded is found");
  check(ends_with(SIGABRT,
                  [&] {
                    cudaEvent_t event = nullptr;
                    cudaEventCreate(&event);
                    cudaEventRecord(event, other);
                    cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed);
                    cudaStreamWaitEvent(nullptr, event);
                  }),
        "a wait for an event while a graph is recorded is found");
  cudaStreamDestroy(other);
  cudaFree(out);
}

void check_order() {
  int* out = managed(6);
  for (const bool descending : {false, true}) {
    emulation::descending = descending;
    out[5] = 0;
    launch(5, 1, order, out, out + 5);
    cudaDeviceSynchronize();
    for (int i = 0; i < 5; ++i) check(out[i] == (descending ? 4 - i : i), "order of blocks");
    out[5] = 0;
    launch(1, 5, order_of_threads, out, out + 5);
    cudaDeviceSynchronize();
    for (int i = 0; i < 5; ++i) check(out[i] == (descending ? 4 - i : i), "order of threads");
  }
  cudaFree(out);
}

#ifdef __SANITIZE_THREAD__
enum class Between { nothing, shuffle, warp_barrier, barrier };
/// Every thread reads what its neighbour wrote, in shared and in device memory.
template <Between between>
__global__ void read_neighbour(int* out) {
  __shared__ int values[64];
  const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  values[t] = t;
  out[t] = t;
  if (between == Between::shuffle) __shfl_sync(~0u, t, 0);
  if (between == Between::warp_barrier) __syncwarp();
  if (between == Between::barrier) __syncthreads();
  out[n + t] = values[(t + 1) % n] + out[(t + 1) % n];
}
/// The same between blocks of one thread, or with nothing but shared memory.
__global__ void read_neighbouring_block(int* out, bool in_device_memory) {
  __shared__ int value;
  const unsigned b = blockIdx.x;
  value = static_cast<int>(b);
  out[b] = value;
  if (in_device_memory) out[gridDim.x + b] = out[(b + 1) % gridDim.x];
}
__global__ void add_in_turn(int* sum) { atomicAdd(sum, 1); }

template <class F>
bool reports(F&& f) {
  const int status = status_of([&] {
    f();
    cudaDeviceSynchronize();
  });
  return WIFEXITED(status) && WEXITSTATUS(status) == 66;
}
template <Between between>
bool has_race(int* out, unsigned threads) {
  return reports([&] { launch(1, threads, read_neighbour<between>, out); });
}
bool blocks_race(int* out, bool watched, bool in_device_memory) {
  return reports([&] {
    emulation::watch_blocks = watched;
    launch(4, 1, read_neighbouring_block, out, in_device_memory);
  });
}

void check_races() {
  int* out = managed(128);
  check(has_race<Between::nothing>(out, 32), "a missing barrier is found");
  check(has_race<Between::shuffle>(out, 32), "a shuffle orders no memory");
  check(!has_race<Between::warp_barrier>(out, 32), "__syncwarp orders that of a warp");
  check(has_race<Between::warp_barrier>(out, 64), "and not that of two");
  check(!has_race<Between::barrier>(out, 64), "__syncthreads orders that of a block");
  check(blocks_race(out, true, true), "blocks that read what another one writes are found");
  check(!blocks_race(out, true, false), "shared memory is every block's own");
  check(!blocks_race(out, false, true), "only where they are watched");
  out[0] = 0;
  launch(2, 32, add_in_turn, out);
  cudaDeviceSynchronize();
  check(out[0] == 64, "atomic additions are no race");
  cudaFree(out);
}
#else
void check_races() {}
#endif

}  // namespace

#ifdef __SANITIZE_THREAD__
extern "C" const char* __tsan_default_options() { return "halt_on_error=1:exitcode=66"; }
#endif

int main() {
  check_races();
  check_shuffles();
  check_barriers();
  check_memory();
  check_order();
  check_streams();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
