// The losses that YAML files of the tests may name, compiled once.
#include <kindred/config/losses.hpp>
