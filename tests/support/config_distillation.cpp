// The losses between a model and its teacher by their names in YAML. Compiled once for the tests.
#include <kindred/config/distillation.hpp>
