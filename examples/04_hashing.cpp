// Deep hashing: images as codes of 64 bits. A network learns features whose signs alone tell the
// class; the codes are packed and searched by Hamming distance, beside its own real-valued
// features. The images are those of 01_train: stripes of random phase whose direction is the class.

#include <chrono>
#include <cmath>
#include <cstdio>
#include <vector>

#include <kindred/kindred.hpp>

namespace kd = kindred;

constexpr std::int64_t classes = 10, bits = 64, batch_size = 20, side = 32;

using Model = kd::RecModel<kd::backbone::PPLCNet,  // images -> 1280-d
                           kd::neck::FC,           // -> 64-d features; their signs are the code
                           kd::head::FC,           // 10 classes
                           kd::loss::Combined<kd::loss::CELoss, kd::loss::GreedyHashLoss>>;

/// Image b has the class b % classes.
void draw(std::vector<float>& images, std::int64_t count, kd::RandomSequence& random) {
  images.resize(std::size_t(count * side * side * 3));
  for (std::int64_t b = 0; b < count; ++b) {
    const double angle = 3.14159 * double(b % classes) / classes, phase = random.uniform(0, 6.28);
    for (std::int64_t y = 0; y < side; ++y)
      for (std::int64_t x = 0; x < side; ++x)
        for (std::int64_t c = 0; c < 3; ++c)
          images[std::size_t(((b * side + y) * side + x) * 3 + c)] = float(
              std::sin(0.8 * (double(x) * std::cos(angle) + double(y) * std::sin(angle)) + phase) +
              1.0 * random.normal());
  }
}

std::vector<std::int64_t> labels_of(std::int64_t count) {
  std::vector<std::int64_t> labels;
  for (std::int64_t b = 0; b < count; ++b) labels.push_back(b % classes);
  return labels;
}

void train(Model& model) {
  auto session = model.train_session();
  const kd::optim::Momentum momentum{.momentum = 0.9, .weight_decay = 5e-4};
  const kd::lr::Cosine cosine{.base = 0.02};
  const auto ranges = kd::optim::ranges(model.parameters(), momentum.weight_decay, {});
  std::vector<std::vector<float>> moments(1, std::vector<float>(model.trainable().size()));
  std::vector<float> images;
  const auto labels = labels_of(batch_size);
  kd::RandomSequence random({1, 0, 0});
  constexpr std::int64_t steps = 1500;
  for (std::int64_t step = 0; step < steps; ++step) {
    draw(images, batch_size, random);
    session.zero_gradients();
    const auto losses = session.forward_backward({images.data(), {batch_size, side, side, 3}},
                                                 labels, std::uint64_t(step));
    momentum.update(session.context(), std::span<const kd::optim::Range>(ranges),
                    kd::optim::Update<float>{model.trainable(), session.gradients(), moments,
                                             cosine.at({step, steps, 1}), step + 1});
    if (step % 250 == 249)
      std::printf("step %ld: %s %.3f, %s %.3f\n", long(step + 1), losses[0].name, losses[0].value,
                  losses[1].name, losses[1].value);
  }
}

/// Features [count, 64] of new images.
std::vector<float> features_of(const Model& model, std::int64_t count, std::uint64_t stream) {
  auto session = model.session({.max_batch = batch_size});
  kd::RandomSequence random({2, stream, 0});
  std::vector<float> images, result;
  for (std::int64_t first = 0; first < count; first += batch_size) {
    draw(images, batch_size, random);
    const auto features = session.features({images.data(), {batch_size, side, side, 3}});
    result.insert(result.end(), features.begin(), features.end());
  }
  return result;
}

/// New images, not seen in training, of the classes that were.
struct Test {
  static constexpr std::int64_t queries = 200, items = 2000;
  std::vector<float> query, gallery;
  std::vector<std::uint8_t> query_codes, gallery_codes;
  std::vector<std::int64_t> query_labels = labels_of(queries), gallery_labels = labels_of(items);

  explicit Test(const Model& model)
      : query(features_of(model, queries, 0)),
        gallery(features_of(model, items, 1)),
        query_codes(kd::eval::pack_codes({query.data(), {queries, bits}})),
        gallery_codes(kd::eval::pack_codes({gallery.data(), {items, bits}})) {}

  kd::eval::CodeSet codes() const {
    return {.codes = {query_codes.data(), {queries, bits / 8}}, .labels = query_labels};
  }
  void report(const char* name) const {
    const auto real = kd::eval::evaluate_retrieval(
        {.features = {query.data(), {queries, bits}}, .labels = query_labels},
        {.features = {gallery.data(), {items, bits}}, .labels = gallery_labels});
    const auto binary = kd::eval::evaluate_hamming(
        codes(), {.codes = {gallery_codes.data(), {items, bits / 8}}, .labels = gallery_labels});
    std::printf(
        "%s: mAP %.4f with %ld floats, %.4f with %ld bits; in radius 2 precision %.4f, "
        "recall %.4f\n",
        name, real.mAP, long(bits), binary.mAP, long(bits), binary.precision_in_radius,
        binary.recall_in_radius);
  }
};

int main() {
  Model model(
      {.backbone = {.scale = 0.25},
       .neck = {.embedding_size = 1280, .class_num = bits},
       .head = {.embedding_size = bits, .class_num = classes},
       .loss = {{.weight = 1.f}, {.weight = 1, .num_classes = classes, .embedding_size = bits}}},
      kd::Seed{42});
  Test(model).report("untrained");
  train(model);
  const Test test(model);
  test.report("trained");

  // A gallery as large as real ones, by repeating this one: a scan takes as long for any codes.
  constexpr std::int64_t many = 1'000'000;
  std::vector<std::uint8_t> large;
  while (std::int64_t(large.size()) < many * bits / 8)
    large.insert(large.end(), test.gallery_codes.begin(), test.gallery_codes.end());
  const auto start = std::chrono::steady_clock::now();
  const auto nearest =
      kd::eval::hamming_top_k(test.codes(), {.codes = {large.data(), {many, bits / 8}}}, 10);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%.0f queries per second: the %ld nearest of %ld codes, %.1f MB\n",
              double(Test::queries) / seconds.count(), long(nearest.k), long(many),
              double(large.size()) * 1e-6);
}
