// CrossBatchMemory around losses on pairs, in YAML. Compiled once for the tests.
#include <kindred/config/memories.hpp>
