#pragma once
// Every header that users include, as far as its dependency is there.

#include <kindred/kindred.hpp>
#ifdef KINDRED_HAS_IO
#include <kindred/io/npy.hpp>
#include <kindred/train/trainer.hpp>
#endif
#ifdef KINDRED_HAS_DATA
#include <kindred/data/datasets.hpp>
#include <kindred/data/features.hpp>
#include <kindred/data/loader.hpp>
#endif
#ifdef KINDRED_HAS_CONFIG
#include <kindred/config/experiment.hpp>
#endif

/// A number of the same small model, from the one and from the other translation unit.
double from_a();
double from_b();

inline double first_parameter() {
  using Model = kindred::RecModel<kindred::backbone::PPLCNet, kindred::neck::FC, kindred::head::FC,
                                  kindred::loss::CELoss>;
  const Model model({.backbone = {.scale = 0.25, .class_expand = 8},
                     .neck = {.embedding_size = 8, .class_num = 4},
                     .head = {.embedding_size = 4, .class_num = 2}},
                    kindred::Seed{1});
  return model.trainable()[0];
}
