#pragma once
// The CPU kernels of this project's own programs, compiled once for all of them: a test that trains
// a small model would spend most of its compilation on kernels that a hundred others compile, too.
// Nobody else needs this: the library is header-only. A kernel that is missing in the lists is
// compiled where it is used, as everywhere.

#include <kindred/kindred.hpp>

#include "margin_policies.hpp"

// In the lists Q is "extern template" for a declaration, "template" for a definition.
#define KINDRED_KERNEL(Q, ...) Q decltype(__VA_ARGS__) __VA_ARGS__;

// Kernels in T.
#define KINDRED_KERNELS(Q, T)                                   \
  KINDRED_KERNEL(Q, add<T>)                                     \
  KINDRED_KERNEL(Q, add_rows<T>)                                \
  KINDRED_KERNEL(Q, fill<T>)                                    \
  KINDRED_KERNEL(Q, multiply<T>)                                \
  KINDRED_KERNEL(Q, scale_add<T>)                               \
  KINDRED_KERNEL(Q, activation_forward<T>)                      \
  KINDRED_KERNEL(Q, activation_backward<T>)                     \
  KINDRED_KERNEL(Q, dropout_forward<T>)                         \
  KINDRED_KERNEL(Q, all_finite<T>)                              \
  KINDRED_KERNEL(Q, sum_of_squares<T>)                          \
  KINDRED_KERNEL(Q, moving_average_update<T>)                   \
  KINDRED_KERNEL(Q, normalize_images<T>)                        \
  KINDRED_KERNEL(Q, gemm<T>)                                    \
  KINDRED_KERNEL(Q, gemm_packed<T>)                             \
  KINDRED_KERNEL(Q, gemm_serial<T>)                             \
  KINDRED_KERNEL(Q, linear_forward<T>)                          \
  KINDRED_KERNEL(Q, softmax_cross_entropy<T>)                   \
  KINDRED_KERNEL(Q, conv2d_pack<T>)                             \
  KINDRED_KERNEL(Q, conv2d_forward<T>)                          \
  KINDRED_KERNEL(Q, conv2d_forward_packed<T>)                   \
  KINDRED_KERNEL(Q, depthwise_conv2d_forward<T>)                \
  KINDRED_KERNEL(Q, depthwise_conv2d_backward_input<T>)         \
  KINDRED_KERNEL(Q, separable_conv2d_forward<T>)                \
  KINDRED_KERNEL(Q, stem_conv2d_backward_weight<T>)             \
  KINDRED_KERNEL(Q, batch_norm_inference<T>)                    \
  KINDRED_KERNEL(Q, batch_norm_inverse_std<T>)                  \
  KINDRED_KERNEL(Q, batch_norm_scale_shift<T>)                  \
  KINDRED_KERNEL(Q, global_average_pool_backward<T>)            \
  KINDRED_KERNEL(Q, generalized_mean_pool_forward<T>)           \
  KINDRED_KERNEL(Q, l2_normalize_forward<T>)                    \
  KINDRED_KERNEL(Q, l2_normalize_backward<T>)                   \
  KINDRED_KERNEL(Q, gram_matrix<T>)                             \
  KINDRED_KERNEL(Q, gram_matrix_backward<T>)                    \
  KINDRED_KERNEL(Q, pairwise_backward<T>)                       \
  KINDRED_KERNEL(Q, squared_distances<T>)                       \
  KINDRED_KERNEL(Q, symmetric_product<T>)                       \
  KINDRED_KERNEL(Q, upsample_add<T>)                            \
  KINDRED_KERNEL(Q, upsample_add_backward<T>)                   \
  KINDRED_KERNEL(Q, apply_rule<MomentumRule<T>, T>)             \
  KINDRED_KERNEL(Q, apply_rule<AdamWRule<T>, T>)                \
  KINDRED_KERNEL(Q, for_pair_rows<loss::detail::MeanOfRows<T>>) \
  KINDRED_KERNEL(Q, for_pair_rows<loss::detail::ScaleRow<T>>)   \
  KINDRED_KERNEL(Q, for_pair_rows<loss::CELoss::SoftRow<T>>)    \
  KINDRED_KERNEL(Q, for_pair_rows<loss::BatchHardRow<T>>)

// Kernels in T that read or write X, which is T or BF16.
#define KINDRED_STORED_KERNELS(Q, T, X)                                                 \
  KINDRED_KERNEL(Q, batch_norm_forward<T, X, T>)                                        \
  KINDRED_KERNEL(Q, batch_norm_backward<T, X, T>)                                       \
  KINDRED_KERNEL(Q, channel_scale_forward<T, X>)                                        \
  KINDRED_KERNEL(Q, channel_scale_backward<T, X>)                                       \
  KINDRED_KERNEL(Q, global_average_pool_forward<T, X>)                                  \
  KINDRED_KERNEL(Q, stem_conv2d_forward<T, X>)                                          \
  Q void conv2d_backward_input(Context&, const Conv2dExtents&, const X*, const T*, T*); \
  Q void conv2d_backward_weight(Context&, const Conv2dExtents&, const X*, const T*, T*);

// Those of BF16 alone.
#define KINDRED_ROUNDED_KERNELS(Q, T)                                                             \
  KINDRED_KERNEL(Q, batch_norm_forward<T, BFloat16, BFloat16>)                                    \
  KINDRED_KERNEL(Q, batch_norm_backward<T, T, BFloat16>)                                          \
  KINDRED_KERNEL(Q, batch_norm_backward<T, BFloat16, BFloat16>)                                   \
  KINDRED_KERNEL(Q, conv2d_forward_rounded<T, T, T>)                                              \
  KINDRED_KERNEL(Q, conv2d_forward_rounded<T, T, BFloat16>)                                       \
  KINDRED_KERNEL(Q, conv2d_forward_rounded<T, BFloat16, T>)                                       \
  KINDRED_KERNEL(Q, conv2d_forward_rounded<T, BFloat16, BFloat16>)                                \
  KINDRED_KERNEL(Q, separable_conv2d_forward_rounded<T, T>)                                       \
  KINDRED_KERNEL(Q, separable_conv2d_forward_rounded<T, BFloat16>)                                \
  Q void conv2d_backward_weight(Context&, const Conv2dExtents&, const T*, const BFloat16*, T*);   \
  Q void conv2d_backward_weight(Context&, const Conv2dExtents&, const BFloat16*, const BFloat16*, \
                                T*);

// The margin-softmax of a head, and of all heads.
#define KINDRED_MARGIN_KERNELS_OF(Q, T, P)          \
  KINDRED_KERNEL(Q, margin_softmax<P<T>, T>)        \
  KINDRED_KERNEL(Q, margin_logits_forward<P<T>, T>) \
  KINDRED_KERNEL(Q, margin_logits_backward<P<T>, T>)
#define KINDRED_MARGIN_KERNELS(Q, T)  \
  KINDRED_KERNEL(Q, margin_logits<T>) \
  KINDRED_MARGIN_POLICIES(KINDRED_MARGIN_KERNELS_OF, Q, T)

namespace kindred::cpu {
KINDRED_KERNELS(extern template, float)
KINDRED_KERNELS(extern template, double)
KINDRED_STORED_KERNELS(extern template, float, float)
KINDRED_STORED_KERNELS(extern template, float, BFloat16)
KINDRED_STORED_KERNELS(extern template, double, double)
KINDRED_ROUNDED_KERNELS(extern template, float)
KINDRED_MARGIN_KERNELS(extern template, float)
KINDRED_MARGIN_KERNELS(extern template, double)
}  // namespace kindred::cpu
