// A feature pyramid over PPLCNet's stages in a whole model.

#include <kindred/backbone/fpn.hpp>
#include <kindred/backbone/pp_lcnet_map.hpp>
#include <kindred/head/fc.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/generalized_mean_pool.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/kernels/cpu/upsample_add.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/model/rec_model.hpp>
#include <kindred/neck/gem.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("FPN over PPLCNetMap: names, shape, and a model that lowers its loss") {
  using Model = RecModel<backbone::FPN<backbone::PPLCNetMap>, neck::GeM, head::FC, loss::CELoss>;
  Model m({.backbone = {.trunk = {.scale = 0.25}, .out_channels = 16},
           .neck = {.num_features = 16},
           .head = {.embedding_size = 16, .class_num = 4},
           .loss = {}},
          Seed{5});
  const ParameterTable& table = m.parameters();
  CHECK(table.find("backbone.blocks6.1.pw_conv.conv.weight") != nullptr);
  REQUIRE(table.find("backbone.fpn.lateral.2.conv.weight") != nullptr);
  CHECK(table.find("backbone.fpn.lateral.2.conv.weight")->shape == Shape{1, 1, 32, 16});
  CHECK(table.find("backbone.fpn.lateral.4.conv.weight")->shape == Shape{1, 1, 128, 16});
  CHECK(table.find("backbone.fpn.smooth.conv.weight")->shape == Shape{3, 3, 16, 16});
  const Shape images{6, 64, 48, 3};
  const auto x = random_values<float>(images.size(), 2);
  const std::vector<std::int64_t> labels{0, 1, 2, 3, 0, 1};
  auto session = m.train_session({.threads = 2});
  double first = 0, last = 0;
  for (int step = 0; step < 15; ++step) {
    session.zero_gradients();
    last = session.forward_backward(view(x, images), labels, step)[0].value;
    if (step == 0) first = last;
    const auto gradients = session.gradients();
    for (std::size_t i = 0; i < gradients.size(); ++i) m.trainable()[i] -= 0.2f * gradients[i];
  }
  CHECK(last < 0.5 * first);
  auto inference = m.session({.threads = 1});
  CHECK(inference.features(view(x, images)).shape == Shape{6, 16});
}
