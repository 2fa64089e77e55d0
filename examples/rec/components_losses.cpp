#include <kindred/config/losses.hpp>
