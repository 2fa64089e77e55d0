#include "device.hpp"
// After device.hpp:
#include <kindred/config/memory_entries.hpp>

namespace rec {
[[maybe_unused]] static const bool memories_registered =
    kindred::config::register_memories<Device>();
}
