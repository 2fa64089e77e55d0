// Runs every case of a parity test on both sides and compares; see cuda/support.hpp.
//   PROGRAM [PART...]   only cases whose name contains a PART
// Exit status: 0 all passed, 1 something failed, 77 there is no CUDA device.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>

#include "cuda/recording.hpp"

namespace kindred::test {

Cases& cases(bool cuda) {
  static Cases all[2];
  return all[cuda ? 1 : 0];
}
Device& device() {
  static Device probe = nullptr;
  return probe;
}

}  // namespace kindred::test

namespace {

using kindred::test::Array;
using kindred::test::Recording;

int failures = 0;

void failed(const std::string& name, const std::string& what) {
  std::printf("FAILED %s: %s\n", name.c_str(), what.c_str());
  ++failures;
}

Recording record(const std::string& name, bool cuda, int run) {
  Recording recording;
  kindred::test::device()(run);
  try {
    kindred::test::cases(cuda).at(name)(recording);
  } catch (const std::exception& e) {
    failed(name, std::string(cuda ? "CUDA" : "CPU") + " side threw: " + e.what());
  }
  for (const std::string& what : recording.failures)
    failed(name, std::string(cuda ? "CUDA" : "CPU") + " side: " + what);
  return recording;
}

/// Largest |a - b| / max(1, largest |b|), with the place; infinite where an element is not finite.
double difference(const Array& a, const Array& b, std::size_t& place) {
  double worst = 0, scale = 1;
  for (const double v : b.values) scale = std::max(scale, std::abs(v));
  for (std::size_t i = 0; i < b.values.size(); ++i) {
    const double d = std::abs(a.values[i] - b.values[i]);
    if (d <= worst) continue;
    place = i;
    if (!(d <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::infinity();
    worst = d;
  }
  return worst / scale;
}

/// Of BF16: every element is equal or one unit in the last place apart, few are, and what cancels
/// to less than the sums' own error is not looked at.
void compare_rounded(const std::string& name, const Array& a, const Array& b) {
  double scale = 1;
  for (const double v : b.values) scale = std::max(scale, std::abs(v));
  std::size_t flips = 0;
  for (std::size_t i = 0; i < b.values.size(); ++i) {
    const double d = std::abs(a.values[i] - b.values[i]);
    if (d == 0) continue;
    ++flips;
    const double unit = std::max(std::abs(a.values[i]), std::abs(b.values[i])) / 128;
    if (b.flips > 0 && d <= unit + b.tolerance * scale) continue;
    char message[256];
    std::snprintf(message, sizeof message, ": element %zu is %.9g, not %.9g", i, a.values[i],
                  b.values[i]);
    return failed(name, b.name + message);
  }
  const double share = static_cast<double>(flips) / static_cast<double>(b.values.size());
  if (share > b.flips)
    failed(name, b.name + ": " + std::to_string(share) + " of the elements differ, more than " +
                     std::to_string(b.flips));
}

void compare(const std::string& name, const Recording& cpu, const Recording& cuda) {
  if (cpu.arrays.size() != cuda.arrays.size()) return failed(name, "the sides recorded unequally");
  for (std::size_t i = 0; i < cpu.arrays.size(); ++i) {
    const Array &b = cpu.arrays[i], &a = cuda.arrays[i];
    if (a.name != b.name || a.values.size() != b.values.size()) {
      failed(name, "the sides recorded unequally: " + b.name);
      continue;
    }
    if (b.flips >= 0) {
      compare_rounded(name, a, b);
      continue;
    }
    std::size_t place = 0;
    const double d = difference(a, b, place);
    if (d <= b.tolerance) continue;
    char message[256];
    std::snprintf(message, sizeof message,
                  ": differ by %.3g > %.3g; element %zu is %.17g, not %.17g", d, b.tolerance, place,
                  a.values[place], b.values[place]);
    failed(name, b.name + message);
  }
}

void same_bits(const std::string& name, const Recording& first, const Recording& second) {
  if (first.arrays.size() != second.arrays.size())
    return failed(name, "two runs recorded unequally");
  for (std::size_t i = 0; i < first.arrays.size(); ++i)
    if (first.arrays[i].bits != second.arrays[i].bits)
      failed(name, first.arrays[i].name + ": two runs on CUDA gave different bits");
}

bool selected(const std::string& name, int parts, char** part) {
  return parts == 0 || std::any_of(part, part + parts, [&](const char* p) {
           return name.find(p) != std::string::npos;
         });
}

}  // namespace

int main(int count, char** arguments) {
  if (kindred::test::device() == nullptr || !kindred::test::device()(0)) {
    std::puts("no CUDA device: skipped");
    return 77;
  }
  int cases = 0;
  std::size_t arrays = 0;
  for (const auto& entry : kindred::test::cases(false)) {
    const std::string& name = entry.first;
    if (!selected(name, count - 1, arguments + 1)) continue;
    const auto begin = std::chrono::steady_clock::now();
    const Recording cpu = record(name, false, 0), cuda = record(name, true, 0);
    compare(name, cpu, cuda);
    same_bits(name, cuda, record(name, true, 1));
    ++cases;
    arrays += cpu.arrays.size();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
    std::printf("%-48s %4zu arrays %7.2f s\n", name.c_str(), cpu.arrays.size(), time.count());
  }
  if (cases == 0) failed("no case", "none was selected");
  std::printf("%d cases, %zu arrays compared, %d failures\n", cases, arrays, failures);
  return failures == 0 ? 0 : 1;
}
