#pragma once
// What the cases of a parity test record, and the lists of cases of both sides.

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace kindred::test {

struct Array {
  std::string name;
  std::vector<double> values;
  std::vector<unsigned char> bits;  ///< the array as it is in memory
  double tolerance = 0;
  double flips = -1;  ///< of BF16: the share that may be rounded to the other side
};

struct Recording {
  std::vector<Array> arrays;
  std::vector<std::string> failures;
};

using Cases = std::map<std::string, std::function<void(Recording&)>>;

/// The cases of the CPU side or of the CUDA side, by name.
Cases& cases(bool cuda);

/// Whether there is a device; tells the CUDA side which run of a case comes next.
using Device = bool (*)(int run);
Device& device();

}  // namespace kindred::test
