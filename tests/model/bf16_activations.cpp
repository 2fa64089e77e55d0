// Training with activations kept in BF16: memory, bits, nearness to full precision, errors.

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
  CHECK(rounded.losses[0] == Approx(full.losses[0]).epsilon(0.03));
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
  using Pyramid = kd::RecModel<kd::backbone::FPN<kd::backbone::PPLCNetMap>, kd::neck::GeM,
                               kd::head::FC, kd::loss::CELoss>;
  const auto run = [](kd::Storage storage) {
    Pyramid model({.backbone = {.trunk = {.scale = 0.25}, .out_channels = 16},
                   .neck = {.num_features = 16},
                   .head = {.embedding_size = 16, .class_num = 5},
                   .loss = {}},
                  kd::Seed{5});
    return train(model, storage, 8, 0.1f, 2, true);
  };
  const Run full = run(kd::Storage::scalar), rounded = run(kd::Storage::bf16);
  CHECK(rounded.losses.back() < 0.8 * rounded.losses[0]);
  CHECK(rounded.losses.back() == Approx(full.losses.back()).margin(0.1 * full.losses[0]));
  CHECK(rounded.trainable != full.trainable);
}

TEST_CASE("BF16 activations: what cannot have them says so") {
  Model<double> model(config<double>(0.25), kd::Seed{3});
  CHECK_THROWS_WITH(model.train_session({.activations = kd::Storage::bf16}),
                    ContainsSubstring("TrainSession: activations in BF16 are there for models of "
                                      "float alone; use Storage::scalar"));
  const Model<float> other(config<float>(0.25), kd::Seed{3});
  CHECK_THROWS_WITH(other.session({.activations = kd::Storage::bf16}),
                    ContainsSubstring("inference keeps no activations"));
}
