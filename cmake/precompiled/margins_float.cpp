#include "kernels.hpp"

namespace kindred::cpu {
KINDRED_MARGIN_KERNELS(template, float)
}  // namespace kindred::cpu
