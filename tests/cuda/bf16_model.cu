// Training and inference with maps in BF16, CPU against CUDA.

#include <numeric>

#include "cuda/library.hpp"
#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;
using test::Side;

namespace {

using Device = test::TestedDevice;

template <class T>
using Model = RecModel<backbone::PPLCNet, neck::FC, head::ArcMargin, loss::CELoss, Device, T>;

// The network and the images of tests/model/bf16_activations.cpp, and its bounds.
constexpr std::int64_t size = 64, classes = 5, batch_size = 10;
const Shape image_shape{batch_size, size, size, 3};

template <class T>
typename Model<T>::Config config(double scale, bool in_tile = false) {
  return {.backbone = {.scale = scale, .dropout_prob = 0.2, .class_expand = 64},
          .neck = {.embedding_size = 64, .class_num = 16},
          .head = {.embedding_size = 16,
                   .class_num = classes,
                   .margin = 0.1,
                   .scale = 8,
                   .update_in_tile = in_tile},
          .loss = {}};
}

struct Batch {
  std::vector<float> values;
  std::vector<std::int64_t> labels;
  View<const float> images() const { return {values.data(), image_shape}; }
};

/// Two images of every class, a square in a place and in a colour of its own, in noise.
Batch make_batch(std::uint64_t number) {
  Batch batch{random_values<float>(image_shape.size(), 100 + number, 0.5), {}};
  for (std::size_t b = 0; b < batch_size; ++b) {
    batch.labels.push_back(static_cast<std::int64_t>(b / 2));
    RandomSequence of_class({7, b / 2, 0});
    const auto top = static_cast<std::size_t>(of_class.uniform(0, size - 20)),
               left = static_cast<std::size_t>(of_class.uniform(0, size - 20));
    const double colour[] = {of_class.normal(), of_class.normal(), of_class.normal()};
    for (std::size_t i = top; i < top + 20; ++i)
      for (std::size_t j = left; j < left + 20; ++j)
        for (std::size_t c = 0; c < 3; ++c)
          batch.values[((b * size + i) * size + j) * 3 + c] += static_cast<float>(2 * colour[c]);
  }
  return batch;
}

template <class T>
View<const T> all(const std::vector<T>& values) {
  return {values.data(), {static_cast<std::int64_t>(values.size())}};
}

/// Bytes that the plan of a step gives to the maps between layers, which the backward reads.
std::int64_t bytes_of_maps(const Plan& plan) {
  std::int64_t sum = 0;
  for (const Plan::Request& r : plan.requests())
    for (const char* label : {"conv_bn_act.z", "conv_bn_act.y", "squeeze_excite.y"})
      if (std::string(r.label) == label) sum += static_cast<std::int64_t>(r.bytes);
  return sum;
}

// The bounds of the CPU's own test on the whole; the maps are halved but for the last one, which
// the pooling reads in float.
KINDRED_PARITY(planned_memory) {
  if constexpr (std::is_same_v<T, float>) {
    Model<float> model(config<float>(1.0), Seed{3});
    const Shape shape{8, 224, 224, 3};
    std::int64_t maps[2], whole[2];
    for (const Storage storage : {Storage::scalar, Storage::bf16}) {
      auto session = model.train_session({.activations = storage});
      const Plan& plan = session.plan(shape);
      const int i = storage == Storage::bf16;
      maps[i] = bytes_of_maps(plan);
      whole[i] = static_cast<std::int64_t>(plan.bytes());
    }
    const std::int64_t last = 8 * 7 * 7 * 512 * 4;
    side.check(2 * (maps[1] - last) == maps[0] - last,
               text("maps of ", maps[0], " and ", maps[1], " bytes"));
    const double ratio = static_cast<double>(whole[1]) / static_cast<double>(whole[0]);
    side.check(ratio > 0.5 && ratio < 0.58, text("planned bytes: ", ratio, " of float"));
    side.record("bytes of maps", View<const std::int64_t>{maps, {2}});
  }
}

struct Path {
  std::vector<double> losses;
  std::vector<float> weights, of_centres;
};

enum class Way { one_by_one, graph, in_tile };

/// Steps of momentum from the same start.
Path train(Storage storage, int steps, double rate, Way way = Way::one_by_one, int mode = -1) {
  Model<float> model(config<float>(0.25, way == Way::in_tile), Seed{3});
  auto session = model.train_session({.activations = storage});
#ifndef KINDRED_CPU_SIDE
  if (mode >= 0) session.context().set_math(static_cast<cuda::MathMode>(mode));
#endif
  static_cast<void>(mode);
  const optim::Momentum optimizer{.momentum = 0};
  const auto ranges = optim::ranges(model.parameters(), optimizer.weight_decay, {});
  using Array = typename Model<float>::Array;
  std::vector<Array> moments(1, Array(model.trainable().size()));
  const ParameterInfo& centres = *model.parameters().find("head.weight");
  Path path;
  for (int i = 0; i < steps; ++i) {
    const Batch batch = make_batch(static_cast<std::uint64_t>(i));
    const auto key = static_cast<std::uint64_t>(i);
    const optim::Update<float, Array> u{
        model.trainable(), session.gradients(), moments, rate, i + 1, session.step_allowed()};
    const optim::RowStep<typename Model<float>::Context, float, Array, optim::Momentum> rows(
        optimizer, optim::range_of(centres, 0, {}), u);
    const auto update = [&](auto& ctx) {
      optimizer.update(ctx, std::span<const optim::Range>(ranges), u);
    };
    if (way == Way::one_by_one) {
      session.zero_gradients();
      session.launch(batch.images(), batch.labels, key, &rows);
      update(session.context());
    } else {
      session.step(batch.images(), batch.labels, key, update, &rows);
    }
    path.losses.push_back(session.losses()[0].value);
  }
  path.weights.assign(model.trainable().begin(), model.trainable().end());
  if (way == Way::in_tile) return path;  // there is no such gradient
  const float* of_centres = session.gradients().data() + centres.gradient_offset;
  path.of_centres.assign(of_centres, of_centres + centres.shape.size());
  return path;
}

/// |a - b| / |b|, as vectors.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, length = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(double(a[i]) - b[i], 2);
    length += std::pow(double(b[i]), 2);
  }
  return std::sqrt(difference / length);
}

// A difference e between two sums that are then rounded to BF16 becomes one of about sqrt(e u),
// where u is the unit in the last place: a few roundings from 1e-7 on, two computations are as far
// from each other as BF16 is from float. So single kernels are compared to the bit (bf16_maps.cu),
// and here the sides to the distance that BF16 may have from float: of the loss as in the CPU's own
// test, of the centres' gradient what they may have in rec_model.cu. (The backbone's gradient is
// ill-conditioned.)
KINDRED_PARITY(first_step) {
  if constexpr (std::is_same_v<T, float>) {
    const Path full = train(Storage::scalar, 1, 0);
    for (const int mode : {0, 2}) {  // on CUDA the other products in float, and in BF16
      const Path rounded = train(Storage::bf16, 1, 0, Way::one_by_one, mode);
      side.record(text("loss in mode ", mode), all(rounded.losses), 0.06);
      const double loss = std::abs(rounded.losses[0] / full.losses[0] - 1);
      const double gradient = distance(rounded.of_centres, full.of_centres);
      const auto what =
          text("mode ", mode, ": loss ", loss, ", gradient ", gradient, " from float");
      side.check(loss < 0.06 && gradient < 0.4, what);
      side.check(gradient > 0, what + ": BF16 changes nothing");
      std::printf("%s\n", what.c_str());
    }
  }
}

// From the same start two computations in float, too, are on other paths after a few large steps;
// what both must do is learn.
KINDRED_PARITY(twenty_steps) {
  if constexpr (std::is_same_v<T, float>) {
    const Path path = train(Storage::bf16, 20, 0.05);
    const double left =
        std::accumulate(path.losses.end() - 4, path.losses.end(), 0.0) / 4 / path.losses[0];
    side.check(left < 0.5, text("of the first loss are left ", left));
  }
}

// However a step is launched, its bits are the same.
KINDRED_PARITY(ways_to_launch) {
  if constexpr (std::is_same_v<T, float>) {
    const Path one_by_one = train(Storage::bf16, 2, 0.01);
    const Path graph = train(Storage::bf16, 2, 0.01, Way::graph);
    const Path in_tile = train(Storage::bf16, 2, 0.01, Way::in_tile);
    side.check(graph.weights == one_by_one.weights && graph.losses == one_by_one.losses, "a graph");
    side.check(in_tile.weights == one_by_one.weights && in_tile.losses == one_by_one.losses,
               "centres in tiles");
    side.check(train(Storage::scalar, 2, 0.01).weights != one_by_one.weights, "BF16 has an effect");
  }
}

/// Features of the images of a batch.
std::vector<float> features(const Model<float>& model, Storage storage, int mode = -1) {
  auto session = model.session({.activations = storage});
#ifndef KINDRED_CPU_SIDE
  if (mode >= 0) session.context().set_math(static_cast<cuda::MathMode>(mode));
#endif
  static_cast<void>(mode);
  const Batch batch = make_batch(7);
  const auto f = session.features(batch.images());
  return {f.begin(), f.end()};
}

// As far from float as the CPU's, in every mode; features of random weights are small numbers,
// which are compared by their distance as vectors.
KINDRED_PARITY(inference) {
  if constexpr (std::is_same_v<T, float>) {
    const Model<float> model(config<float>(0.25), Seed{3});
    const auto full = features(model, Storage::scalar);
    double length = 0;
    for (const float v : full) length += static_cast<double>(v * v);
    const float unit = static_cast<float>(std::sqrt(static_cast<double>(full.size()) / length));
    for (const int mode : {-1, 0}) {
      auto rounded = features(model, Storage::bf16, mode);
      const double far = distance(rounded, full);
      const auto what = text("mode ", mode, ": features ", far, " from float");
      side.check(far > 0 && far < 0.03, what);
      std::printf("%s\n", what.c_str());
      for (float& v : rounded) v *= unit;
      side.record(what.substr(0, what.find(':')), all(rounded), 0.05);
    }
  }
}

#ifdef KINDRED_CPU_SIDE
KINDRED_PARITY(memory_of_inference) {}  // works in parts: tests/model/bf16_activations.cpp
#else
KINDRED_PARITY(memory_of_inference) {
  if constexpr (std::is_same_v<T, float>) {
    const Model<float> model(config<float>(1.0), Seed{3});
    double bytes[2];
    for (const Storage storage : {Storage::scalar, Storage::bf16}) {
      auto session = model.session({.activations = storage});
      bytes[storage == Storage::bf16] = static_cast<double>(session.plan({8, 224, 224, 3}).bytes());
    }
    const auto what =
        text("inference on 8 images of 224: ", bytes[1], " planned bytes, ", bytes[0], " in float");
    side.check(bytes[1] < 0.6 * bytes[0], what);
    std::printf("%s\n", what.c_str());
  }
}
#endif

KINDRED_PARITY(settings) {
  Model<T> model(config<T>(0.25), Seed{3});
  if constexpr (std::is_same_v<T, double>) {
    side.template check_throws<ConfigError>(
        [&] { model.train_session({.activations = Storage::bf16}); },
        "TrainSession: activations in BF16 are there for models of float alone; use "
        "Storage::scalar");
  } else {
#ifndef KINDRED_CPU_SIDE
    auto inference = model.session({.activations = Storage::bf16});
    side.check(inference.context().math() == cuda::MathMode::bf16, "in inference, too");
    auto full = model.train_session();
    auto rounded = model.train_session({.activations = Storage::bf16});
    side.check(full.context().math() == cuda::MathMode::fp32, "float by default");
    side.check(rounded.context().math() == cuda::MathMode::bf16, "BF16 factors for BF16 maps");
    // A plan holds in every mode.
    const Batch batch = make_batch(0);
    for (const auto mode : {cuda::MathMode::bf16, cuda::MathMode::fp32, cuda::MathMode::bf16}) {
      rounded.context().set_math(mode);
      rounded.forward_backward(batch.images(), batch.labels, 0);
      side.check(rounded.gradients_finite(), "gradients are finite in every mode");
    }
#endif
  }
}

}  // namespace
