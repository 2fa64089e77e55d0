// Convolutions of PPLCNet (x1_0, x2_5) and ResNet50 layers in all directions, against oneDNN's
// primitives on the same NHWC arrays.
//   build/benchmarks/conv2d --benchmark_enable_random_interleaving --benchmark_repetitions=5
// Names are <layer>/<batch>/<direction>/<who>/<threads>; read the medians of GFLOP/s, and of GB/s
// (input and output once) for the depthwise layers, which memory limits.

#include <kindred/kernels/conv2d.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>

#include <benchmark/benchmark.h>

#include <string>
#include <unordered_map>
#include <vector>

#if defined(KINDRED_WITH_DNNL) && __has_include(<oneapi/dnnl/dnnl.hpp>)
#include <oneapi/dnnl/dnnl.hpp>
#define KINDRED_COMPARE_DNNL
#endif
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using namespace kindred;

struct Layer {
  const char* name;
  std::int64_t size, in, out, kernel, stride;
  bool depthwise = false;
};
enum class Direction { forward, backward_input, backward_weight };
const char* const direction_names[] = {"forward", "backward_input", "backward_weight"};

/// The arrays of one layer.
struct Arrays {
  Conv2dGeometry geometry;
  Shape x_shape, y_shape, w_shape;
  std::vector<float> x, y, w;

  Arrays(const Layer& l, std::int64_t batch)
      : geometry{l.kernel, l.kernel, l.stride, (l.kernel - 1) / 2, l.depthwise ? l.in : 1},
        x_shape{batch, l.size, l.size, l.in},
        y_shape(geometry.output_shape(x_shape, l.out)),
        w_shape(geometry.weight_shape(l.in, l.out)),
        x(static_cast<std::size_t>(x_shape.size()), 0.5f),
        y(static_cast<std::size_t>(y_shape.size()), 0.25f),
        w(static_cast<std::size_t>(w_shape.size()), 0.125f) {}

  void report(benchmark::State& state) const {
    const double flops = 2.0 * static_cast<double>(y_shape.size()) *
                         static_cast<double>(w_shape.size() / w_shape[3]);
    const double bytes = 4.0 * static_cast<double>(x_shape.size() + y_shape.size());
    const auto rate = benchmark::Counter::kIsIterationInvariantRate;
    state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * flops, rate);
    state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes, rate);
  }
};

void kindred_conv2d(benchmark::State& state, const Layer& layer, std::int64_t batch,
                    Direction direction, int threads) {
  Arrays a(layer, batch);
  const View<float> x{a.x.data(), a.x_shape}, y{a.y.data(), a.y_shape}, w{a.w.data(), a.w_shape};
  cpu::Context ctx(threads);
  auto pass = [&] {
    switch (direction) {
      case Direction::forward:
        return kernels::conv2d_forward(ctx, a.geometry, x, w, y);
      case Direction::backward_input:
        return kernels::conv2d_backward_input(ctx, a.geometry, y, w, x);
      case Direction::backward_weight:
        return kernels::conv2d_backward_weight(ctx, a.geometry, x, y, w);
    }
  };
  ctx.arena().begin_recording();
  pass();
  const Plan plan = ctx.arena().end_recording();
  for (auto _ : state) {
    ctx.arena().begin_replay(plan);
    pass();
    benchmark::ClobberMemory();
  }
  a.report(state);
}

#ifdef KINDRED_COMPARE_DNNL
/// oneDNN chooses the layout of the weights; images stay NHWC. Its backward assigns dw.
void dnnl_conv2d(benchmark::State& state, const Layer& layer, std::int64_t batch,
                 Direction direction, int threads) {
  using dnnl::memory;
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
  Arrays a(layer, batch);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto type = memory::data_type::f32;
  const auto nhwc = memory::format_tag::nhwc, any = memory::format_tag::any;
  const memory::desc x({batch, layer.in, layer.size, layer.size}, type, nhwc);
  const memory::desc y({batch, layer.out, a.y_shape[1], a.y_shape[2]}, type, nhwc);
  const memory::desc w =
      layer.depthwise ? memory::desc({layer.in, 1, 1, layer.kernel, layer.kernel}, type, any)
                      : memory::desc({layer.out, layer.in, layer.kernel, layer.kernel}, type, any);
  const memory::dims strides{layer.stride, layer.stride};
  const memory::dims before{a.geometry.padding, a.geometry.padding};
  const std::int64_t covered = (a.y_shape[1] - 1) * layer.stride + layer.kernel;
  const std::int64_t end = covered - layer.size - a.geometry.padding;
  const memory::dims after{end, end};
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const dnnl::convolution_forward::primitive_desc forward(
      {dnnl::prop_kind::forward_training, algorithm, x, w, y, strides, before, after}, engine);
  const dnnl::convolution_backward_data::primitive_desc backward_input(
      {algorithm, x, w, y, strides, before, after}, engine, forward);
  const dnnl::convolution_backward_weights::primitive_desc backward_weight(
      {algorithm, x, w, y, strides, before, after}, engine, forward);

  memory::desc chosen;
  dnnl::primitive primitive;
  switch (direction) {
    case Direction::forward:
      chosen = forward.weights_desc();
      primitive = dnnl::convolution_forward(forward);
      break;
    case Direction::backward_input:
      chosen = backward_input.weights_desc();
      primitive = dnnl::convolution_backward_data(backward_input);
      break;
    case Direction::backward_weight:
      chosen = backward_weight.diff_weights_desc();
      primitive = dnnl::convolution_backward_weights(backward_weight);
      break;
  }
  std::vector<float> weights(chosen.get_size() / sizeof(float), 0.125f);
  memory images(x, engine, a.x.data()), features(y, engine, a.y.data());
  memory kernel(chosen, engine, weights.data());
  const bool to_input = direction == Direction::backward_input;
  const bool to_weight = direction == Direction::backward_weight;
  const std::unordered_map<int, memory> arguments{
      {to_input ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, images},
      {to_weight ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, kernel},
      {to_input || to_weight ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, features}};
  for (auto _ : state) {
    primitive.execute(stream, arguments);
    stream.wait();
  }
  a.report(state);
}
#endif

const Layer layers[] = {
    {"x1_0/stem_3x3s2_224", 224, 3, 16, 3, 2},
    {"x1_0/dw3_112x16", 112, 16, 16, 3, 1, true},
    {"x1_0/pw_112x16-32", 112, 16, 32, 1, 1},
    {"x1_0/dw3s2_112x32", 112, 32, 32, 3, 2, true},
    {"x1_0/pw_56x64-64", 56, 64, 64, 1, 1},
    {"x1_0/dw3_56x64", 56, 64, 64, 3, 1, true},
    {"x1_0/pw_28x128-128", 28, 128, 128, 1, 1},
    {"x1_0/dw3_28x128", 28, 128, 128, 3, 1, true},
    {"x1_0/pw_14x256-256", 14, 256, 256, 1, 1},
    {"x1_0/dw5_14x256", 14, 256, 256, 5, 1, true},
    {"x1_0/dw5s2_14x256", 14, 256, 256, 5, 2, true},
    {"x1_0/dw5_7x512", 7, 512, 512, 5, 1, true},
    {"x1_0/pw_7x512-512", 7, 512, 512, 1, 1},
    {"x2_5/dw3_112x40", 112, 40, 40, 3, 1, true},
    {"x2_5/pw_14x640-640", 14, 640, 640, 1, 1},
    {"x2_5/dw5_14x640", 14, 640, 640, 5, 1, true},
    {"x2_5/pw_7x1280-1280", 7, 1280, 1280, 1, 1},
    {"resnet50/stem_7x7s2_224", 224, 3, 64, 7, 2},
    {"resnet50/3x3_56x64", 56, 64, 64, 3, 1},
    {"resnet50/3x3_28x128", 28, 128, 128, 3, 1},
    {"resnet50/3x3s2_28x256", 28, 256, 256, 3, 2},
    {"resnet50/3x3_14x256", 14, 256, 256, 3, 1},
    {"resnet50/3x3_7x512", 7, 512, 512, 3, 1},
    {"resnet50/1x1s2_56x256-512", 56, 256, 512, 1, 2},
};

void register_all() {
  for (const Layer& layer : layers)
    for (std::int64_t batch : {1, 32})
      for (Direction direction :
           {Direction::forward, Direction::backward_input, Direction::backward_weight})
        for (int threads : {1, 2}) {
          if (batch == 1 && direction != Direction::forward) continue;
          const std::string name =
              text(layer.name, "/", batch, "/", direction_names[static_cast<int>(direction)]);
          auto add = [&](const char* who, auto f) {
            const std::string full = text(name, "/", who, "/", threads);
            benchmark::RegisterBenchmark(
                full.c_str(),
                [=](benchmark::State& state) { f(state, layer, batch, direction, threads); })
                ->UseRealTime()
                ->MinTime(0.05);
          };
          add("kindred", kindred_conv2d);
#ifdef KINDRED_COMPARE_DNNL
          add("dnnl", dnnl_conv2d);
#endif
        }
}

}  // namespace

int main(int argc, char** argv) {
  register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
