#include "kernels.cuh"

namespace kindred::cuda {
KINDRED_STORED_KERNELS(template, float, BFloat16)
KINDRED_ROUNDED_KERNELS(template, float)
}  // namespace kindred::cuda
