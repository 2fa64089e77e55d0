#include "device.hpp"
// After device.hpp:
#include <kindred/config/miner_entries.hpp>

namespace rec {
[[maybe_unused]] static const bool miners_registered = kindred::config::register_miners<Device>();
}
