#pragma once
// The device that rec computes on, with its kernels: each source of rec is compiled once for the
// program rec, and where nvcc is found once more, with REC_CUDA, for rec_cuda.

#ifdef REC_CUDA
#include <kindred/kindred.cuh>
#else
#include <kindred/kindred.hpp>
#endif

namespace rec {
#ifdef REC_CUDA
using Device = kindred::Cuda;
#else
using Device = kindred::Cpu;
#endif
}  // namespace rec
