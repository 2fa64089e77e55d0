// Every convolution shape of PPLCNet x1_0, x2_5 and ResNet50_vd at 224 x 224, forward and both
// backward passes, against oneDNN's primitives on the same NHWC arrays and against the roofline.
//   build/benchmarks/layers [--network x1_0] [--only dw] [--batch 32] [--threads 2] [--rounds 5]
// Prints a Markdown table for each network: medians of interleaved rounds in one process.
//
// Roofline: the least time is max(operations / peak, bytes / bandwidth), where the bytes are those
// of input, output and weights once. Peak and bandwidth are measured in the same rounds, the
// bandwidth by copying arrays of as many bytes as the layer moves, hence from the same caches. A
// layer that reads much more than it writes can pass 100%, since reading is faster than copying.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include <kindred/kernels/conv2d.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>

#include "limits.hpp"
#include "support.hpp"

#ifdef KINDRED_WITH_DNNL
#include <oneapi/dnnl/dnnl.hpp>
#endif

namespace {

using namespace kindred;
using benchmarks::number;

struct Settings {
  int threads = cpu::available_processors(), rounds = 5;
  std::int64_t batch = 32;
  std::string network, only;
};

struct Layer {
  std::int64_t size, in, out, kernel, stride;
  bool depthwise = false;
  int count = 1;  ///< of layers of this shape in the network

  std::string name() const {
    return text(depthwise ? "dw " : "", kernel, "x", kernel, stride > 1 ? text(" s", stride) : "",
                ", ", size, "x", size, "x", in, depthwise ? "" : text(" -> ", out));
  }
  bool operator==(const Layer& o) const {
    return size == o.size && in == o.in && out == o.out && kernel == o.kernel &&
           stride == o.stride && depthwise == o.depthwise;
  }
};

void add(std::vector<Layer>& layers, const Layer& layer) {
  for (Layer& known : layers)
    if (known == layer) {
      ++known.count;
      return;
    }
  layers.push_back(layer);
}

/// PPLCNet; its scales 1 and 2.5 need no rounding of channels. Squeeze-excite and what follows the
/// pooling see one pixel and are left out.
std::vector<Layer> pplcnet(double scale) {
  struct Block {
    std::int64_t kernel, in, out, stride;
  };
  const Block blocks[] = {{3, 16, 32, 1},   {3, 32, 64, 2},   {3, 64, 64, 1},   {3, 64, 128, 2},
                          {3, 128, 128, 1}, {3, 128, 256, 2}, {5, 256, 256, 1}, {5, 256, 256, 1},
                          {5, 256, 256, 1}, {5, 256, 256, 1}, {5, 256, 256, 1}, {5, 256, 512, 2},
                          {5, 512, 512, 1}};
  const auto width = [=](std::int64_t channels) {
    return static_cast<std::int64_t>(static_cast<double>(channels) * scale);
  };
  std::vector<Layer> layers{{224, 3, width(16), 3, 2}};
  std::int64_t size = 112;
  for (const Block& b : blocks) {
    add(layers, {size, width(b.in), width(b.in), b.kernel, b.stride, true});
    size /= b.stride;
    add(layers, {size, width(b.in), width(b.out), 1, 1});
  }
  return layers;
}

/// ResNet50_vd: three 3x3 convolutions as stem, strides in the 3x3 of a block, average pooling
/// before the 1x1 of a shortcut.
std::vector<Layer> resnet50_vd() {
  std::vector<Layer> layers{{224, 3, 32, 3, 2}, {112, 32, 32, 3, 1}, {112, 32, 64, 3, 1}};
  const int blocks[] = {3, 4, 6, 3};
  std::int64_t size = 56, in = 64;
  for (int stage = 0; stage < 4; ++stage) {
    const std::int64_t width = std::int64_t{64} << stage;
    for (int block = 0; block < blocks[stage]; ++block) {
      const std::int64_t stride = stage > 0 && block == 0 ? 2 : 1;
      add(layers, {size, in, width, 1, 1});
      add(layers, {size, width, width, 3, stride});
      size /= stride;
      add(layers, {size, width, 4 * width, 1, 1});
      if (block == 0) add(layers, {size, in, 4 * width, 1, 1});
      in = 4 * width;
    }
  }
  return layers;
}

enum class Direction { forward, backward_input, backward_weight };
const char* const direction_names[] = {"forward", "backward input", "backward weight"};

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

  double flops() const {
    return 2.0 * static_cast<double>(y_shape.size()) *
           static_cast<double>(w_shape.size() / w_shape[3]);
  }
  std::int64_t floats() const { return x_shape.size() + y_shape.size() + w_shape.size(); }
};

std::function<void()> kindred_conv2d(cpu::Context& ctx, Arrays& a, Direction direction) {
  const View<float> x{a.x.data(), a.x_shape}, y{a.y.data(), a.y_shape}, w{a.w.data(), a.w_shape};
  return benchmarks::planned(ctx, [&ctx, geometry = a.geometry, x, y, w, direction] {
    switch (direction) {
      case Direction::forward:
        return kernels::conv2d_forward(ctx, geometry, x, w, y);
      case Direction::backward_input:
        return kernels::conv2d_backward_input(ctx, geometry, y, w, x);
      case Direction::backward_weight:
        return kernels::conv2d_backward_weight(ctx, geometry, x, y, w);
    }
  });
}

#ifdef KINDRED_WITH_DNNL
/// oneDNN chooses the layout of the weights; images stay NHWC. Its backward assigns dw.
std::function<void()> dnnl_conv2d(const Layer& layer, Arrays& a, Direction direction) {
  using dnnl::memory;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const auto type = memory::data_type::f32;
  const auto nhwc = memory::format_tag::nhwc, any = memory::format_tag::any;
  const memory::desc x({a.x_shape[0], layer.in, layer.size, layer.size}, type, nhwc);
  const memory::desc y({a.x_shape[0], layer.out, a.y_shape[1], a.y_shape[2]}, type, nhwc);
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
  const bool to_input = direction == Direction::backward_input;
  const bool to_weight = direction == Direction::backward_weight;
  const std::unordered_map<int, memory> arguments{
      {to_input ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, memory(x, engine, a.x.data())},
      {to_weight ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, memory(chosen, engine)},
      {to_input || to_weight ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, memory(y, engine, a.y.data())}};
  auto weights = arguments.at(to_weight ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS);
  std::fill_n(static_cast<float*>(weights.get_data_handle()), chosen.get_size() / sizeof(float),
              0.125f);
  return [stream = dnnl::stream(engine), primitive, arguments]() mutable {
    primitive.execute(stream, arguments);
    stream.wait();
  };
}
#endif

/// What the last rows of a table need.
struct Sums {
  double least = 0, own = 0, dnnl = 0;  ///< seconds of one pass through the network
  std::vector<double> ratios;
};

void compare(const Layer& layer, Direction direction, const Settings& s, Sums& sums) {
  Arrays a(layer, s.batch);
  cpu::Context ctx(s.threads);
  const std::int64_t half = a.floats() / 2;
  std::vector<float> from(static_cast<std::size_t>(half), 1.f), to(from.size());
  double peak_flops = 0;
  std::vector<std::function<void()>> contestants{
      [&] { peak_flops = benchmarks::multiply_adds(ctx); },
      [&] { benchmarks::copy_floats(ctx, half, from.data(), to.data()); },
      kindred_conv2d(ctx, a, direction)};
#ifdef KINDRED_WITH_DNNL
  contestants.push_back(dnnl_conv2d(layer, a, direction));
#endif
  const std::vector<double> seconds = benchmarks::interleaved(contestants, 2, s.rounds);
  const double by_flops = a.flops() * seconds[0] / peak_flops, by_bytes = seconds[1];
  const double least = std::max(by_flops, by_bytes), own = seconds[2];
  std::vector<std::string> cells{layer.name(),
                                 direction_names[static_cast<int>(direction)],
                                 text(layer.count),
                                 number(1e3 * own, 3),
                                 number(1e-9 * a.flops() / own, 0),
                                 number(4e-9 * static_cast<double>(a.floats()) / own, 1),
                                 by_flops > by_bytes ? "FMA" : "memory",
                                 number(100 * least / own, 0)};
  sums.least += layer.count * least;
  sums.own += layer.count * own;
#ifdef KINDRED_WITH_DNNL
  cells.push_back(number(seconds[3] / own, 2));
  sums.dnnl += layer.count * seconds[3];
  sums.ratios.push_back(seconds[3] / own);
#endif
  benchmarks::print_row(cells);
}

bool wanted(const Layer& layer, const Settings& s) {
  return layer.name().find(s.only) != std::string::npos;
}

void table(const char* network, const std::vector<Layer>& layers, const Settings& s) {
  if (!s.network.empty() && s.network != network) return;
  if (std::none_of(layers.begin(), layers.end(), [&](const Layer& l) { return wanted(l, s); }))
    return;
  std::printf("\n%s, batch %lld:\n\n", network, static_cast<long long>(s.batch));
  std::vector<std::string> header{"layer",   "pass", "layers",   "ms",
                                  "GFLOP/s", "GB/s", "bound by", "% of roofline"};
#ifdef KINDRED_WITH_DNNL
  header.push_back("times oneDNN");
#endif
  benchmarks::print_header(header);
  Sums sums;
  for (const Layer& layer : layers)
    for (Direction direction :
         {Direction::forward, Direction::backward_input, Direction::backward_weight})
      // Images have no gradient.
      if (wanted(layer, s) && !(layer.in == 3 && direction == Direction::backward_input))
        compare(layer, direction, s, sums);
  std::vector<std::string> total{"all layers", "all", "", number(1e3 * sums.own, 1),
                                 "",           "",    "", number(100 * sums.least / sums.own, 0)};
#ifdef KINDRED_WITH_DNNL
  total.push_back(number(sums.dnnl / sums.own, 2));
#endif
  benchmarks::print_row(total);
#ifdef KINDRED_WITH_DNNL
  std::printf("\nGeometric mean of the ratios to oneDNN: %.2f.\n",
              benchmarks::geometric_mean(sums.ratios));
#endif
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  CLI::App app("Convolution layers against oneDNN and the roofline: Markdown tables");
  app.add_option("--network", s.network)->check(CLI::IsMember({"x1_0", "x2_5", "ResNet50_vd"}));
  app.add_option("--only", s.only, "layers whose name has this text, e.g. dw");
  app.add_option("--batch", s.batch)->check(CLI::Range(1, 4096));
  app.add_option("--threads", s.threads)->check(CLI::Range(1, 1024));
  app.add_option("--rounds", s.rounds)->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  benchmarks::set_peer_threads(s.threads);
  table("x1_0", pplcnet(1), s);
  table("x2_5", pplcnet(2.5), s);
  table("ResNet50_vd", resnet50_vd(), s);
  std::printf(
      "\n%d threads, medians of %d interleaved rounds, the best ones of peak and bandwidth.\n",
      s.threads, s.rounds);
}
