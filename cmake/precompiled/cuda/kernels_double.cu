#include "kernels.cuh"

namespace kindred::cuda {
KINDRED_KERNELS(template, double)
KINDRED_STORED_KERNELS(template, double, double)
}  // namespace kindred::cuda
