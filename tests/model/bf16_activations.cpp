// Training and inference with activations in BF16: memory, bits, nearness to full precision,
// errors.

#include <algorithm>
#include <cmath>
#include <numeric>

#include <kindred/kindred.hpp>

#include "support/numeric.hpp"

namespace kd = kindred;
using namespace kindred::test;

namespace {

template <class T>
using Model = kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::ArcMargin,
                           kd::loss::CELoss, kd::Cpu, T>;

template <class T>
typename Model<T>::Config config(double scale) {
  return {.backbone = {.scale = scale, .dropout_prob = 0.2, .class_expand = 64},
          .neck = {.embedding_size = 64, .class_num = 16},
          .head = {.embedding_size = 16, .class_num = 5, .margin = 0.1f, .scale = 8.f},
          .loss = {}};
}

using Pyramid = kd::RecModel<kd::backbone::FPN<kd::backbone::PPLCNetMap>, kd::neck::GeM,
                             kd::head::FC, kd::loss::CELoss>;
Pyramid::Config pyramid() {
  return {.backbone = {.trunk = {.scale = 0.25}, .out_channels = 16},
          .neck = {.num_features = 16},
          .head = {.embedding_size = 16, .class_num = 5},
          .loss = {}};
}

constexpr std::int64_t side = 64;
const kd::Shape image_shape{10, side, side, 3};
const std::vector<std::int64_t> labels{0, 0, 1, 1, 2, 2, 3, 3, 4, 4};

/// A square for every class, at a place and in a colour of its own, in noise.
std::vector<float> images_of(std::uint64_t step) {
  auto images = random_values<float>(image_shape.size(), 100 + step, 0.5);
  for (std::size_t b = 0; b < labels.size(); ++b) {
    kd::RandomSequence of_class({7, static_cast<std::uint64_t>(labels[b]), 0});
    const auto top = static_cast<std::int64_t>(of_class.uniform(0, side - 20)),
               left = static_cast<std::int64_t>(of_class.uniform(0, side - 20));
    const double colour[] = {of_class.normal(), of_class.normal(), of_class.normal()};
    for (std::int64_t i = top; i < top + 20; ++i)
      for (std::int64_t j = left; j < left + 20; ++j)
        for (std::int64_t c = 0; c < 3; ++c)
          images[b * side * side * 3 + std::size_t((i * side + j) * 3 + c)] +=
              static_cast<float>(2 * colour[c]);
  }
  return images;
}

struct Run {
  std::vector<double> losses;
  std::vector<float> gradients, trainable, statistics;
  bool operator==(const Run&) const = default;
};

/// Steps of plain gradient descent.
template <class M>
Run train(M& model, kd::Storage storage, int steps, float rate, int threads = 2,
          bool poison = false) {
  auto session = model.train_session({.threads = threads, .activations = storage});
  session.context().arena().set_poison(poison);
  Run run;
  for (int step = 0; step < steps; ++step) {
    const auto images = images_of(static_cast<std::uint64_t>(step));
    session.zero_gradients();
    run.losses.push_back(
        session.forward_backward(view(images, image_shape), labels, std::uint64_t(step))[0].value);
    const auto gradients = session.gradients();
    const auto weights = model.trainable();
    for (std::size_t i = 0; i < gradients.size(); ++i) weights[i] -= rate * gradients[i];
  }
  run.gradients.assign(session.gradients().begin(), session.gradients().end());
  run.trainable.assign(model.trainable().begin(), model.trainable().end());
  run.statistics.assign(model.statistics().begin(), model.statistics().end());
  return run;
}
Run train(kd::Storage storage, int steps, float rate, std::uint64_t seed = 3, int threads = 2,
          bool poison = false) {
  Model<float> model(config<float>(0.25), kd::Seed{seed});
  return train(model, storage, steps, rate, threads, poison);
}

double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += double(a[i]) * b[i];
    aa += double(a[i]) * a[i];
    bb += double(b[i]) * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

}  // namespace

TEST_CASE("BF16 activations: a step is planned in little more than half the memory") {
  Model<float> model(config<float>(1.0), kd::Seed{3});
  const kd::Shape shape{8, 224, 224, 3};
  const auto bytes = [&](kd::Storage storage) {
    auto session = model.train_session({.threads = 2, .activations = storage});
    return static_cast<double>(session.plan(shape).bytes());
  };
  const double ratio = bytes(kd::Storage::bf16) / bytes(kd::Storage::scalar);
  INFO(ratio);
  CHECK(ratio > 0.5);
  CHECK(ratio < 0.58);
}

TEST_CASE("BF16 activations: losses and gradients are near those of full precision") {
  const Run full = train(kd::Storage::scalar, 1, 0), rounded = train(kd::Storage::bf16, 1, 0);
  CHECK(rounded.losses[0] == Approx(full.losses[0]).epsilon(0.05));
  CHECK(cosine(rounded.gradients, full.gradients) > 0.85);
  CHECK(rounded.gradients != full.gradients);
}

// A network of random weights and batch norm magnifies any difference, and training does, too: a
// change of the images by 0.2% leads as far off as BF16 does. So the paths are compared where they
// are still near, and later on the loss, over several seeds.
TEST_CASE("BF16 activations: twenty small steps follow the path of full precision") {
  constexpr float rate = 2e-4f;
  const Run start = train(kd::Storage::scalar, 1, 0), full = train(kd::Storage::scalar, 20, rate),
            rounded = train(kd::Storage::bf16, 20, rate);
  for (std::size_t i = 0; i < full.losses.size(); ++i) {
    INFO("step " << i);
    CHECK(rounded.losses[i] == Approx(full.losses[i]).epsilon(0.15));
  }
  const auto way = [&](const Run& r) {
    std::vector<float> d = r.trainable;
    for (std::size_t i = 0; i < d.size(); ++i) d[i] -= start.trainable[i];
    return d;
  };
  CHECK(cosine(way(rounded), way(full)) > 0.5);  // of 100,000 dimensions
}

TEST_CASE("BF16 activations: twenty large steps lower the loss as far as in full precision") {
  const auto mean_of_last = [](kd::Storage storage) {
    double sum = 0;
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const Run r = train(storage, 20, 0.05f, seed);
      sum += std::accumulate(r.losses.end() - 4, r.losses.end(), 0.0) / 4 / r.losses[0];
    }
    return sum / 3;
  };
  const double full = mean_of_last(kd::Storage::scalar), rounded = mean_of_last(kd::Storage::bf16);
  INFO("of the first loss are left " << full << " and " << rounded);
  CHECK(full < 0.5);
  CHECK(rounded < 0.5);
  CHECK(std::abs(rounded - full) < 0.2);
}

TEST_CASE("BF16 activations: the same bits for any number of threads and with poisoned memory") {
  const Run one = train(kd::Storage::bf16, 3, 0.05f, 3, 1);
  CHECK(train(kd::Storage::bf16, 3, 0.05f, 3, 2) == one);
  CHECK(train(kd::Storage::bf16, 3, 0.05f, 3, 3, true) == one);
}

TEST_CASE("BF16 activations: a feature pyramid and a pooling neck train on them") {
  const auto run = [](kd::Storage storage) {
    Pyramid model(pyramid(), kd::Seed{5});
    return train(model, storage, 8, 0.1f, 2, true);
  };
  const Run full = run(kd::Storage::scalar), rounded = run(kd::Storage::bf16);
  CHECK(rounded.losses.back() < 0.8 * rounded.losses[0]);
  CHECK(rounded.losses.back() == Approx(full.losses.back()).margin(0.1 * full.losses[0]));
  CHECK(rounded.trainable != full.trainable);
}

namespace {

/// One with statistics of images, so that its features differ from image to image.
template <class M>
M with_statistics(typename M::Config config) {
  M model(config, kd::Seed{3});
  train(model, kd::Storage::scalar, 30, 0.02f);
  return model;
}
template <class M>
std::vector<float> features(const M& model, kd::Storage storage, std::int64_t batch, int threads) {
  auto session = model.session({.threads = threads, .activations = storage});
  const auto images = images_of(77);
  const kd::Shape shape{batch, side, side, 3};
  const auto f = session.features(kd::View<const float>{images.data(), shape});
  return {f.begin(), f.end()};
}

template <class M>
void check_features(const M& model) {
  const auto full = features(model, kd::Storage::scalar, 10, 1),
             rounded = features(model, kd::Storage::bf16, 10, 1);
  const std::int64_t width = model.feature_size();
  for (std::int64_t i = 0; i < 10; ++i) {
    const auto row = [&](const std::vector<float>& f) {
      return std::vector<float>(f.begin() + i * width, f.begin() + (i + 1) * width);
    };
    INFO("image " << i);
    CHECK(cosine(row(rounded), row(full)) > 0.995);
  }
  CHECK(rounded != full);
  // Two threads at three images share the work within layers, at ten they have images of their own.
  for (const std::int64_t batch : {1, 3, 10})
    for (const int threads : {2, 3}) {
      const auto some = features(model, kd::Storage::bf16, batch, threads);
      INFO(batch << " images, " << threads << " threads");
      CHECK(std::equal(some.begin(), some.end(), rounded.begin()));
    }
}

}  // namespace

TEST_CASE("BF16 activations: inference is near full precision, the same bits for all threads") {
  check_features(with_statistics<Model<float>>(config<float>(0.25)));
  check_features(with_statistics<Pyramid>(pyramid()));
}

TEST_CASE("BF16 activations: inference takes about half the memory, and sees a changed model") {
  Model<float> model(config<float>(1.0), kd::Seed{3});
  const auto images = random_values<float>(224 * 224 * 3, 1);
  const kd::View<const float> image{images.data(), {1, 224, 224, 3}};
  auto full = model.session({.threads = 1}),
       rounded = model.session({.threads = 1, .activations = kd::Storage::bf16});
  full.features(image);
  const auto first = rounded.features(image);
  const std::vector<float> before(first.begin(), first.end());
  CHECK(static_cast<double>(rounded.bytes()) < 0.6 * static_cast<double>(full.bytes()));
  for (float& v : model.trainable()) v *= 1.5f;  // packed weights are those of another version now
  const auto second = rounded.features(image);
  CHECK_FALSE(std::equal(second.begin(), second.end(), before.begin()));
}

TEST_CASE("BF16 activations: what cannot have them says so") {
  Model<double> model(config<double>(0.25), kd::Seed{3});
  CHECK_THROWS_WITH(model.train_session({.activations = kd::Storage::bf16}),
                    ContainsSubstring("TrainSession: activations in BF16 are there for models of "
                                      "float alone; use Storage::scalar"));
  CHECK_THROWS_WITH(model.session({.activations = kd::Storage::bf16}),
                    ContainsSubstring("Session: activations in BF16 are there for models"));
}
