#include "kernels.cuh"

namespace kindred::cuda {
KINDRED_KERNELS(template, float)
KINDRED_STORED_KERNELS(template, float, float)
KINDRED_SEARCH_KERNELS(template)
}  // namespace kindred::cuda
