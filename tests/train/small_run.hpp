#pragma once
// Shared by the tests of training: a small model.

#include <cstdint>
#include <vector>

#include <kindred/kindred.hpp>

#include "train/memory_run.hpp"

namespace kindred::test {

using SmallModel = RecModel<backbone::PPLCNet, neck::FC, head::ArcMargin,
                            loss::Combined<loss::CELoss, loss::TripletLossV2>>;

/// Dropout is on, so that a wrong random number shows in the bits.
inline SmallModel::Config small_config(std::int64_t features = 8) {
  return {.backbone = {.scale = 0.25, .dropout_prob = 0.2, .class_expand = 24},
          .neck = {.embedding_size = 24, .class_num = features},
          .head = {.embedding_size = features, .class_num = classes, .scale = 8},
          .loss = {{.weight = 1}, {.weight = 0.5, .margin = 0.3}}};
}

/// A number that depends on all parameters and statistics, as a metric.
inline std::vector<train::Metric> fingerprint(const SmallModel& model) {
  auto session = model.session({.threads = 1});
  std::vector<float> images(2 * side * side * 3);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = static_cast<float>(i % 97) / 97.f;
  double sum = 0;
  for (float f : session.features({images.data(), {2, side, side, 3}})) sum += f;
  return {{"recall1", sum}, {"map", sum / 2}};
}

}  // namespace kindred::test
