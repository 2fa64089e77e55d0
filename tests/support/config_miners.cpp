// Miners before losses on pairs, by their names in YAML. Compiled once for the tests.
#include <kindred/config/miners.hpp>
