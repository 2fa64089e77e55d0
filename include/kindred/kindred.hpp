#pragma once
// kindred: deep metric learning. This header is the CPU face: compose, train, evaluate and run
// models. It needs Eigen, xtensor and xsimd alone. Beside it stand, each with its own dependency:
//   kindred/io/...      weights and arrays in files        (nlohmann-json)
//   kindred/train/...   Trainer, checkpoints               (nlohmann-json)
//   kindred/data/...    image lists, transforms, loader    (OpenCV)
//   kindred/config/...  models and training from YAML      (yaml-cpp)

#include <kindred/backbone/pp_lcnet.hpp>
#include <kindred/core/concepts.hpp>
#include <kindred/eval/retrieval.hpp>
#include <kindred/head/ada_margin.hpp>
#include <kindred/head/arc_margin.hpp>
#include <kindred/head/circle_margin.hpp>
#include <kindred/head/cos_margin.hpp>
#include <kindred/head/fc.hpp>
#include <kindred/head/mag_margin.hpp>
#include <kindred/head/sub_center_arc_margin.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/dropout.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/kernels/cpu/triplet.hpp>
#include <kindred/loss/angular_loss.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/circle_loss.hpp>
#include <kindred/loss/combined.hpp>
#include <kindred/loss/contrastive_loss.hpp>
#include <kindred/loss/dch_loss.hpp>
#include <kindred/loss/dpsh_loss.hpp>
#include <kindred/loss/dshsd_loss.hpp>
#include <kindred/loss/eml_loss.hpp>
#include <kindred/loss/fast_ap_loss.hpp>
#include <kindred/loss/intra_pair_variance_loss.hpp>
#include <kindred/loss/lcdsh_loss.hpp>
#include <kindred/loss/lifted_structure_loss.hpp>
#include <kindred/loss/margin_loss.hpp>
#include <kindred/loss/msm_loss.hpp>
#include <kindred/loss/multi_similarity_loss.hpp>
#include <kindred/loss/npairs_loss.hpp>
#include <kindred/loss/nt_xent_loss.hpp>
#include <kindred/loss/pairwise_cosface.hpp>
#include <kindred/loss/proxy_anchor_loss.hpp>
#include <kindred/loss/proxy_nca_loss.hpp>
#include <kindred/loss/ranked_list_loss.hpp>
#include <kindred/loss/snr_contrastive_loss.hpp>
#include <kindred/loss/soft_triple_loss.hpp>
#include <kindred/loss/sup_con_loss.hpp>
#include <kindred/loss/tri_hard_loss.hpp>
#include <kindred/loss/triplet_angular_margin_loss.hpp>
#include <kindred/loss/triplet_loss.hpp>
#include <kindred/loss/triplet_loss_v2.hpp>
#include <kindred/loss/vicreg_loss.hpp>
#include <kindred/lr/schedule.hpp>
#include <kindred/model/rec_model.hpp>
#include <kindred/neck/bn_neck.hpp>
#include <kindred/neck/fc.hpp>
#include <kindred/optim/optimizer.hpp>
