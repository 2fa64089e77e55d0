// A whole model on CPU against CUDA: features, losses, gradients and a stretch of training.

#ifdef KINDRED_CPU_SIDE
#include <kindred/kindred.hpp>
#else
#include <kindred/kindred.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;

namespace {

#ifdef KINDRED_CPU_SIDE
using Device = Cpu;
#else
using Device = Cuda;
#endif

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
  auto session = model.session();
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
  auto session = model.train_session();
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
  auto session = model.train_session();
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

}  // namespace
