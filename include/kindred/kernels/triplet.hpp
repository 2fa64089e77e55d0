#pragma once
// Batch-hard triplet loss on a matrix of squared distances.
// Source: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017;
// TripletLossV2 of PaddleClas.

#include <cstdint>
#include <type_traits>

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// For every row i: ap = sqrt(max d2_ij over the same label, i itself included), an = sqrt(min
/// d2_ij over other labels), hinge_i = max(ap - an + margin, 0). loss[0] = sum of hinges / B. Any
/// layout of labels is accepted (PaddleClas needs as many positives in every row; there both
/// agree). A row without a negative contributes 0. Of equal distances the first index counts.
/// active[0] = number of rows with hinge > 0. Assigns coefficients [B,B] = weight d loss / d d2,
/// to be given to pairwise_backward; 0 where d2 <= floor, since such a distance was clipped.
/// labels[B]. Throws ShapeError for an empty batch.
template <class Context, class T>
void batch_hard_triplet(Context& ctx, In<T> d2, const std::int64_t* labels,
                        std::type_identity_t<T> margin, std::type_identity_t<T> weight,
                        View<T> loss, View<T> active, View<T> coefficients,
                        std::type_identity_t<T> floor = T(1e-12)) {
  check_shape("batch_hard_triplet: d2", d2.shape, {d2.dim(0), d2.dim(0)});
  check_shape("batch_hard_triplet: loss", loss.shape, {1});
  check_shape("batch_hard_triplet: active", active.shape, {1});
  check_shape("batch_hard_triplet: coefficients", coefficients.shape, d2.shape);
  if (d2.size() == 0) throw ShapeError("batch_hard_triplet: empty batch");
  batch_hard_triplet(ctx, d2.dim(0), d2.data, labels, margin, weight, floor, loss.data, active.data,
                     coefficients.data);
}

}  // namespace kindred::kernels
