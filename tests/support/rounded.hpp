#pragma once
// Arrays in BF16 and back.

#include <vector>

#include <kindred/core/bfloat16.hpp>

namespace kindred::test {

using Full = std::vector<float>;
using Rounded = std::vector<BFloat16>;

inline Rounded rounded(const Full& values) {
  Rounded out;
  for (const float v : values) out.push_back(to_bfloat16(v));
  return out;
}
inline Full unrounded(const Rounded& values) {
  Full out;
  for (const BFloat16 v : values) out.push_back(to_float(v));
  return out;
}

}  // namespace kindred::test
