#include "kernels.cuh"

namespace kindred::cuda {
KINDRED_MARGIN_KERNELS(template, double)
}  // namespace kindred::cuda
