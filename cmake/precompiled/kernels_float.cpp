#include "kernels.hpp"

namespace kindred::cpu {
KINDRED_KERNELS(template, float)
}  // namespace kindred::cpu
