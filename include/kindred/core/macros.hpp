#pragma once
// KINDRED_HD marks functions that a CUDA compiler also builds for the device. It only decorates.

#ifdef __CUDACC__
#define KINDRED_HD __host__ __device__
#else
#define KINDRED_HD
#endif
