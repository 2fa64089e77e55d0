// The context: reductions, copies at the border, graphs, errors. What is CUDA's alone is compared
// with plain loops on the CPU side.

#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/elementwise.hpp>
#else
#include <kindred/kernels/cuda/elementwise.cuh>
#include <kindred/kernels/cuda/reduce.cuh>
#endif
#include <kindred/kernels/elementwise.hpp>

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

#ifdef KINDRED_CPU_SIDE
template <int threads, class T>
void reduce(test::Side&, View<const T> x, View<T> out) {
  T sum = 0, largest = x[0], smallest = x[0];
  for (const T v : x) {
    sum += v;
    largest = std::max(largest, v);
    smallest = std::min(smallest, v);
  }
  for (std::int64_t i = 0; i < threads; ++i) {
    T warp = 0;
    for (std::int64_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) warp += x[j];
    out[4 * i] = sum;
    out[4 * i + 1] = largest;
    out[4 * i + 2] = smallest;
    out[4 * i + 3] = warp;
  }
}
#else
template <int threads, class T>
__global__ void __launch_bounds__(threads) reduce_kernel(const T* x, T* out) {
  const T value = x[threadIdx.x];
  // Two at once: no thread may begin the second while another one still reads the first.
  out[4 * threadIdx.x] = cuda::block_sum<threads>(value + value) - cuda::block_sum<threads>(value);
  out[4 * threadIdx.x + 1] = cuda::block_max<threads>(value);
  out[4 * threadIdx.x + 2] = cuda::block_min<threads>(value);
  out[4 * threadIdx.x + 3] = cuda::warp_sum(value);
}
template <int threads, class T>
void reduce(test::Side& side, View<const T> x, View<T> out) {
  side.ctx.launch("reduce", 1, cuda::block<threads>, reduce_kernel<threads, T>, x.data, out.data);
}
#endif

template <int threads, class T>
void reduce_and_record(test::Side& side) {
  const auto x = side.input(random_values<T>(threads, threads), {threads});
  const auto out = side.template output<T>({threads, 4});
  side.run([&] { reduce<threads>(side, View<const T>(x), out); });
  side.record(text(threads, " threads"), out);
}

// The value is there in every thread.
KINDRED_PARITY(reductions) {
  reduce_and_record<32, T>(side);
  reduce_and_record<64, T>(side);
  reduce_and_record<96, T>(side);
  reduce_and_record<256, T>(side);
  reduce_and_record<1024, T>(side);
}

KINDRED_PARITY(upload_and_download) {
  for (const std::int64_t n : {1, 33, 5000}) {
    const auto values = random_values<T>(n, 1);
    std::vector<T> result;
    View<const T> there;
    side.run([&] {
      Tensor<T> memory;
      const View<const T> x = side.ctx.upload(View<const T>{values.data(), {n}}, memory);
      auto y = side.ctx.template make<T>({n}, "y");
      kernels::add(side.ctx, x, x, y);
      if (!side.ctx.planning()) {
        there = side.ctx.download(View<const T>(y), result);
        side.record(text("twice ", n), there);
      }
    });
  }
}

// What was brought ahead is what upload() takes; what was not, it copies itself. While kernels read
// one array, the next is on its way.
KINDRED_PARITY(prefetch) {
  const std::int64_t n = 300, arrays = 5;
#ifdef KINDRED_CPU_SIDE
  const auto memory = cpu::allocate(static_cast<std::size_t>(n * arrays) * sizeof(T));
#else
  const auto memory = cuda::allocate_pinned(static_cast<std::size_t>(n * arrays) * sizeof(T));
#endif
  const auto values = random_values<T>(n * arrays, 1);
  T* const pinned = static_cast<T*>(memory.get());
  std::copy(values.begin(), values.end(), pinned);
  const auto sums = side.template output<T>({arrays, n});
  const auto array = [&](std::int64_t i) { return View<const T>{pinned + i * n, {n - i % 2}}; };
  side.run([&] {
    for (std::int64_t i = 0; i < arrays; ++i) {
      Tensor<T> uploaded;
      const View<const T> x = side.ctx.upload(array(i), uploaded);
      const View<T> y{sums.data + i * n, x.shape};
      kernels::add(side.ctx, x, x, y);
      if (side.ctx.planning() || i == 2 || i + 1 == arrays) continue;
      side.ctx.prefetch(array(i + 1));
      kernels::add(side.ctx, x, View<const T>(y), y);
    }
  });
  for (std::int64_t i = 0; i < arrays; ++i)
    side.record(text("array ", i), View<T>{sums.data + i * n, {n - i % 2}});
  // What has changed since is not taken from the copy, if it is forgotten.
  side.ctx.prefetch(array(0));
  side.ctx.synchronize();
  pinned[0] = 77;
  side.ctx.forget_prefetched();
  side.run([&] {
    Tensor<T> uploaded;
    const View<const T> x = side.ctx.upload(array(0), uploaded);
    kernels::add(side.ctx, x, x, View<T>{sums.data, {n}});
  });
  side.record("changed", View<T>{sums.data, {n}});
}

// A graph takes the arguments of the latest call, and another sequence of kernels.
KINDRED_PARITY(graph) {
  const std::int64_t n = 100;
  const auto x = side.input(random_values<T>(n, 1), {n});
  const auto y = side.template output<T>({n});
  typename test::SideContext::Graph graph;
  for (int call = 0; call < 4; ++call) {
    side.run([&] {
      if (side.ctx.planning()) return;
      side.ctx.run_graph(graph, [&] {
        kernels::fill(side.ctx, T(call), y);
        kernels::scale_add(side.ctx, T(2), x, y);
        if (call == 2) kernels::multiply(side.ctx, x, y, y);
      });
    });
    side.record(text("call ", call), y);
  }
}

#ifdef KINDRED_CPU_SIDE
KINDRED_PARITY(errors) {}
#else
template <class T>
__global__ void assign(T* x, T value) {
  *x = value;
}

KINDRED_PARITY(errors) {
  const auto x = side.input(std::vector<T>{7}, {1});
  side.ctx.launch("an empty grid", 0, cuda::block<1>, assign<T>, x.data, T(1));
  side.ctx.arena().begin_recording();
  side.ctx.launch("planning", 1, cuda::block<1>, assign<T>, x.data, T(2));
  side.ctx.arena().end_recording();
  side.check(side.host(x)[0] == T(7), "nothing runs while planning, nor on an empty grid");
  side.template check_throws<DeviceError>(
      [&] {
        side.ctx.launch("a tall grid", dim3(1, 70000), cuda::block<1>, assign<T>, x.data, T(3));
      },
      "a tall grid: invalid");
  side.check(cudaGetLastError() == cudaSuccess, "an error that was thrown is not met again");
  side.template check_throws<DeviceError>([&] { cuda::allocate_device(std::size_t{1} << 60); },
                                          "out of device memory");
  side.template check_throws<DeviceError>([&] { cuda::allocate_managed(std::size_t{1} << 60); },
                                          "out of device memory");
  side.template check_throws<DeviceError>(
      [&] {
        side.run([&] { side.ctx.template make<T>({std::int64_t{1} << 56}, "a very large array"); });
      },
      "largest: a very large array");
  typename test::SideContext::Graph graph;
  side.template check_throws<DataError>(
      [&] { side.ctx.run_graph(graph, [] { throw DataError("within a graph"); }); }, "within");
  side.ctx.run_graph(
      graph, [&] { side.ctx.launch("after it", 1, cuda::block<1>, assign<T>, x.data, T(4)); });
  side.check(side.host(x)[0] == T(4), "a graph after one that failed");
  side.check(cudaGetLastError() == cudaSuccess, "nor are those after it");
}
#endif

}  // namespace
