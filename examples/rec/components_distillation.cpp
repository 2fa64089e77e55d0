#include "device.hpp"
// After device.hpp:
#include <kindred/config/distillation_entries.hpp>

namespace rec {
[[maybe_unused]] static const bool distillation_registered =
    kindred::config::register_distillation<Device>();
}
