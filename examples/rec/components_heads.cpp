#include "device.hpp"
// After device.hpp:
#include <kindred/config/head_entries.hpp>

namespace rec {
[[maybe_unused]] static const bool heads_registered = kindred::config::register_heads<Device>();
}
