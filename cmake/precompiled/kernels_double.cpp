#include "kernels.hpp"

namespace kindred::cpu {
KINDRED_KERNELS(template, double)
KINDRED_STORED_KERNELS(template, double, double)
}  // namespace kindred::cpu
