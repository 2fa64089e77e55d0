#pragma once
// The one check of labels against a number of classes that an operation with class weights needs.

#include <cstdint>

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// Throws DataError unless every label [B] is in [0, classes); `place` names the operation.
template <class Context>
void check_labels(Context& ctx, const char* place, View<const std::int64_t> labels,
                  std::int64_t classes) {
  check_labels(ctx, place, labels.data, labels.size(), classes);
}

}  // namespace kindred::kernels
