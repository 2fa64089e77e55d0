#pragma once
// Margin heads with softmax cross-entropy, without the B x C logits.
//
// With u_i = x_i/|x_i|, the cosines c_ij = u_i.w_j/|w_j| and the label y of row i, the logits are
//   z_ij = s negative(c_ij) for j != y,   z_iy = s target(c_iy);
// a policy supplies s, negative and target. The classes are cut into tiles, and the logits of a
// tile exist only while it is worked on: a first pass takes the log-sum-exp of every row, a second
// one forms g_ij = dL/dc_ij and from it, with the gradients of both normalisations,
//   dx_i = (v_i - (v_i.u_i) u_i)/|x_i|,            v_i = sum_j g_ij w_j/|w_j|
//   dw_j = (t_j - (sum_i g_ij c_ij) w_j/|w_j|)/|w_j|,  t_j = sum_i g_ij u_i.
// Source: Deng et al., "ArcFace", CVPR 2019; ArcMargin of PaddleClas; the tiling follows
// Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025.

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <kindred/core/macros.hpp>
#include <kindred/core/shape.hpp>

namespace kindred {

/// A function of the cosine and its derivative; V is a scalar or a vector of scalars.
template <class V>
struct MarginValue {
  V value, derivative;
};

/// ArcMargin of PaddleClas, additive angular margin m: target(c) = cos(acos(c) + m) where that
/// falls with the angle, i.e. c > cos(pi - m), and c - m sin(m) beyond (or, with easy_margin, only
/// for c > 0, and c beyond). As in PaddleClas, sin = sqrt(1 - c^2 + 1e-6), which bounds the
/// derivative; here 1 - c^2 is not let below 0, where rounding would give NaN there.
template <class T>
struct ArcMarginPolicy {
  T scale;  ///< s > 0
  T cos_m, sin_m, threshold, beyond;
  bool easy_margin;

  /// margin in radians.
  ArcMarginPolicy(double margin, double s, bool easy = false)
      : scale(static_cast<T>(s)),
        cos_m(static_cast<T>(std::cos(margin))),
        sin_m(static_cast<T>(std::sin(margin))),
        threshold(easy ? T(0) : static_cast<T>(-std::cos(margin))),
        beyond(easy ? T(0) : static_cast<T>(margin * std::sin(margin))),
        easy_margin(easy) {
    if (!(s > 0)) throw ConfigError(text("margin softmax: scale must be positive, got ", s));
  }

  KINDRED_HD MarginValue<T> target(T c) const {
    if (!(c > threshold)) return {c - beyond, T(1)};
    const T square = (T(1) - c) * (T(1) + c);
    const T sine = std::sqrt((square < T(0) ? T(0) : square) + T(1e-6));
    return {c * cos_m - sine * sin_m, cos_m + sin_m * c / sine};
  }
  template <class V>
  KINDRED_HD MarginValue<V> negative(V c) const {
    return {c, V(T(1))};
  }
};

namespace kernels {

/// Bytes of cosines that the CPU keeps between the two passes if they fit; otherwise it computes
/// them again. Either way the result is the same to the bit.
inline constexpr std::int64_t margin_softmax_store_limit = std::int64_t{48} << 20;

/// loss[0] = mean over b of the cross-entropy of the logits above with the smoothed target
/// (1 - epsilon) onehot + epsilon/C; dx += weight dloss/dx, dw += weight dloss/dw.
/// x, dx [B,D] features, not normalised; w, dw [C,D] class centres; labels[B] in host memory;
/// loss [1]. dx or dw is skipped if its data is null. A row of x or w that is zero has cosine 0
/// to everything and gradient 0 (PaddleClas: NaN). Finite for every scale.
/// Scratch: O(B tile + B D chunks) plus up to `store_limit` bytes.
/// Throws DataError for a label outside [0, C), ShapeError for an empty batch.
template <class Context, class Policy, class T>
void margin_softmax(Context& ctx, const Policy& policy, In<T> x, In<T> w,
                    const std::int64_t* labels, std::type_identity_t<T> epsilon,
                    std::type_identity_t<T> weight, View<T> loss, View<T> dx, View<T> dw,
                    std::int64_t store_limit = margin_softmax_store_limit) {
  check_shape("margin_softmax: w", w.shape, {w.dim(0), x.dim(1)});
  check_shape("margin_softmax: loss", loss.shape, {1});
  if (dx.data != nullptr) check_shape("margin_softmax: dx", dx.shape, x.shape);
  if (dw.data != nullptr) check_shape("margin_softmax: dw", dw.shape, w.shape);
  if (x.size() == 0 || w.size() == 0)
    throw ShapeError(text("margin_softmax: empty features ", x.shape, " or centres ", w.shape));
  margin_softmax(ctx, policy, x.dim(0), x.dim(1), w.dim(0), x.data, w.data, labels, epsilon, weight,
                 loss.data, dx.data, dw.data, store_limit);
}

/// cosines[b,j] = x_b.w_j / (|x_b| |w_j|), unscaled: what margin heads return in evaluation.
/// x [B,D], w [C,D], cosines [B,C]; zero rows have cosine 0.
template <class Context, class T>
void margin_logits(Context& ctx, In<T> x, In<T> w, View<T> cosines) {
  check_shape("margin_logits: w", w.shape, {cosines.dim(1), x.dim(1)});
  check_shape("margin_logits: cosines", cosines.shape, {x.dim(0), w.dim(0)});
  margin_logits(ctx, x.dim(0), x.dim(1), w.dim(0), x.data, w.data, cosines.data);
}

/// logits [B,C] with the margin at the labels, for losses other than cross-entropy.
template <class Context, class Policy, class T>
void margin_logits_forward(Context& ctx, const Policy& policy, In<T> x, In<T> w,
                           const std::int64_t* labels, View<T> logits) {
  check_shape("margin_logits_forward: w", w.shape, {logits.dim(1), x.dim(1)});
  check_shape("margin_logits_forward: logits", logits.shape, {x.dim(0), w.dim(0)});
  margin_logits_forward(ctx, policy, x.dim(0), x.dim(1), w.dim(0), x.data, w.data, labels,
                        logits.data);
}

/// From dlogits [B,C]: assigns dx [B,D], adds to dw [C,D] (skipped if its data is null).
template <class Context, class Policy, class T>
void margin_logits_backward(Context& ctx, const Policy& policy, In<T> dlogits, In<T> x, In<T> w,
                            const std::int64_t* labels, View<T> dx, View<T> dw) {
  check_shape("margin_logits_backward: w", w.shape, {w.dim(0), x.dim(1)});
  check_shape("margin_logits_backward: dlogits", dlogits.shape, {x.dim(0), w.dim(0)});
  check_shape("margin_logits_backward: dx", dx.shape, x.shape);
  if (dw.data != nullptr) check_shape("margin_logits_backward: dw", dw.shape, w.shape);
  margin_logits_backward(ctx, policy, x.dim(0), x.dim(1), w.dim(0), dlogits.data, x.data, w.data,
                         labels, dx.data, dw.data);
}

}  // namespace kernels
}  // namespace kindred
