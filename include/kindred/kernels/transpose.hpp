#pragma once

namespace kindred {

/// op(X) of a matrix product: X itself or its transpose.
enum class Transpose { no, yes };

}  // namespace kindred
