// The composition as a whole: gradients through all slots, memory, threads, errors.

#include <cstdlib>
#include <new>
#include <numeric>
#include <thread>

#include <kindred/kindred.hpp>

#include "support/numeric.hpp"

namespace kd = kindred;
using namespace kindred::test;

namespace {

template <class T>
using Model =
    kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::ArcMargin,
                 kd::loss::Combined<kd::loss::CELoss, kd::loss::TripletLossV2>, kd::Cpu, T>;

template <class T>
Model<T> small_model(double dropout = 0) {
  return Model<T>({.backbone = {.scale = 0.25, .dropout_prob = dropout, .class_expand = 24},
                   .neck = {.embedding_size = 24, .class_num = 8},
                   .head = {.embedding_size = 8, .class_num = 5, .margin = 0.2f, .scale = 8.f},
                   .loss = {{.weight = 1.f}, {.weight = 0.5f, .margin = 0.5f}}},
                  kd::Seed{3});
}

template <class T>
std::vector<T> images_of(const kd::Shape& shape) {
  return random_values<T>(shape.size(), 11);
}
const std::vector<std::int64_t> labels{0, 0, 1, 1, 4, 4};
const kd::Shape image_shape{6, 40, 40, 3};

}  // namespace

TEST_CASE("RecModel: the gradient of every parameter is the derivative of the loss") {
  auto model = small_model<double>();
  const auto images = images_of<double>(image_shape);
  auto session = model.train_session({.threads = 2});
  session.context().arena().set_poison(true);
  auto loss = [&] {
    const auto reports = session.forward_backward(view(images, image_shape), labels, 1);
    return reports[0].value + reports[1].value;
  };
  loss();
  const std::vector<double> gradient(session.gradients().begin(), session.gradients().end());
  // A directional derivative along a random direction for every parameter: one pair of passes each
  // instead of one for every element, and no element can be wrong unnoticed.
  for (const kd::ParameterInfo& p : model.parameters().entries()) {
    if (p.kind == kd::ParameterKind::buffer) continue;
    const auto direction = random_values<double>(p.shape.size(), kd::stream_of(p.name));
    auto values = model.parameter(p.name);
    auto moved = [&](double step) {
      for (std::int64_t i = 0; i < values.size(); ++i)
        values[i] += step * direction[static_cast<std::size_t>(i)];
    };
    const double step = 1e-6;
    moved(step);
    const double up = loss();
    moved(-2 * step);
    const double down = loss();
    moved(step);
    double expected = 0, norm = 0;
    for (std::int64_t i = 0; i < values.size(); ++i) {
      const double g = gradient[static_cast<std::size_t>(p.offset + i)];
      expected += g * direction[static_cast<std::size_t>(i)];
      norm += std::abs(g * direction[static_cast<std::size_t>(i)]);
    }
    INFO(p.name << ": " << (up - down) / (2 * step) << " against " << expected);
    CHECK(std::abs((up - down) / (2 * step) - expected) < 2e-6 * std::max(1.0, norm));
  }
}

TEST_CASE("RecModel: gradients accumulate") {
  auto model = small_model<float>();
  const auto images = images_of<float>(image_shape);
  auto session = model.train_session();
  session.forward_backward(view(images, image_shape), labels, 1);
  const std::vector<float> once(session.gradients().begin(), session.gradients().end());
  session.forward_backward(view(images, image_shape), labels, 1);
  std::vector<float> twice(session.gradients().begin(), session.gradients().end());
  for (float& g : twice) g /= 2;
  CHECK(difference(twice, once) < 1e-5);
}

TEST_CASE("RecModel: one and two threads give the same bits") {
  std::vector<float> gradients[2], features[2];
  for (int threads : {1, 2}) {
    auto model = small_model<float>(0.2);
    const auto images = images_of<float>(image_shape);
    auto session = model.train_session({.threads = threads});
    for (int step = 0; step < 3; ++step)
      session.forward_backward(view(images, image_shape), labels, std::uint64_t(step));
    gradients[threads - 1].assign(session.gradients().begin(), session.gradients().end());
    auto inference = model.session({.threads = threads});
    const auto f = inference.features(view(images, image_shape));
    features[threads - 1].assign(f.begin(), f.end());
  }
  CHECK(gradients[0] == gradients[1]);
  CHECK(features[0] == features[1]);
}

TEST_CASE("Session: large batches run in parts, with the same bits for any number of threads") {
  const auto model = small_model<double>();
  const kd::Shape shape{23, 32, 32, 3};  // 6 parts, the last one smaller
  const auto images = images_of<double>(shape);
  auto run = [&](int threads) {
    auto session = model.session({.threads = threads});
    session.logits(view(images, shape));  // another width before
    const auto f = session.features(view(images, shape));
    REQUIRE(f.shape == kd::Shape{23, 8});
    return std::vector<double>(f.begin(), f.end());
  };
  const auto expected = run(1);
  CHECK(run(2) == expected);
  CHECK(run(64) == expected);  // more threads than parts
  auto session = model.session({.threads = 1});
  for (std::int64_t i = 0; i < shape[0]; ++i) {
    const auto one = session.features({images.data() + i * 32 * 32 * 3, {1, 32, 32, 3}});
    for (std::int64_t j = 0; j < 8; ++j)
      CHECK(one.data[j] == Approx(expected[std::size_t(i * 8 + j)]).epsilon(1e-9));
  }
}

TEST_CASE("Session: packed weights follow every change of the model") {
  auto model = small_model<float>();
  const auto images = images_of<float>(image_shape);
  const auto x = view(images, image_shape);
  auto old = model.session({.threads = 1});
  old.features(x);
  const auto check_same_as_new = [&] {
    const auto f = old.features(x);
    const std::vector<float> got(f.begin(), f.end());
    auto fresh = model.session({.threads = 1});
    const auto g = fresh.features(x);
    CHECK(got == std::vector<float>(g.begin(), g.end()));
    return got;
  };
  const auto before = check_same_as_new();
  for (float& p : model.trainable()) p *= 0.5f;
  const auto halved = check_same_as_new();
  CHECK(halved != before);
  for (float& w : model.parameter("backbone.blocks2.0.pw_conv.conv.weight")) w = 0.1f;
  const auto one_layer = check_same_as_new();
  CHECK(one_layer != halved);
  for (float& s : model.statistics()) s += 0.25f;
  CHECK(check_same_as_new() != one_layer);
  // Memory that was handed out before: the owner says so.
  const auto held = model.trainable();
  old.features(x);
  for (float& p : held) p *= 2;
  model.changed();
  check_same_as_new();
  // A pass to another output after the change prepares what that one needs.
  model.trainable()[0] += 1;
  old.logits(x);
  check_same_as_new();
}

TEST_CASE("RecModel: sessions share a const model between threads") {
  const auto model = small_model<float>();
  const auto images = images_of<float>(image_shape);
  const auto x = view(images, image_shape);  // assertions are not for threads
  auto run = [&] {
    auto session = model.session({.threads = 1});
    std::vector<float> out;
    for (int i = 0; i < 20; ++i) {
      const auto f = session.features(x);
      out.assign(f.begin(), f.end());
    }
    return out;
  };
  const auto expected = run();
  std::vector<float> a, b;
  std::thread one([&] { a = run(); }), two([&] { b = run(); });
  one.join();
  two.join();
  CHECK(a == expected);
  CHECK(b == expected);
}

TEST_CASE("RecModel: outputs have PaddleClas' names, and logits are unscaled cosines") {
  const auto model = small_model<float>();
  const auto images = images_of<float>({2, 32, 32, 3});
  auto session = model.session({.max_batch = 2});
  const auto x = view(images, {2, 32, 32, 3});
  CHECK(session.backbone(x).shape == kd::Shape{2, 24});
  CHECK(session.features(x).shape == kd::Shape{2, 8});
  const auto logits = session.logits(x);
  REQUIRE(logits.shape == kd::Shape{2, 5});
  for (float c : logits) CHECK(std::abs(c) <= 1.0001f);
  xt::xtensor<float, 4> tensor = xt::xtensor<float, 4>::from_shape({2, 32, 32, 3});
  std::copy(images.begin(), images.end(), tensor.data());
  const xt::xtensor<float, 2> features = session.features(tensor);
  const auto again = session.features(x);
  CHECK(std::equal(again.begin(), again.end(), features.data()));
}

TEST_CASE("RecModel: a margin head with CELoss never builds the logits") {
  kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::ArcMargin, kd::loss::CELoss> model(
      {.backbone = {.scale = 0.25, .class_expand = 16},
       .neck = {.embedding_size = 16, .class_num = 8},
       .head = {.embedding_size = 8, .class_num = 1000000}},
      kd::Seed{1});
  CHECK_FALSE(model.builds_logits());
  auto session = model.train_session();
  const kd::Plan& plan = session.plan({64, 32, 32, 3});
  for (const auto& r : plan.requests())
    CHECK(r.bytes < std::size_t{64} * 1000000 * sizeof(float) / 4);
}

TEST_CASE("RecModel: widths that do not meet are named with the fix") {
  using Small = kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::FC, kd::loss::CELoss>;
  CHECK_THROWS_WITH(Small({.backbone = {.scale = 0.25},
                           .neck = {.embedding_size = 1024, .class_num = 8},
                           .head = {.embedding_size = 8, .class_num = 5}},
                          kd::Seed{1}),
                    ContainsSubstring("neck.FC: expects features [B, 1024], but backbone.PPLCNet "
                                      "gives [B, 1280]; set the input size of the neck to 1280"));
  CHECK_THROWS_WITH(Small({.backbone = {.scale = 0.25},
                           .neck = {.embedding_size = 1280, .class_num = 8},
                           .head = {.embedding_size = 9, .class_num = 5}},
                          kd::Seed{1}),
                    ContainsSubstring("head.FC: expects features [B, 9], but neck.FC gives"));
}

TEST_CASE("RecModel: bad batches are refused and nothing is changed") {
  auto model = small_model<float>();
  const std::vector<float> before(model.trainable().begin(), model.trainable().end());
  auto session = model.train_session();
  auto inference = model.session({.max_batch = 2});
  const auto images = images_of<float>({2, 32, 32, 3});
  const auto x = view(images, {2, 32, 32, 3});
  using L = std::vector<std::int64_t>;
  CHECK_THROWS_WITH(session.forward_backward(x, L{0}, 1),
                    ContainsSubstring("2 images, but 1 labels"));
  CHECK_THROWS_WITH(session.forward_backward(x, L{0, 5}, 1),
                    ContainsSubstring("label 5 of image 1 in the batch is not in [0, 5)"));
  CHECK_THROWS_WITH(session.forward_backward(x, L{0, -1}, 1), ContainsSubstring("label -1"));
  CHECK_THROWS_WITH(session.forward_backward({x.data, {1, 32, 32, 3}}, L{0}, 1),
                    ContainsSubstring("at least 2 images"));
  CHECK_THROWS_WITH(session.forward_backward({x.data, {0, 32, 32, 3}}, L{}, 1),
                    ContainsSubstring("empty batch"));
  CHECK_THROWS_WITH(session.forward_backward({x.data, {2, 32, 96}}, L{0, 1}, 1),
                    ContainsSubstring("images must be [B, H, W, 3], got [2, 32, 96]"));
  CHECK_THROWS_WITH(inference.features(kd::View<const float>{x.data, {3, 16, 16, 3}}),
                    ContainsSubstring("at most 2"));
  CHECK(std::equal(before.begin(), before.end(), model.trainable().begin()));
  CHECK_NOTHROW(session.forward_backward(x, L{0, 1}, 1));
}
