// Every neck, the head FC and the FPN as components, CPU against CUDA: outputs in training and
// evaluation, all gradients, running statistics.

#ifdef KINDRED_CPU_SIDE
#include <kindred/kindred.hpp>
#else
#include <kindred/kindred.cuh>
#endif

#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;
using test::Side;

namespace {

/// The parameters of a component in memory of the side, moved a little from where they start, and
/// its buffers.
template <class T>
struct Memory {
  View<T> parameters, statistics, gradients;

  Memory(Side& side, const ParameterTable& table) {
    std::vector<T> values(static_cast<std::size_t>(table.trainable_size())),
        buffers(static_cast<std::size_t>(table.buffer_size()));
    for (const ParameterInfo& p : table.entries()) {
      T* memory = p.kind == ParameterKind::buffer ? buffers.data() : values.data();
      p.initializer.fill(View<T>{memory + p.offset, p.shape}, {5, stream_of(p.name), 0});
    }
    const auto moves = random_values<T>(table.trainable_size(), 1, 0.1);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += moves[i];
    parameters = side.input(values, {table.trainable_size()});
    statistics = side.input(buffers, {table.buffer_size()});
    gradients = side.input(random_values<T>(table.trainable_size(), 2), {table.trainable_size()});
  }
  Run<test::SideContext, T> run(Side& side, bool training) const {
    return {.ctx = side.ctx,
            .parameters = parameters.data,
            .statistics = statistics.data,
            .new_statistics = statistics.data,
            .gradients = training ? gradients.data : nullptr,
            .training = training,
            .random = {3, 0, 1},
            .storage = storage};
  }
  Storage storage = Storage::scalar;  ///< of training passes
};

/// y and dx of forward(run, saved) and backward(run, dy, saved), gradients and statistics; and y of
/// the evaluation that follows.
template <class Component, class T, class Forward, class Backward>
void compare(Side& side, const std::string& name, const typename Component::Config& config,
             const Shape& in, const Shape& out, Forward&& forward, Backward&& backward,
             Storage storage = Storage::scalar) {
  ParameterTable table;
  const Component component(config, Scope(table, "component"));
  Memory<T> memory(side, table);
  memory.storage = storage;
  const auto x = side.input(random_values<T>(in.size(), 3), in);
  const auto dy = side.input(random_values<T>(out.size(), 4), out);
  const std::vector<T> zeros(static_cast<std::size_t>(std::max(in.size(), out.size())));
  const auto zero = [&](const Shape& shape) {
    return side.input(std::vector<T>(zeros.begin(), zeros.begin() + shape.size()), shape);
  };
  const auto y = zero(out), dx = zero(in), evaluated = zero(out);
  side.run([&] {
    const auto run = memory.run(side, true);
    typename Component::template Saved<T> saved{};
    auto forth = forward(component, run, x, saved);
    kernels::scale_add(run.ctx, T(1), forth, y);
    auto upstream = run.make(out, "dy");
    kernels::fill(run.ctx, T(0), View<T>(upstream));
    kernels::scale_add(run.ctx, T(1), dy, View<T>(upstream));
    auto back = backward(component, run, std::move(upstream), x, saved);
    if (!back.empty()) kernels::scale_add(run.ctx, T(1), back, dx);  // images have no gradient
  });
  if (storage == Storage::bf16) {  // the sides are as near as BF16 is to float, see bf16_model
    side.record(name + " y", y, 0.1);
    side.record(name + " statistics", memory.statistics, 0.1);
    return;
  }
  const double tolerance = Side::tolerance<T>(2e-4);
  side.record(name + " y", y, tolerance);
  side.record(name + " dx", dx, tolerance);
  side.record(name + " gradients", memory.gradients, tolerance);
  side.record(name + " statistics", memory.statistics, tolerance);
  side.run([&] {
    const auto run = memory.run(side, false);
    typename Component::template Saved<T> saved{};
    auto forth = forward(component, run, x, saved);
    kernels::scale_add(run.ctx, T(1), forth, evaluated);
  });
  side.record(name + " evaluated", evaluated, tolerance);
}

template <class Layer, class T>
void compare_layer(Side& side, const std::string& name, const typename Layer::Config& config,
                   const Shape& in, const Shape& out, Storage storage = Storage::scalar) {
  compare<Layer, T>(
      side, name, config, in, out,
      [](const Layer& layer, const auto& run, View<const T> x, auto& saved) {
        return layer.forward(run, x, saved);
      },
      [](const Layer& layer, const auto& run, Tensor<T> dy, View<const T> x, auto& saved) {
        return layer.backward(run, std::move(dy), x, saved);
      },
      storage);
}

KINDRED_PARITY(necks) {
  for (const std::int64_t batch : {2, 33}) {
    const auto of = [&](const char* neck) { return text(neck, ", ", batch, " rows:"); };
    const Shape wide{batch, 40}, narrow{batch, 9};
    compare_layer<neck::FC, T>(side, of("FC"), {40, 9}, wide, narrow);
    compare_layer<neck::FC, T>(side, of("FC without bias"), {40, 9, false}, wide, narrow);
    compare_layer<neck::BNNeck, T>(side, of("BNNeck"), {.num_features = 40}, wide, wide);
    compare_layer<neck::BNNeck, T>(
        side, of("BNNeck, frozen bias and global statistics"),
        {.num_features = 40, .freeze_bias = true, .use_global_stats = true}, wide, wide);
    for (const auto mode :
         {layers::BatchNormMode::general, layers::BatchNormMode::hold, layers::BatchNormMode::eval})
      compare_layer<neck::MetaBNNeck, T>(side, of(name_of(mode)),
                                         {.num_features = 40, .bn_mode = mode}, wide, wide);
    compare_layer<neck::VehicleNeck, T>(side, of("VehicleNeck"),
                                        {.in_channels = 40, .out_channels = 9}, wide, narrow);
    compare_layer<neck::FRFNNeck, T>(side, of("FRFNNeck"), {.num_features = 40, .low_dim = 9}, wide,
                                     narrow);
    compare_layer<neck::Tanh, T>(side, of("Tanh"), {.num_features = 40}, wide, wide);
    compare_layer<neck::Identity, T>(side, of("Identity"), {.num_features = 40}, wide, wide);
    for (const bool freeze : {false, true})
      compare_layer<neck::GeM, T>(side, of(freeze ? "GeM, frozen" : "GeM"),
                                  {.num_features = 9, .freeze_p = freeze}, {batch, 3, 5, 9},
                                  narrow);
  }
}

KINDRED_PARITY(head_fc) {
  using Head = head::FC;
  const std::vector<std::int64_t> classes = test::random_labels(17, 23, 5);
  const auto labels = side.input(classes, {17});
  for (const bool bias : {true, false})
    compare<Head, T>(
        side, bias ? "FC" : "FC without bias",
        {.embedding_size = 40, .class_num = 23, .bias = bias}, {17, 40}, {17, 23},
        [&](const Head& head, const auto& run, View<const T> x, auto& saved) {
          return head.forward(run, x, labels, saved);
        },
        [&](const Head& head, const auto& run, Tensor<T> dy, View<const T> x, auto& saved) {
          return head.backward(run, std::move(dy), x, labels, saved);
        });
}

// The trunk's map without the pyramid is in it.
KINDRED_PARITY(pyramid) {
  using Pyramid = backbone::FPN<backbone::PPLCNetMap>;
  typename Pyramid::Config config;
  config.trunk.scale = 0.25;
  config.out_channels = 24;
  compare_layer<Pyramid, T>(side, "FPN", config, {2, 64, 64, 3}, {2, 8, 8, 24});
  if constexpr (std::is_same_v<T, float>)
    compare_layer<Pyramid, T>(side, "FPN, maps in BF16", config, {2, 64, 64, 3}, {2, 8, 8, 24},
                              Storage::bf16);
}

}  // namespace
