#pragma once
// The CUDA kernels of this project's own programs, compiled once for all of them, as ../kernels.hpp
// has it for the CPU: by nvcc, and by the C++ compiler for the tests in emulation. Functions are
// listed by their parameters: nvcc does not take an instantiation that names its type by decltype.

#include <kindred/eval/retrieval.cuh>
#include <kindred/kernels/cuda/batch_norm.cuh>
#include <kindred/kernels/cuda/channel_scale.cuh>
#include <kindred/kernels/cuda/check_labels.cuh>
#include <kindred/kernels/cuda/conv2d.cuh>
#include <kindred/kernels/cuda/dropout.cuh>
#include <kindred/kernels/cuda/elementwise.cuh>
#include <kindred/kernels/cuda/gemm.cuh>
#include <kindred/kernels/cuda/generalized_mean_pool.cuh>
#include <kindred/kernels/cuda/global_average_pool.cuh>
#include <kindred/kernels/cuda/l2_normalize.cuh>
#include <kindred/kernels/cuda/margin_softmax.cuh>
#include <kindred/kernels/cuda/normalize_images.cuh>
#include <kindred/kernels/cuda/optimizer.cuh>
#include <kindred/kernels/cuda/pair_rows.cuh>
#include <kindred/kernels/cuda/pairwise.cuh>
#include <kindred/kernels/cuda/ranks.cuh>
#include <kindred/kernels/cuda/softmax_cross_entropy.cuh>
#include <kindred/kernels/cuda/top_k.cuh>
#include <kindred/kernels/cuda/upsample_add.cuh>
#include <kindred/kernels/optimizer_rule.hpp>
#include <kindred/loss/batch_hard.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/pair_loss.hpp>

#include "../margin_policies.hpp"

// In the lists Q is "extern template" for a declaration, "template" for a definition.

#define KINDRED_RULE_KERNEL(Q, T, Rule)                                \
  Q void apply_rule(Context&, const Rule&, std::int64_t, T*, const T*, \
                    const std::array<T*, Rule::moments>&, const T*);

// Kernels in T.
#define KINDRED_KERNELS(Q, T)                                                                      \
  Q void activation_forward(Context&, Activation, std::int64_t, const T*, T*);                     \
  Q void activation_backward(Context&, Activation, std::int64_t, const T*, const T*, T*);          \
  Q void add(Context&, std::int64_t, const T*, const T*, T*);                                      \
  Q void add_rows(Context&, std::int64_t, std::int64_t, const T*, T*);                             \
  Q void copy(Context&, std::int64_t, const T*, T*);                                               \
  Q void fill(Context&, std::int64_t, T, T*);                                                      \
  Q void multiply(Context&, std::int64_t, const T*, const T*, T*);                                 \
  Q void scale_add(Context&, std::int64_t, T, const T*, T*);                                       \
  Q void dropout_forward(Context&, std::int64_t, T, DropoutMode, bool, const RandomKey&, const T*, \
                         T*);                                                                      \
  Q void all_finite(Context&, std::int64_t, const T*, T*);                                         \
  Q void sum_of_squares(Context&, std::int64_t, const T*, T*);                                     \
  Q void moving_average_update(Context&, std::int64_t, T*, const T*, T, T);                        \
  KINDRED_RULE_KERNEL(Q, T, SgdRule<T>)                                                            \
  KINDRED_RULE_KERNEL(Q, T, MomentumRule<T>)                                                       \
  KINDRED_RULE_KERNEL(Q, T, AdamRule<T>)                                                           \
  KINDRED_RULE_KERNEL(Q, T, AdamWRule<T>)                                                          \
  KINDRED_RULE_KERNEL(Q, T, RmspropRule<T>)                                                        \
  KINDRED_RULE_KERNEL(Q, T, CenteredRmspropRule<T>)                                                \
  Q void normalize_images(Context&, std::int64_t, const std::uint8_t*, const PixelTable&, T*);     \
  Q void gemm(Context&, Transpose, Transpose, std::int64_t, std::int64_t, std::int64_t, const T*,  \
              std::int64_t, const T*, std::int64_t, T*, std::int64_t, bool);                       \
  Q void linear_forward(Context&, std::int64_t, std::int64_t, std::int64_t, const T*, const T*,    \
                        const T*, T*);                                                             \
  Q void softmax_cross_entropy(Context&, std::int64_t, std::int64_t, const T*,                     \
                               const std::int64_t*, T, T, T*, T*);                                 \
  Q void conv2d_forward(Context&, const Conv2dExtents&, const T*, const T*, const T*, const T*,    \
                        Activation, T*);                                                           \
  Q void conv2d_backward_input(Context&, const Conv2dExtents&, const T*, const T*, T*);            \
  Q void batch_norm_inference(Context&, std::int64_t, std::int64_t, const T*, const T*, const T*,  \
                              const T*, const T*, T, Activation, T*);                              \
  Q void batch_norm_inverse_std(Context&, std::int64_t, const T*, T, T*);                          \
  Q void batch_norm_scale_shift(Context&, std::int64_t, const T*, const T*, const T*, const T*, T, \
                                T*, T*);                                                           \
  Q void global_average_pool_backward(Context&, std::int64_t, std::int64_t, std::int64_t,          \
                                      const T*, T*);                                               \
  Q void generalized_mean_pool_forward(Context&, std::int64_t, std::int64_t, std::int64_t,         \
                                       const T*, const T*, T, T*);                                 \
  Q void generalized_mean_pool_backward(Context&, std::int64_t, std::int64_t, std::int64_t,        \
                                        const T*, const T*, const T*, const T*, T, T*, T*);        \
  Q void l2_normalize_forward(Context&, std::int64_t, std::int64_t, NormRule, T, const T*, T*,     \
                              T*);                                                                 \
  Q void l2_normalize_backward(Context&, std::int64_t, std::int64_t, NormRule, T, const T*,        \
                               const T*, const T*, T*);                                            \
  Q void gram_matrix(Context&, std::int64_t, std::int64_t, const T*, T*);                          \
  Q void gram_matrix_backward(Context&, std::int64_t, std::int64_t, const T*, const T*, T*);       \
  Q void pairwise_backward(Context&, std::int64_t, std::int64_t, const T*, const T*, T*);          \
  Q void squared_distances(Context&, std::int64_t, std::int64_t, const T*, T, T*);                 \
  Q void symmetric_product(Context&, std::int64_t, std::int64_t, const T*, bool, const T*, T*);    \
  Q void upsample_add(Context&, std::int64_t, std::int64_t, std::int64_t, std::int64_t,            \
                      std::int64_t, std::int64_t, const T*, T*);                                   \
  Q void upsample_add_backward(Context&, std::int64_t, std::int64_t, std::int64_t, std::int64_t,   \
                               std::int64_t, std::int64_t, const T*, T*);                          \
  Q void for_pair_rows(Context&, std::int64_t, std::int64_t, const loss::detail::MeanOfRows<T>&);  \
  Q void for_pair_rows(Context&, std::int64_t, std::int64_t, const loss::detail::ScaleRow<T>&);    \
  Q void for_pair_rows(Context&, std::int64_t, std::int64_t,                                       \
                       const loss::detail::SquareRootRow<T>&);                                     \
  Q void for_pair_rows(Context&, std::int64_t, std::int64_t, const loss::CELoss::SoftRow<T>&);     \
  Q void for_pair_rows(Context&, std::int64_t, std::int64_t, const loss::BatchHardRow<T>&);

// Kernels in T that read or write X, which is T or BF16.
#define KINDRED_STORED_KERNELS(Q, T, X)                                                            \
  Q void batch_norm_forward(Context&, std::int64_t, std::int64_t, const X*, const T*, const T*, T, \
                            T, Activation, T*, T*, T*, T*, X*);                                    \
  Q void batch_norm_backward(Context&, std::int64_t, std::int64_t, const T*, const X*, const T*,   \
                             const T*, const T*, const T*, Activation, T*, T*, T*, bool);          \
  Q void channel_scale_forward(Context&, std::int64_t, std::int64_t, std::int64_t, const X*,       \
                               const T*, X*);                                                      \
  Q void channel_scale_backward(Context&, std::int64_t, std::int64_t, std::int64_t, const T*,      \
                                const X*, const T*, T*, T*);                                       \
  Q void global_average_pool_forward(Context&, std::int64_t, std::int64_t, std::int64_t, const X*, \
                                     T*);                                                          \
  Q void conv2d_backward_weight(Context&, const Conv2dExtents&, const X*, const T*, T*);

// Those of BF16 alone.
#define KINDRED_ROUNDED_KERNELS(Q, T)                                                             \
  Q void batch_norm_forward(Context&, std::int64_t, std::int64_t, const BFloat16*, const T*,      \
                            const T*, T, T, Activation, T*, T*, T*, T*, T*);                      \
  Q void batch_norm_backward(Context&, std::int64_t, std::int64_t, const T*, const T*, const T*,  \
                             const T*, const T*, const T*, Activation, BFloat16*, T*, T*, bool);  \
  Q void batch_norm_backward(Context&, std::int64_t, std::int64_t, const T*, const BFloat16*,     \
                             const T*, const T*, const T*, const T*, Activation, BFloat16*, T*,   \
                             T*, bool);                                                           \
  Q void conv2d_forward_rounded(Context&, const Conv2dExtents&, const T*, const T*, const T*,     \
                                const T*, Activation, const BFloat16*, BFloat16*);                \
  Q void conv2d_forward_rounded(Context&, const Conv2dExtents&, const BFloat16*, const T*,        \
                                const T*, const T*, Activation, const BFloat16*, T*);             \
  Q void conv2d_forward_rounded(Context&, const Conv2dExtents&, const BFloat16*, const T*,        \
                                const T*, const T*, Activation, const BFloat16*, BFloat16*);      \
  Q void conv2d_backward_input(Context&, const Conv2dExtents&, const BFloat16*, const T*, T*);    \
  Q void conv2d_backward_weight(Context&, const Conv2dExtents&, const T*, const BFloat16*, T*);   \
  Q void conv2d_backward_weight(Context&, const Conv2dExtents&, const BFloat16*, const BFloat16*, \
                                T*);

// The search for the nearest.
#define KINDRED_SEARCH_KERNELS(Q)                                                              \
  Q void ranks<1024>(Context&, std::int64_t, std::int64_t, const float*, const RankedColumns*, \
                     const std::int64_t*, std::int64_t*, std::int64_t*);                       \
  Q void top_k<1024>(Context&, std::int64_t, std::int64_t, std::int64_t, const float*,         \
                     std::int64_t*, float*);                                                   \
  Q void for_pair_rows(Context&, std::int64_t, std::int64_t,                                   \
                       const eval::detail::NormalizeFeatures&);

// The margin-softmax of a head, and of all heads.
#define KINDRED_MARGIN_KERNELS_OF(Q, T, P)                                                         \
  Q void margin_softmax(Context&, const P<T>&, std::int64_t, std::int64_t, std::int64_t, const T*, \
                        const T*, const std::int64_t*, T, T, T*, T*,                               \
                        const kernels::CenterGradient<Context, T>&, std::int64_t);                 \
  Q void margin_softmax_tiled(Context&, const MarginTiles&, bool, const P<T>&, const T*, const T*, \
                              const std::int64_t*, T, T, T*, T*,                                   \
                              const kernels::CenterGradient<Context, T>&);                         \
  Q void margin_logits_forward(Context&, const P<T>&, std::int64_t, std::int64_t, std::int64_t,    \
                               const T*, const T*, const std::int64_t*, T*);                       \
  Q void margin_logits_backward(Context&, const P<T>&, std::int64_t, std::int64_t, std::int64_t,   \
                                const T*, const T*, const T*, const std::int64_t*, T*, T*);        \
  Q void margin_logits_backward_tiled(Context&, const MarginTiles&, const P<T>&, const T*,         \
                                      const T*, const T*, const std::int64_t*, T*, T*);
#define KINDRED_MARGIN_KERNELS(Q, T)                                                               \
  Q void margin_logits(Context&, std::int64_t, std::int64_t, std::int64_t, std::int64_t, const T*, \
                       const T*, T*);                                                              \
  KINDRED_MARGIN_POLICIES(KINDRED_MARGIN_KERNELS_OF, Q, T)

namespace kindred::cuda {
KINDRED_KERNELS(extern template, float)
KINDRED_KERNELS(extern template, double)
KINDRED_STORED_KERNELS(extern template, float, float)
KINDRED_STORED_KERNELS(extern template, float, BFloat16)
KINDRED_STORED_KERNELS(extern template, double, double)
KINDRED_ROUNDED_KERNELS(extern template, float)
KINDRED_SEARCH_KERNELS(extern template)
KINDRED_MARGIN_KERNELS(extern template, float)
KINDRED_MARGIN_KERNELS(extern template, double)
}  // namespace kindred::cuda
