// A whole model on CPU against CUDA: features, losses, gradients and a stretch of training.

#include "cuda/library.hpp"
#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

using Device = test::TestedDevice;

template <class T>
using Model = RecModel<backbone::PPLCNet, neck::FC, head::ArcMargin,
                       loss::Combined<loss::CELoss, loss::TripletLossV2>, Device, T>;

constexpr std::int64_t size = 32, classes = 11;

template <class T>
Model<T> make_model(bool in_tile = false) {
  return Model<T>({.backbone = {.scale = 0.25, .class_expand = 64},
                   .neck = {.embedding_size = 64, .class_num = 24},
                   .head = {.embedding_size = 24,
                            .class_num = classes,
                            .margin = 0.2,
                            .scale = 10,
                            .update_in_tile = in_tile},
                   .loss = {{.weight = 1}, {.weight = 0.5}}},
                  Seed{3});
}

/// On CUDA every array of a pass starts as NaN, so that what is read before it is written shows.
template <class Session>
Session starting_as_nan(Session session) {
#ifndef KINDRED_CPU_SIDE
  session.context().set_poison(true);
#endif
  return session;
}

template <class T>
struct Batch {
  std::vector<T> values;
  std::vector<std::int64_t> labels;
  View<const T> images() const {
    return {values.data(), {static_cast<std::int64_t>(labels.size()), size, size, 3}};
  }
};

/// Pairs of images with a common label.
template <class T>
Batch<T> make_batch(std::int64_t n, std::uint64_t number) {
  Batch<T> batch{random_values<T>(n * size * size * 3, 100 + number), {}};
  for (std::int64_t i = 0; i < n; ++i)
    batch.labels.push_back((i / 2 * 3 + static_cast<std::int64_t>(number)) % classes);
  return batch;
}

template <class T>
View<const T> all(std::span<T> values) {
  return {values.data(), {static_cast<std::int64_t>(values.size())}};
}

void record(test::Side& side, const std::string& name, std::span<const loss::LossReport> losses,
            double tolerance) {
  std::vector<double> values;
  for (const loss::LossReport& l : losses) values.insert(values.end(), {l.value, l.active});
  side.record(name + " losses", View<const double>{values.data(), {4}}, tolerance);
}

// Sessions take images from the host and give their results to it.
KINDRED_PARITY(inference) {
  const auto model = make_model<T>();
  auto session = starting_as_nan(model.session());
  const double tolerance = side.tolerance<T>(1e-4);
  for (const std::int64_t n : {3, 1, 3}) {
    const auto batch = make_batch<T>(n, static_cast<std::uint64_t>(n));
    side.record(text("backbone ", n), session.backbone(batch.images()), tolerance);
    side.record(text("features ", n), session.features(batch.images()), tolerance);
    side.record(text("logits ", n), session.logits(batch.images()), tolerance);
  }
}

KINDRED_PARITY(gradients) {
  auto model = make_model<T>();
  auto session = starting_as_nan(model.train_session());
  const auto batch = make_batch<T>(4, 0);
  const double tolerance = std::is_same_v<T, double> ? 1e-10 : 1e-2;
  for (std::uint64_t step : {0, 1}) {  // gradients add up
    record(side, text("step ", step), session.forward_backward(batch.images(), batch.labels, step),
           tolerance);
    side.check(session.images_finite() && session.gradients_finite(), "finite");
  }
  for (const ParameterInfo& p : model.parameters().entries())
    if (p.kind != ParameterKind::buffer)
      side.record(p.name, View<const T>{session.gradients().data() + p.offset, p.shape}, tolerance);
  side.record("statistics", all(model.statistics()), tolerance);
}

KINDRED_PARITY(bad_batches) {
  auto model = make_model<T>();
  auto session = model.train_session();
  auto batch = make_batch<T>(4, 0);
  batch.values[5] = std::numeric_limits<T>::quiet_NaN();
  session.forward_backward(batch.images(), batch.labels, 0);
  side.check(!session.images_finite() && !session.gradients_finite(), "NaN in an image is found");
  batch.labels[1] = classes;
  side.template check_throws<DataError>(
      [&] { session.forward_backward(batch.images(), batch.labels, 0); }, "label 11");
}

/// Trains with momentum; `graph` launches whole steps, whose losses are read at the end alone.
template <class T>
std::vector<T> train(test::Side& side, const std::string& name, int steps, bool graph,
                     double tolerance, bool in_tile = false) {
  auto model = make_model<T>(in_tile);
  auto session = starting_as_nan(model.train_session());
  const optim::Momentum optimizer{.momentum = 0.9, .weight_decay = 1e-4};
  const auto ranges = optim::ranges(model.parameters(), optimizer.weight_decay, {});
  using Array = typename Model<T>::Array;
  std::vector<Array> moments(1, Array(model.trainable().size()));
  const ParameterInfo& centres = *model.parameters().find("head.weight");
  using Context = typename Model<T>::Context;
  for (int i = 0; i < steps; ++i) {
    const auto batch = make_batch<T>(6, static_cast<std::uint64_t>(i % 3));
    const auto step = static_cast<std::uint64_t>(i);
    const optim::Update<T, Array> u{model.trainable(), session.gradients(), moments,
                                    0.002 / (1 + i), i + 1};
    const optim::RowStep<Context, T, Array, optim::Momentum> rows(
        optimizer, optim::range_of(centres, optimizer.weight_decay, {}), u);
    const auto update = [&](Context& ctx) {
      optimizer.update(ctx, std::span<const optim::Range>(ranges), u);
    };
    if (graph) {
      session.step(batch.images(), batch.labels, step, update, &rows);
      continue;
    }
    session.zero_gradients();
    record(side, text(name, " step ", i),
           session.forward_backward(batch.images(), batch.labels, step, &rows), tolerance);
    side.check(session.rows_updated(), "rows are updated");
    update(session.context());
  }
  record(side, name + " at the end", session.losses(), tolerance);
  side.record(name + " parameters", all(model.trainable()), tolerance);
  side.record(name + " statistics", all(model.statistics()), tolerance);
  return {model.trainable().begin(), model.trainable().end()};
}

/// The pixels of batch `number` in pinned memory, as a loader for the device has them.
template <class T>
struct PixelBatch {
  std::shared_ptr<std::uint8_t> memory;
  Batch<T> of_numbers;
  PixelImages images(const PixelTable& table) const {
    return {{memory.get(), of_numbers.images().shape}, table};
  }
};
template <class T>
PixelBatch<T> make_pixels(std::int64_t n, std::uint64_t number, const PixelTable& table) {
  PixelBatch<T> batch{{}, make_batch<T>(n, number)};
  std::vector<T>& values = batch.of_numbers.values;
  batch.memory =
      std::static_pointer_cast<std::uint8_t>(Model<T>::Device::allocate_results(values.size()));
  RandomSequence random({9, number, 0});
  for (std::size_t i = 0; i < values.size(); ++i) {
    batch.memory.get()[i] = static_cast<std::uint8_t>(random.below(256));
    values[i] = static_cast<T>(table.at(batch.memory.get()[i], i % 3));
  }
  return batch;
}

// Images that the device normalises, copied ahead or not, give the bits of the same numbers.
KINDRED_PARITY(pixels) {
  PixelTable table;
  for (std::size_t i = 0; i < 256 * 3; ++i)
    table.value[i] = 0.01f * static_cast<float>(i / 3) - 1.2f - 0.1f * static_cast<float>(i % 3);
  std::vector<PixelBatch<T>> batches;
  for (std::uint64_t i = 0; i < 4; ++i) batches.push_back(make_pixels<T>(4, i, table));
  std::vector<T> results[3];
  for (int way = 0; way < 3; ++way) {
    auto model = make_model<T>();
    auto session = model.train_session();
    for (std::size_t i = 0; i < batches.size(); ++i) {
      const Batch<T>& batch = batches[i].of_numbers;
      if (way == 0)
        session.launch(batch.images(), batch.labels, i);
      else
        session.launch(batches[i].images(table), batch.labels, i);
      if (way == 2 && i + 1 < batches.size()) {
        session.prefetch(batches[i + 1].images(table));
        if (i == 1) session.prefetch(batches[0].images(table));  // another than is used then
      }
      session.losses();
    }
    results[way].assign(session.gradients().begin(), session.gradients().end());
    auto inference = model.session();
    const View<const T> f = way == 0 ? inference.features(batches[1].of_numbers.images())
                                     : inference.features(batches[1].images(table));
    results[way].insert(results[way].end(), f.begin(), f.end());
  }
  const double tolerance = std::is_same_v<T, double> ? 1e-10 : 1e-2;
  side.record("gradients and features", all(std::span<T>(results[0])), tolerance);
  side.check(results[1] == results[0], "pixels: the same bits");
  side.check(results[2] == results[0], "pixels that were copied ahead: the same bits");
}

KINDRED_PARITY(trajectory) {
  if constexpr (std::is_same_v<T, double>) train<T>(side, "20 steps", 20, false, 1e-8);
}

// A step launched as a graph, built at the first one and kept, is the same step.
KINDRED_PARITY(graph) {
  const double tolerance = std::is_same_v<T, double> ? 1e-9 : 1e-2;
  const auto one_by_one = train<T>(side, "one by one", 3, false, tolerance);
  const auto as_graph = train<T>(side, "graph", 3, true, tolerance);
  side.check(one_by_one == as_graph, "the bits of a step do not depend on how it is launched");
  const auto in_tiles = train<T>(side, "in tiles", 3, true, tolerance, true);
  side.check(one_by_one == in_tiles, "nor on where the centres are updated");
}

#ifdef KINDRED_CPU_SIDE
KINDRED_PARITY(math_modes) {}
#else
/// |a - b| / |b|, as vectors.
template <class T>
double distance(const std::vector<T>& a, const std::vector<T>& b) {
  double difference = 0, length = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    length += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / length);
}

// What the modes cost in accuracy: features of the untrained network, and loss and gradient of the
// centres in one step. (The gradient of the backbone is ill-conditioned here, as its last maps have
// a single pixel.) Parameters, sums, statistics and gradients are FP32 in all of them.
KINDRED_PARITY(math_modes) {
  if constexpr (std::is_same_v<T, float>) {
    const auto batch = make_batch<float>(16, 0);
    std::vector<float> features[3], gradients[3];
    double losses[3] = {};
    for (const int mode : {0, 1, 2}) {
      auto model = make_model<float>();
      auto session = model.train_session();
      session.context().set_math(static_cast<cuda::MathMode>(mode));
      losses[mode] = session.forward_backward(batch.images(), batch.labels, 0)[0].value;
      const ParameterInfo* centres = model.parameters().find("head.weight");
      side.check(centres != nullptr, "the name of the centres");
      const float* of_centres = session.gradients().data() + centres->offset;
      gradients[mode].assign(of_centres, of_centres + centres->shape.size());
      auto inference = model.session();
      inference.context().set_math(static_cast<cuda::MathMode>(mode));
      const auto f = inference.features(batch.images());
      features[mode].assign(f.begin(), f.end());
    }
    const struct {
      double loss, features, gradient;
    } bounds[] = {{}, {1e-3, 2e-2, 1e-1}, {1e-2, 2e-1, 4e-1}};
    for (const int mode : {1, 2}) {
      const double loss = std::abs(losses[mode] - losses[0]) / losses[0],
                   feature = distance(features[mode], features[0]),
                   gradient = distance(gradients[mode], gradients[0]);
      const auto what = text("mode ", mode, ": loss ", loss, ", features ", feature, ", gradient ",
                             gradient, " from FP32");
      side.check(loss < bounds[mode].loss && feature < bounds[mode].features &&
                     gradient < bounds[mode].gradient,
                 what);
      side.check(feature > 0 && gradient > 0, what + ": the mode changes nothing");
      std::printf("%s\n", what.c_str());
    }
  }
}
#endif

}  // namespace
