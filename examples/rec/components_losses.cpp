#include "device.hpp"
// After device.hpp:
#include <kindred/config/loss_entries.hpp>

namespace rec {
[[maybe_unused]] static const bool losses_registered = kindred::config::register_losses<Device>();
}
