#include "kernels.hpp"

namespace kindred::cpu {
KINDRED_MARGIN_KERNELS(template, double)
}  // namespace kindred::cpu
