#include "kernels.cuh"

namespace kindred::cuda {
KINDRED_MARGIN_KERNELS(template, float)
}  // namespace kindred::cuda
