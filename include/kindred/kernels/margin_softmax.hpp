#pragma once
// Margin heads with softmax cross-entropy, without the B x C logits.
//
// With u_i = x_i/|x_i|, the cosines c_ij = u_i.w_j/|w_j| (of a class with several centres: the
// largest) and the label y of row i, the logits are
//   z_ij = s negative(c_ij) for j != y,   z_iy = s target(c_iy);
// a policy (kernels/margin_policy.hpp) supplies s, negative and target. The classes are cut into
// tiles, and the logits of a tile exist only while it is worked on: a first pass takes the
// log-sum-exp of every row, a second one forms g_ij = dL/dc_ij and from it, with the gradients of
// both normalisations,
//   dx_i = (v_i - (v_i.u_i) u_i)/|x_i| + (dL/d|x_i|) u_i,  v_i = sum_j g_ij w_j/|w_j|
//   dw_j = (t_j - (sum_i g_ij c_ij) w_j/|w_j|)/|w_j|,      t_j = sum_i g_ij u_i.
// dL/d|x_i| is that of a margin that depends on the norm, at fixed cosines.
// Source: Deng et al., "ArcFace", CVPR 2019; ArcMargin of PaddleClas; the tiling follows
// Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025.

#include <cstdint>
#include <limits>
#include <type_traits>

#include <kindred/core/row_update.hpp>
#include <kindred/core/shape.hpp>
#include <kindred/kernels/margin_policy.hpp>

namespace kindred::kernels {

/// Bytes of cosines that are kept between the two passes if they fit; otherwise they are computed
/// again. Either way the result is the same to the bit.
inline constexpr std::int64_t margin_softmax_store_limit = std::int64_t{48} << 20;

/// Where the gradient of the centres goes: added to `stored` or, if there is an `update`, handed to
/// it tile by tile; *taken says whether it was. Nowhere without both.
template <class Context, class T>
struct CenterGradient {
  T* stored = nullptr;
  const RowUpdate<Context, T>* update = nullptr;
  T* taken = nullptr;

  bool wanted() const { return stored != nullptr || update != nullptr; }
};

/// margin_softmax_update takes no step unless every centre has
///   weight s max_i |dL_i/dc_iy| / |w_j|^2 < this:
/// then no gradient of a centre overflows, even where `negative` multiplies by 1e6.
template <class T>
constexpr double margin_update_limit = static_cast<double>(std::numeric_limits<T>::max()) * 1e-12;

namespace detail {

/// The number of classes of the centres w [C K,D] for features x [B,D].
inline std::int64_t margin_classes(const char* place, const Shape& x, const Shape& w,
                                   std::int64_t sub_centers) {
  if (sub_centers < 1 || w[0] % sub_centers != 0)
    throw ShapeError(text(place, ": ", w[0], " centres are not ", sub_centers, " for each class"));
  // The text only where it is needed: a step allocates nothing.
  const Shape expected{w[0], x[1]};
  if (w != expected) check_shape(text(place, ": w").c_str(), w, expected);
  if (x.size() == 0 || w.size() == 0)
    throw ShapeError(text(place, ": empty features ", x, " or centres ", w));
  return w[0] / sub_centers;
}

}  // namespace detail

/// loss[0] = mean over b of the cross-entropy of the logits above with the smoothed target
/// (1 - epsilon) onehot + epsilon/C; dx += weight dloss/dx, dw += weight dloss/dw.
/// x, dx [B,D] features, not normalised; w, dw [C K,D], the K = policy.sub_centers() centres of a
/// class one after the other; labels[B]; loss [1]. dx or dw is skipped if its data
/// is null. A row of x or w that is zero has cosine 0 to everything and gradient 0 (PaddleClas:
/// NaN). Finite for every scale. Calls policy.begin_batch once.
/// Scratch: O(B tile + B D chunks) plus up to `store_limit` bytes.
/// Throws DataError for a label outside [0, C) (a GPU: when it is waited for), ShapeError for an
/// empty batch.
template <class Context, class Policy, class T>
void margin_softmax(Context& ctx, const Policy& policy, In<T> x, In<T> w,
                    const std::int64_t* labels, std::type_identity_t<T> epsilon,
                    std::type_identity_t<T> weight, View<T> loss, View<T> dx, View<T> dw,
                    std::int64_t store_limit = margin_softmax_store_limit) {
  const std::int64_t classes =
      detail::margin_classes("margin_softmax", x.shape, w.shape, policy.sub_centers());
  check_shape("margin_softmax: loss", loss.shape, {1});
  if (dx.data != nullptr) check_shape("margin_softmax: dx", dx.shape, x.shape);
  if (dw.data != nullptr) check_shape("margin_softmax: dw", dw.shape, w.shape);
  margin_softmax(ctx, policy, x.dim(0), x.dim(1), classes, x.data, w.data, labels, epsilon, weight,
                 loss.data, dx.data, CenterGradient<Context, T>{dw.data}, store_limit);
}

/// margin_softmax with the optimizer in it: instead of being added to dw, the gradient of a tile of
/// centres is handed to `update`, which changes these rows of w, while it is in the cache. It is
/// never stored: C K D numbers less, and their traffic. To the bit as if dw had started at 0 and
/// the optimizer had come afterwards. Before the first row changes, all that the gradients are made
/// of is known: taken[0] = 1 if the loss and with it every gradient of a centre is finite, else 0,
/// and then no row changes. Scratch: as margin_softmax, and the centres of one tile for every
/// thread.
template <class Context, class Policy, class T>
void margin_softmax_update(Context& ctx, const Policy& policy, In<T> x, In<T> w,
                           const std::int64_t* labels, std::type_identity_t<T> epsilon,
                           std::type_identity_t<T> weight, View<T> loss, View<T> dx,
                           const RowUpdate<Context, T>& update, View<T> taken,
                           std::int64_t store_limit = margin_softmax_store_limit) {
  const std::int64_t classes =
      detail::margin_classes("margin_softmax_update", x.shape, w.shape, policy.sub_centers());
  check_shape("margin_softmax_update: loss", loss.shape, {1});
  check_shape("margin_softmax_update: taken", taken.shape, {1});
  if (dx.data != nullptr) check_shape("margin_softmax_update: dx", dx.shape, x.shape);
  margin_softmax(ctx, policy, x.dim(0), x.dim(1), classes, x.data, w.data, labels, epsilon, weight,
                 loss.data, dx.data, CenterGradient<Context, T>{nullptr, &update, taken.data},
                 store_limit);
}

/// cosines[b,j] = largest x_b.w / (|x_b| |w|) of the centres w of class j, unscaled: what margin
/// heads return in evaluation. x [B,D], w [C K,D], cosines [B,C]; zero rows have cosine 0.
template <class Context, class T>
void margin_logits(Context& ctx, In<T> x, In<T> w, View<T> cosines, std::int64_t sub_centers = 1) {
  const std::int64_t classes =
      detail::margin_classes("margin_logits", x.shape, w.shape, sub_centers);
  check_shape("margin_logits: cosines", cosines.shape, {x.dim(0), classes});
  margin_logits(ctx, x.dim(0), x.dim(1), classes, sub_centers, x.data, w.data, cosines.data);
}

/// logits [B,C] with the margin at the labels, for losses other than cross-entropy. Calls
/// policy.begin_batch once. Throws DataError for a label outside [0, C).
template <class Context, class Policy, class T>
void margin_logits_forward(Context& ctx, const Policy& policy, In<T> x, In<T> w,
                           const std::int64_t* labels, View<T> logits) {
  const std::int64_t classes =
      detail::margin_classes("margin_logits_forward", x.shape, w.shape, policy.sub_centers());
  check_shape("margin_logits_forward: logits", logits.shape, {x.dim(0), classes});
  margin_logits_forward(ctx, policy, x.dim(0), x.dim(1), classes, x.data, w.data, labels,
                        logits.data);
}

/// From dlogits [B,C]: assigns dx [B,D], adds to dw [C K,D] (skipped if its data is null). Does not
/// call policy.begin_batch: the statistics are those that the forward left.
template <class Context, class Policy, class T>
void margin_logits_backward(Context& ctx, const Policy& policy, In<T> dlogits, In<T> x, In<T> w,
                            const std::int64_t* labels, View<T> dx, View<T> dw) {
  const std::int64_t classes =
      detail::margin_classes("margin_logits_backward", x.shape, w.shape, policy.sub_centers());
  check_shape("margin_logits_backward: dlogits", dlogits.shape, {x.dim(0), classes});
  check_shape("margin_logits_backward: dx", dx.shape, x.shape);
  if (dw.data != nullptr) check_shape("margin_logits_backward: dw", dw.shape, w.shape);
  margin_logits_backward(ctx, policy, x.dim(0), x.dim(1), classes, dlogits.data, x.data, w.data,
                         labels, dx.data, dw.data);
}

}  // namespace kindred::kernels
