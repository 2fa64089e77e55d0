#pragma once
// The whole library as a side of a parity test uses it, see support.hpp.

#ifdef KINDRED_CPU_SIDE
#include <kindred/kindred.hpp>
#else
#include <kindred/kindred.cuh>
#endif

namespace kindred::test {

#ifdef KINDRED_CPU_SIDE
using TestedDevice = Cpu;
#else
using TestedDevice = Cuda;
#endif

}  // namespace kindred::test
