// Compose a model and train it: a backbone, a neck, a head and two losses, chosen at compile time.
// The images are made here (coloured stripes); 02 and 03 show your own loss and a saved model.

#include <cmath>
#include <cstdio>
#include <vector>

#include <kindred/kindred.hpp>

namespace kd = kindred;

using Model = kd::RecModel<kd::backbone::PPLCNet,  // images -> 1280-d
                           kd::neck::FC,           // -> 64-d features
                           kd::head::ArcMargin,    // 10 classes
                           kd::loss::Combined<kd::loss::CELoss, kd::loss::TripletLossV2>>;

constexpr std::int64_t classes = 10, batch = 20, side = 32;

/// Two images of each class: stripes whose direction is the class, with a random phase.
void draw(std::vector<float>& images, kd::RandomSequence& random) {
  for (std::int64_t b = 0; b < batch; ++b) {
    const double angle = 3.14159 * double(b / 2) / classes, phase = random.uniform(0, 6.28);
    for (std::int64_t y = 0; y < side; ++y)
      for (std::int64_t x = 0; x < side; ++x)
        for (std::int64_t c = 0; c < 3; ++c)
          images[std::size_t(((b * side + y) * side + x) * 3 + c)] = float(
              std::sin(0.8 * (double(x) * std::cos(angle) + double(y) * std::sin(angle)) + phase));
  }
}

int main() {
  Model model({.backbone = {.scale = 0.25},
               .neck = {.embedding_size = 1280, .class_num = 64},
               .head = {.embedding_size = 64, .class_num = classes, .margin = 0.2f, .scale = 30.f},
               .loss = {{.weight = 1.f}, {.weight = 1.f, .margin = 0.3f}}},
              kd::Seed{42});
  std::printf("%ld parameters\n", long(model.parameters().trainable_count()));

  std::vector<float> images(batch * side * side * 3);
  std::vector<std::int64_t> labels;
  for (std::int64_t b = 0; b < batch; ++b) labels.push_back(b / 2);

  auto session = model.train_session();  // the memory of training, planned at the first step
  const kd::optim::Momentum momentum{.momentum = 0.9, .weight_decay = 5e-4};
  const kd::lr::Cosine cosine{.base = 0.02};
  const auto ranges = kd::optim::ranges(model.parameters(), momentum.weight_decay, {});
  std::vector<std::vector<float>> moments(1, std::vector<float>(model.trainable().size()));
  kd::RandomSequence random({1, 0, 0});
  constexpr std::int64_t steps = 60;
  for (std::int64_t step = 0; step < steps; ++step) {
    draw(images, random);
    session.zero_gradients();
    const auto losses = session.forward_backward({images.data(), {batch, side, side, 3}}, labels,
                                                 std::uint64_t(step));
    momentum.update(session.context(), std::span<const kd::optim::Range>(ranges),
                    kd::optim::Update<float>{model.trainable(), session.gradients(), moments,
                                             cosine.at({step, steps, 1}), step + 1});
    if (step % 10 == 9)
      std::printf("step %ld: %s %.3f, %s %.3f\n", long(step + 1), losses[0].name, losses[0].value,
                  losses[1].name, losses[1].value);
  }

  draw(images, random);
  auto inference = model.session({.max_batch = batch});  // one per thread; the model stays const
  const auto features = inference.features({images.data(), {batch, side, side, 3}});
  const auto result = kd::eval::evaluate_retrieval({.features = features, .labels = labels},
                                                   {.features = features, .labels = labels});
  std::printf("recall@2 on new images: %.2f\n", result.recall_of(2));
}
