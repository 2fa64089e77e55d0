#pragma once
// Times of kernels by events, and one line of JSON for every result.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <kindred/core/cuda_context.cuh>
#include <kindred/core/random.hpp>

namespace kindred::benchmarks {

struct Times {
  double median = 0, lowest = 0, highest = 0;  ///< milliseconds of one call
};

/// Milliseconds of one call of f, which launches on `stream`: rounds of `calls` between two events.
template <class F>
Times time_on(cudaStream_t stream, int rounds, int calls, F&& f) {
  cuda::Event begin, end;
  for (int i = 0; i < 3; ++i) f();  // memory is planned, clocks rise
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    begin.record(stream);
    for (int i = 0; i < calls; ++i) f();
    end.record(stream);
    end.synchronize();
    times.push_back(end.since(begin) / calls);
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

/// {"case": ..., "milliseconds": ..., NAME: value, ...}
inline void report(const std::string& name, const Times& times, const char* what, double value) {
  std::printf(
      "{\"case\": \"%s\", \"milliseconds\": %.5g, \"lowest\": %.5g, \"highest\": %.5g, "
      "\"%s\": %.6g}\n",
      name.c_str(), times.median, times.lowest, times.highest, what, value);
  std::fflush(stdout);
}

inline const char* name_of(cuda::MathMode mode) {
  constexpr const char* names[] = {"fp32", "tf32", "bf16"};
  return names[static_cast<int>(mode)];
}
/// The modes in which this build can multiply.
inline std::vector<cuda::MathMode> math_modes() {
#ifdef KINDRED_HAS_CUBLAS
  return {cuda::MathMode::fp32, cuda::MathMode::tf32, cuda::MathMode::bf16};
#else
  return {cuda::MathMode::fp32};
#endif
}

/// Device memory that keeps its numbers: Normal(0, deviation).
class DeviceArray {
 public:
  explicit DeviceArray(const Shape& shape, double deviation = 0)
      : shape_(shape),
        memory_(cuda::allocate_device(static_cast<std::size_t>(shape.size()) * sizeof(float))) {
    // A block of numbers over and over: a billion draws would take longer than the benchmark.
    RandomSequence random({1, static_cast<std::uint64_t>(shape.size()), 0});
    std::vector<float> block(
        static_cast<std::size_t>(std::min<std::int64_t>(shape.size(), 1 << 22)));
    for (float& v : block) v = static_cast<float>(deviation == 0 ? 0 : deviation * random.normal());
    for (std::int64_t at = 0; at < shape.size(); at += static_cast<std::int64_t>(block.size())) {
      const auto n = std::min(shape.size() - at, static_cast<std::int64_t>(block.size()));
      cuda::check(cudaMemcpy(data() + at, block.data(), static_cast<std::size_t>(n) * sizeof(float),
                             cudaMemcpyHostToDevice),
                  "cudaMemcpy");
    }
    // cudaMemcpy may return before the last bytes are there, and no other stream waits for them.
    cuda::check(cudaDeviceSynchronize(), "cudaMemcpy");
  }
  float* data() const { return static_cast<float*>(memory_.get()); }
  View<float> view() const { return {data(), shape_}; }

 private:
  Shape shape_;
  std::shared_ptr<void> memory_;
};

}  // namespace kindred::benchmarks
