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
  cudaLaunchConfig_t config;
  config.gridDim = grid;
  config.blockDim = block;
  check(cudaLaunchKernelEx(&config, kernel, arguments...) == cudaSuccess, "a launch");
}

int* managed(std::size_t n) {
  void* data = nullptr;
  check(cudaMallocManaged(&data, n * sizeof(int)) == cudaSuccess, "cudaMallocManaged");
  return static_cast<int*>(data);
}

/// Whether a child that calls f is ended by `signal`.
template <class F>
bool ends_with(int signal, F&& f) {
  const pid_t child = fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    f();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
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
  check(out[0] == -1, "nothing is done before the host waits");
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

void check_order() {
  int* out = managed(6);
  for (const bool descending : {false, true}) {
    emulation::descending_blocks = descending;
    out[5] = 0;
    launch(5, 1, order, out, out + 5);
    cudaDeviceSynchronize();
    for (int i = 0; i < 5; ++i) check(out[i] == (descending ? 4 - i : i), "order of blocks");
  }
  cudaFree(out);
}

}  // namespace

int main() {
  check_shuffles();
  check_barriers();
  check_memory();
  check_order();
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
