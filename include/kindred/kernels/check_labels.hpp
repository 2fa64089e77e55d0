#pragma once
// The one check of labels against a number of classes that an operation with class weights needs.

#include <cstdint>

#include <kindred/core/macros.hpp>
#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// Throws DataError unless every label [B] is in [0, classes); `place` names the operation.
template <class Context>
void check_labels(Context& ctx, const char* place, View<const std::int64_t> labels,
                  std::int64_t classes) {
  check_labels(ctx, place, labels.data, labels.size(), classes);
}

}  // namespace kindred::kernels

namespace kindred {

/// `label`, or 0 where it is no class. A GPU reports such a label only after the kernels that take
/// it for an index; with this they stay within their arrays.
KINDRED_HD inline std::int64_t class_index(std::int64_t label, std::int64_t classes) {
  return label >= 0 && label < classes ? label : 0;
}

}  // namespace kindred
