#pragma once
// kindred on an NVIDIA GPU, for files that nvcc compiles: all of kindred.hpp but the kernels of the
// processor and the evaluation, which kindred.hpp has. A model runs on the GPU if its device
// argument is Cuda:
//
//   RecModel<backbone::PPLCNet, neck::FC, head::ArcMargin, loss::CELoss, kindred::Cuda>
//
// It needs the CUDA toolkit, and cuBLAS for fast matrix products (KINDRED_HAS_CUBLAS).

#include <kindred/components.hpp>
#include <kindred/core/cuda_context.cuh>
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
