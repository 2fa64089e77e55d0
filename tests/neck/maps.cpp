// Backbones that give maps and necks that pool them, in whole models.

#include <kindred/backbone/pp_lcnet.hpp>
#include <kindred/head/fc.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/channel_scale.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/dropout.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/generalized_mean_pool.hpp>
#include <kindred/kernels/cpu/global_average_pool.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/model/any.hpp>
#include <kindred/model/rec_model.hpp>
#include <kindred/neck/gem.hpp>
#include <kindred/neck/identity.hpp>

#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

using Layer = any::Layer<cpu::Context, float>;
using Model = RecModel<Layer, Layer, head::FC, loss::CELoss>;

Layer::Config map(Activation act = Activation::hardswish) {
  return Layer::component<backbone::PPLCNetMap>({.scale = 0.25, .act = act});
}
Layer::Config flat(Activation act = Activation::hardswish) {
  return Layer::component<backbone::PPLCNet>({.scale = 0.25, .use_last_conv = false, .act = act});
}
Model model(const Layer::Config& backbone, const Layer::Config& neck) {
  return Model({.backbone = backbone,
                .neck = neck,
                .head = {.embedding_size = 128, .class_num = 4},
                .loss = {}},
               Seed{5});
}

const Shape images{6, 64, 48, 3};
const std::vector<std::int64_t> labels{0, 1, 2, 3, 0, 1};

}  // namespace

TEST_CASE("GeM with p = 1 after PPLCNetMap is PPLCNet's average, if nothing is negative") {
  auto pooled =
      model(map(Activation::relu), Layer::component<neck::GeM>({.num_features = 128, .p = 1}));
  auto average =
      model(flat(Activation::relu), Layer::component<neck::Identity>({.num_features = 128}));
  const auto x = random_values<float>(images.size(), 1);
  {
    auto session = average.train_session({.threads = 2});  // moves the statistics off 0 and 1
    for (int step = 0; step < 30; ++step) session.forward_backward(view(x, images), labels, step);
  }
  for (const ParameterInfo& p : average.parameters().entries())
    if (p.name.starts_with("backbone.")) {
      const View<float> from = average.parameter(p.name), to = pooled.parameter(p.name);
      REQUIRE(from.shape == to.shape);
      std::copy(from.begin(), from.end(), to.begin());
    }
  auto a = pooled.session({.threads = 1}), b = average.session({.threads = 1});
  const auto gem = a.features(view(x, images)), mean = b.features(view(x, images));
  REQUIRE(gem.shape == Shape{6, 128});
  std::int64_t positive = 0;
  for (std::int64_t i = 0; i < gem.size(); ++i) {
    CHECK(gem[i] == Approx(mean[i]).epsilon(1e-4).margin(2e-6));
    positive += mean[i] > 0.01f;
  }
  CHECK(positive > gem.size() / 4);
}

TEST_CASE("a model of PPLCNetMap and GeM lowers its loss, and p moves") {
  auto m = model(map(), Layer::component<neck::GeM>({.num_features = 128}));
  auto session = m.train_session({.threads = 2});
  const auto x = random_values<float>(images.size(), 2);
  double first = 0, last = 0;
  for (int step = 0; step < 12; ++step) {
    session.zero_gradients();
    last = session.forward_backward(view(x, images), labels, step)[0].value;
    if (step == 0) first = last;
    auto values = m.trainable();
    const auto gradients = session.gradients();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= 0.05f * gradients[i];
  }
  CHECK(last < 0.5 * first);
  CHECK(m.parameter("neck.p")[0] != 3.f);
}

TEST_CASE("slots of different ranks are refused when they are filled at run time") {
  CHECK_THROWS_WITH(
      model(flat(), Layer::component<neck::GeM>({.num_features = 128})),
      ContainsSubstring("neck.GeM works on feature maps [B,H,W,C], but backbone.PPLCNet gives "
                        "feature vectors [B,D]"));
  CHECK_THROWS_WITH(
      model(map(), Layer::component<neck::Identity>({.num_features = 128})),
      ContainsSubstring("neck.Identity works on feature vectors [B,D], but backbone.PPLCNetMap "
                        "gives feature maps [B,H,W,C]"));
}

TEST_CASE("a session refuses to hand out maps") {
  auto m = model(map(), Layer::component<neck::GeM>({.num_features = 128}));
  auto session = m.session({.threads = 1});
  const auto x = random_values<float>(images.size(), 3);
  CHECK_THROWS_WITH(session.backbone(view(x, images)),
                    ContainsSubstring("backbone.PPLCNetMap gives maps"));
  CHECK(session.features(view(x, images)).shape == Shape{6, 128});
}

TEST_CASE("PPLCNetMap names the setting that is wrong") {
  ParameterTable table;
  CHECK_THROWS_WITH(backbone::PPLCNetMap({.scale = 0}, Scope(table, "a")),
                    ContainsSubstring("backbone.PPLCNetMap: scale 0 is not in (0, 16]"));
  CHECK_THROWS_WITH(backbone::PPLCNet({.scale = 0}, Scope(table, "b")),
                    ContainsSubstring("backbone.PPLCNet: scale 0 is not in (0, 16]"));
}
