#pragma once
// One test file, two sides. tests/cuda/NAME.cu is compiled twice: by the host compiler with
// KINDRED_CPU_SIDE, where the library's operations run on cpu::Context, and for CUDA (by nvcc, or
// emulated by the host compiler), where they run on cuda::Context. Every case records named arrays
// on its side; main.cpp runs all cases on both sides and compares what they recorded, and CUDA
// twice, which must give the same bits. (nvcc does not digest the CPU kernels, so the two sides
// cannot be one translation unit.)
//
//   #include "cuda/support.hpp"
//   #include <kindred/kernels/elementwise.hpp>
//   #ifdef KINDRED_CPU_SIDE
//   #include <kindred/kernels/cpu/elementwise.hpp>
//   #else
//   #include <kindred/kernels/cuda/elementwise.cuh>
//   #endif
//   KINDRED_PARITY(add) {  // for T = float and double; `side` is the side that runs
//     for (std::int64_t n : {1, 31, 33, 257}) {
//       auto a = side.input(random_values<T>(n, 1), {n});
//       auto y = side.template output<T>({n});
//       side.run([&] { kernels::add(side.ctx, a, a, y); });
//       side.record(text("add ", n), y);
//     }
//   }

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <kindred/core/bfloat16.hpp>
#include <kindred/core/random.hpp>
#include <kindred/core/shape.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/core/context.hpp>
#else
#include <kindred/core/cuda_context.cuh>
#endif

#include "cuda/recording.hpp"

namespace kindred::test {

/// n values from Normal(0, scale), reproducible by `stream`.
template <class T>
std::vector<T> random_values(std::int64_t n, std::uint64_t stream, double scale = 1) {
  RandomSequence random({7, stream, 0});
  std::vector<T> values(static_cast<std::size_t>(n));
  for (T& v : values) v = static_cast<T>(scale * random.normal());
  return values;
}
/// n labels in [0, classes).
inline std::vector<std::int64_t> random_labels(std::int64_t n, std::int64_t classes,
                                               std::uint64_t stream) {
  RandomSequence random({7, stream, 1});
  std::vector<std::int64_t> labels(static_cast<std::size_t>(n));
  for (std::int64_t& label : labels)
    label = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(classes)));
  return labels;
}

#ifdef KINDRED_CPU_SIDE
inline namespace cpu_side {
using SideContext = cpu::Context;
inline std::shared_ptr<void> allocate_on_side(std::size_t bytes) { return cpu::allocate(bytes); }
inline void copy_bytes(void* to, const void* from, std::size_t bytes, SideContext&) {
  std::memcpy(to, from, bytes);
}
inline void wait(SideContext&) {}
#else
inline namespace cuda_side {
using SideContext = cuda::Context;
inline std::shared_ptr<void> allocate_on_side(std::size_t bytes) {
  return cuda::allocate_device(bytes);
}
inline void copy_bytes(void* to, const void* from, std::size_t bytes, SideContext& ctx) {
  cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, ctx.stream()), "cudaMemcpy");
  ctx.synchronize();
}
inline void wait(SideContext& ctx) { ctx.synchronize(); }
#endif

/// Largest relative difference that `record` allows unless it is told otherwise.
template <class T>
inline constexpr double default_tolerance = std::is_same_v<T, double>  ? 1e-12
                                            : std::is_same_v<T, float> ? 1e-5
                                                                       : 0;

/// What a case sees of the side that runs it.
class Side {
 public:
#ifdef KINDRED_CPU_SIDE
  static constexpr bool on_cuda = false;
#else
  static constexpr bool on_cuda = true;
#endif
  explicit Side(Recording& recording) : recording_(recording) {}

  SideContext ctx{1};

  /// A copy of `values` in memory of this side.
  template <class T>
  View<T> input(const std::vector<T>& values, const Shape& shape) {
    check(static_cast<std::int64_t>(values.size()) == shape.size(), "input: size and shape differ");
    const View<T> view{allocate<T>(shape), shape};
    copy_bytes(view.data, values.data(), values.size() * sizeof(T), ctx);
    return view;
  }
  /// An array full of NaN (of -1 for integers).
  template <class T>
  View<T> output(const Shape& shape) {
    return input(std::vector<T>(static_cast<std::size_t>(shape.size()), nothing<T>()), shape);
  }
  /// An array of this side, on the host.
  template <class T>
  std::vector<T> host(View<T> view) {
    std::vector<T> values(static_cast<std::size_t>(view.size()));
    copy_bytes(values.data(), view.data, values.size() * sizeof(T), ctx);
    return values;
  }

  /// Runs `pass` twice: once to plan its memory and once for real; then waits for its kernels.
  template <class F>
  void run(F&& pass) {
    plans_.push_back(std::make_unique<Plan>());
    ctx.arena().begin_recording();
    pass();
    *plans_.back() = ctx.arena().end_recording();
    ctx.arena().begin_replay(*plans_.back());
    pass();
    wait(ctx);
  }

  /// Notes an array for the comparison of the sides: they may differ by
  /// tolerance * max(1, largest element of the CPU's array), an integer not at all.
  template <class T>
  void record(const std::string& name, View<T> view,
              double tolerance = default_tolerance<std::remove_const_t<T>>) {
    const std::vector<std::remove_const_t<T>> values = host_copy(view);
    Array array{name, {values.begin(), values.end()}, {}, tolerance};
    array.bits.resize(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(array.bits.data(), values.data(), array.bits.size());
    recording_.arrays.push_back(std::move(array));
  }
  /// The same of BF16. The sides sum in different orders before they round, so the share `flips` of
  /// the elements may be rounded to the other side, and differ by one unit in the last place.
  void record(const std::string& name, View<BFloat16> view, double flips) {
    const std::vector<BFloat16> values = host(view);
    Array array{name, {}, {}, default_tolerance<float>, flips};
    for (const BFloat16 v : values) array.values.push_back(static_cast<double>(to_float(v)));
    array.bits.resize(values.size() * sizeof(BFloat16));
    std::memcpy(array.bits.data(), values.data(), array.bits.size());
    recording_.arrays.push_back(std::move(array));
  }
  /// The tolerance of float; double keeps 1e-12.
  template <class T>
  static constexpr double tolerance(double of_float) {
    return std::is_same_v<T, double> ? default_tolerance<double> : of_float;
  }
  /// Notes a failure of this side unless `passed`.
  void check(bool passed, const std::string& what) {
    if (!passed) recording_.failures.push_back(what);
  }
  /// Notes a failure unless `f` throws an E whose text contains `part`.
  template <class E, class F>
  void check_throws(F&& f, const std::string& part) {
    try {
      f();
    } catch (const E& e) {
      check(std::string(e.what()).find(part) != std::string::npos,
            "the text of the exception is: " + std::string(e.what()));
      return;
    }
    check(false, "nothing was thrown, but expected: " + part);
  }

 private:
  template <class T>
  static T nothing() {
    if constexpr (std::is_same_v<T, BFloat16>)
      return {0xFFFF};
    else if constexpr (std::is_floating_point_v<T>)
      return std::numeric_limits<T>::quiet_NaN();
    else
      return T(-1);
  }
  template <class T>
  T* allocate(const Shape& shape) {
    kept_.push_back(allocate_on_side(static_cast<std::size_t>(shape.size()) * sizeof(T)));
    return static_cast<T*>(kept_.back().get());
  }
  template <class T>
  std::vector<std::remove_const_t<T>> host_copy(View<T> view) {
    std::vector<std::remove_const_t<T>> values(static_cast<std::size_t>(view.size()));
    copy_bytes(values.data(), view.data, values.size() * sizeof(T), ctx);
    return values;
  }

  Recording& recording_;
  std::vector<std::shared_ptr<void>> kept_;
  std::vector<std::unique_ptr<Plan>> plans_;
};

/// Adds a case to the list of this side.
struct Registration {
  Registration(const char* name, void (*of_float)(Side&), void (*of_double)(Side&)) {
    add(std::string(name) + "<float>", of_float);
    add(std::string(name) + "<double>", of_double);
#ifndef KINDRED_CPU_SIDE
    device() = [](int run) {
      int devices = 0;
#ifdef KINDRED_CUDA_EMULATION
      emulation::watch_blocks = emulation::descending = run % 2 == 1;
#endif
      return run >= 0 && cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
    };
#endif
  }
  static void add(const std::string& name, void (*f)(Side&)) {
    cases(Side::on_cuda)[name] = [f](Recording& recording) {
      Side side(recording);
      f(side);
    };
  }
};

}  // inline namespace
}  // namespace kindred::test

#define KINDRED_PARITY(name)                                                                    \
  template <class T>                                                                            \
  static void name(kindred::test::Side& side);                                                  \
  static const kindred::test::Registration register_##name(#name, &name<float>, &name<double>); \
  template <class T>                                                                            \
  static void name([[maybe_unused]] kindred::test::Side& side)
