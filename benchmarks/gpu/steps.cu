// What the GPU can do, and the training steps that kindred is for. One line of JSON for every case:
//   Copy/BYTES                    bandwidth of a copy, read and written
//   Product/N/MODE                rate of one product of N x N matrices
//   MarginStep/B/D/C/MODE         ArcMargin + CELoss with both gradients
//   TrainStep/SCALE/B/MODE        a step of PPLCNet, FC 1280 -> 512, ArcMargin, CELoss, momentum on
//                                 224 x 224 images that are on the device; also in the mode amp:
//                                 that of bf16, with maps stored in BF16
//   LaunchedStep/SCALE/B/MODE     the same, kernel by kernel instead of as one graph
//   FedStep/SCALE/B/MODE          TrainStep on images of 8 bits in pinned memory of the host, each
//                                 batch copied while the step before runs and normalised there
//   benchmark_gpu_steps [PART...]   only cases whose name contains a PART

#include <cstring>

#include <kindred/kindred.cuh>

#include "support.cuh"

namespace kd = kindred;
using namespace kd::benchmarks;
using kd::cuda::MathMode;

namespace {

std::vector<std::string> parts;

bool selected(const std::string& name) {
  return parts.empty() || std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
           return name.find(part) != std::string::npos;
         });
}

/// Runs `pass` in the planned memory of the context.
template <class F>
auto planned(kd::cuda::Context& ctx, F pass) {
  ctx.arena().begin_recording();
  pass();
  return [&ctx, pass, plan = ctx.arena().end_recording()] {
    ctx.arena().begin_replay(plan);
    pass();
  };
}

void copy(std::int64_t megabytes) {
  const std::int64_t n = megabytes * 250000;
  const std::string name = kd::text("Copy/", megabytes * 1000000);
  if (!selected(name)) return;
  kd::cuda::Context ctx;
  const DeviceArray x({n}, 1), y({n});
  const Times t = time_on(ctx.stream(), 9, 20, [&] { kd::kernels::copy(ctx, x.view(), y.view()); });
  report(name, t, "GB/s", 8e-6 * static_cast<double>(n) / t.median);
}

void product(std::int64_t n, MathMode mode) {
  const std::string name = kd::text("Product/", n, '/', name_of(mode));
  if (!selected(name)) return;
  kd::cuda::Context ctx;
  ctx.set_math(mode);
  const DeviceArray a({n, n}, 1), b({n, n}, 1), c({n, n});
  const Times t = time_on(ctx.stream(), 9, 5, planned(ctx, [&] {
                            kd::kernels::gemm(ctx, kd::Transpose::no, kd::Transpose::no, a.view(),
                                              b.view(), c.view());
                          }));
  report(name, t, "TFLOP/s", 2e-9 * static_cast<double>(n * n) * static_cast<double>(n) / t.median);
}

void margin_step(std::int64_t batch, std::int64_t dim, std::int64_t classes, MathMode mode) {
  const std::string name =
      kd::text("MarginStep/", batch, '/', dim, '/', classes, '/', name_of(mode));
  if (!selected(name)) return;
  kd::cuda::Context ctx;
  ctx.set_math(mode);
  const DeviceArray x({batch, dim}, 1), w({classes, dim}, 0.01), dx({batch, dim}),
      dw({classes, dim}), loss({1});
  std::vector<std::int64_t> labels;
  for (std::int64_t b = 0; b < batch; ++b) labels.push_back(b * 2897 % classes);
  const auto label_memory = kd::cuda::allocate_device(labels.size() * sizeof(std::int64_t));
  kd::cuda::check(
      cudaMemcpyAsync(label_memory.get(), labels.data(), labels.size() * sizeof labels[0],
                      cudaMemcpyHostToDevice, ctx.stream()),
      "cudaMemcpyAsync");
  const kd::ArcMarginPolicy<float> policy(0.2, 30);
  const auto step = planned(ctx, [&] {
    kd::kernels::margin_softmax(ctx, policy, kd::View<const float>(x.view()),
                                kd::View<const float>(w.view()),
                                static_cast<const std::int64_t*>(label_memory.get()), 0.f, 1.f,
                                loss.view(), dx.view(), dw.view());
  });
  const Times t = time_on(ctx.stream(), 9, 5, step);
  ctx.synchronize();
  report(name, t, "TFLOP/s",
         6e-9 * static_cast<double>(batch * dim) * static_cast<double>(classes) / t.median);
}

using Model = kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::ArcMargin,
                           kd::loss::CELoss, kd::Cuda>;
constexpr std::int64_t side = 224, classes = 1000;

void train_step(const char* scale_name, double scale, std::int64_t batch, MathMode mode,
                kd::Storage maps = kd::Storage::scalar) {
  const bool amp = maps == kd::Storage::bf16;
  const std::string ending = kd::text(scale_name, '/', batch, '/', amp ? "amp" : name_of(mode));
  if (!selected("TrainStep/" + ending) && !selected("LaunchedStep/" + ending) &&
      !selected("FedStep/" + ending))
    return;
  Model model({.backbone = {.scale = scale},
               .neck = {.embedding_size = 1280, .class_num = 512},
               .head = {.embedding_size = 512, .class_num = classes, .margin = 0.2, .scale = 30}},
              kd::Seed{1});
  auto session = model.train_session({.activations = maps});
  session.context().set_math(mode);
  const DeviceArray images({batch, side, side, 3}, 1);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < batch; ++i) labels.push_back(i * 31 % classes);
  const kd::optim::Momentum momentum{.momentum = 0.9, .weight_decay = 5e-4};
  const auto ranges = kd::optim::ranges(model.parameters(), momentum.weight_decay, {});
  std::vector<Model::Array> moments(1, Model::Array(model.trainable().size()));
  std::int64_t step = 0;
  const auto update = [&](kd::cuda::Context& ctx) {
    momentum.update(ctx, std::span<const kd::optim::Range>(ranges),
                    kd::optim::Update<float, Model::Array>{model.trainable(), session.gradients(),
                                                           moments, 1e-3, step + 1});
  };
  const auto measure = [&](const char* kind, auto&& one) {
    if (!selected(kind + ending)) return;
    const Times t = time_on(session.context().stream(), 9, 5, one);
    session.losses();
    report(kind + ending, t, "images/s", 1e3 * static_cast<double>(batch) / t.median);
  };
  measure("TrainStep/",
          [&] { session.step(images.view(), labels, static_cast<std::uint64_t>(++step), update); });
  measure("LaunchedStep/", [&] {
    session.zero_gradients();
    session.forward_backward(images.view(), labels, static_cast<std::uint64_t>(++step));
    update(session.context());
  });
  const kd::PixelTable table{};
  const auto pinned = kd::cuda::allocate_pinned(2 * static_cast<std::size_t>(images.view().size()));
  std::memset(pinned.get(), 100, 2 * static_cast<std::size_t>(images.view().size()));
  const auto pixels = [&](std::int64_t number) -> kd::PixelImages {
    const auto* data = static_cast<const std::uint8_t*>(pinned.get());
    return {{data + number % 2 * images.view().size(), images.view().shape}, table};
  };
  measure("FedStep/", [&] {
    ++step;
    session.step(pixels(step), labels, static_cast<std::uint64_t>(step), update);
    session.prefetch(pixels(step + 1));
  });
  std::fprintf(stderr, "%s: %zu bytes planned\n", ending.c_str(),
               session.plan({batch, side, side, 3}).bytes());
}

void all() {
  for (const std::int64_t megabytes : {100, 1000}) copy(megabytes);
  for (const MathMode mode : math_modes()) {
    product(8192, mode);
    margin_step(512, 512, 185341, mode);
    margin_step(512, 512, 1000000, mode);
    train_step("x1_0", 1.0, 256, mode);
    train_step("x2_5", 2.5, 256, mode);
  }
  train_step("x1_0", 1.0, 256, MathMode::bf16, kd::Storage::bf16);
  train_step("x2_5", 2.5, 256, MathMode::bf16, kd::Storage::bf16);
}

}  // namespace

int main(int count, char** arguments) {
  parts.assign(arguments + 1, arguments + count);
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no CUDA device: skipped");
    return 77;
  }
  try {
    all();
  } catch (const kd::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
