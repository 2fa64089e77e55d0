#include "kernels.hpp"

namespace kindred::cpu {
KINDRED_STORED_KERNELS(template, float, float)
KINDRED_STORED_KERNELS(template, float, BFloat16)
KINDRED_ROUNDED_KERNELS(template, float)
}  // namespace kindred::cpu
