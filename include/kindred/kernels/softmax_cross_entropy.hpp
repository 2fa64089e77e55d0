#pragma once
// Softmax cross-entropy of hard labels with label smoothing, forward and backward in one.

#include <cstdint>
#include <type_traits>

#include <kindred/core/shape.hpp>

namespace kindred::kernels {

/// loss[0] = mean over b of -sum_c t[b,c] log softmax(logits[b])[c] with the smoothed target
/// t = (1 - epsilon) onehot(label) + epsilon / C (Paddle's label_smooth); epsilon 0 is plain CE.
/// dlogits += weight d loss / d logits = weight (softmax - t) / B; skipped if its data is null.
/// logits, dlogits [B,C]; labels[B]; loss [1]. Stable for any finite logits.
/// Throws DataError for a label outside [0, C) (a GPU: when it is waited for), ShapeError for an
/// empty batch.
template <class Context, class T>
void softmax_cross_entropy(Context& ctx, In<T> logits, const std::int64_t* labels,
                           std::type_identity_t<T> epsilon, std::type_identity_t<T> weight,
                           View<T> loss, View<T> dlogits) {
  check_shape("softmax_cross_entropy: loss", loss.shape, {1});
  if (dlogits.data != nullptr)
    check_shape("softmax_cross_entropy: dlogits", dlogits.shape, logits.shape);
  if (logits.size() == 0)
    throw ShapeError(text("softmax_cross_entropy: empty logits ", logits.shape));
  softmax_cross_entropy(ctx, logits.dim(0), logits.dim(1), logits.data, labels, epsilon, weight,
                        loss.data, dlogits.data);
}

}  // namespace kindred::kernels
