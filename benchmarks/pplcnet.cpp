// One training step and one inference of the PP-ShiTu recognition model (PPLCNet, FC 1280 -> 512,
// ArcMargin, CELoss, momentum) on 224 x 224 images, and the margin step alone is
// margin_softmax.cpp. Names: TrainStep/x1_0/32, Inference/x2_5/1. compare_pytorch.py runs it beside
// PyTorch.

#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <kindred/kindred.hpp>

namespace kd = kindred;

namespace {

using Model =
    kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::ArcMargin, kd::loss::CELoss>;

constexpr std::int64_t side = 224, classes = 1000;

Model make_model(double scale) {
  return Model(
      {.backbone = {.scale = scale},
       .neck = {.embedding_size = 1280, .class_num = 512},
       .head = {.embedding_size = 512, .class_num = classes, .margin = 0.2f, .scale = 30.f}},
      kd::Seed{1});
}

std::vector<float> make_images(std::int64_t batch) {
  std::vector<float> images(static_cast<std::size_t>(batch * side * side * 3));
  kd::RandomSequence random({1, 2, 3});
  for (float& v : images) v = static_cast<float>(random.uniform(-2, 2));
  return images;
}

void train_step(benchmark::State& state, double scale, std::int64_t batch) {
  Model model = make_model(scale);
  const std::vector<float> images = make_images(batch);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < batch; ++i) labels.push_back(i * 31 % classes);
  auto session = model.train_session();
  const kd::optim::Momentum momentum{.momentum = 0.9, .weight_decay = 5e-4};
  const auto ranges = kd::optim::ranges(model.parameters(), momentum.weight_decay, {});
  std::vector<std::vector<float>> moments(1, std::vector<float>(model.trainable().size()));
  std::int64_t step = 0;
  const auto one = [&] {
    session.zero_gradients();
    session.forward_backward({images.data(), {batch, side, side, 3}}, labels,
                             static_cast<std::uint64_t>(step));
    momentum.update(
        session.context(), std::span<const kd::optim::Range>(ranges),
        kd::optim::Update<float>{model.trainable(), session.gradients(), moments, 1e-3, ++step});
  };
  one();  // plans the memory
  for (auto _ : state) one();
  state.counters["images/s"] =
      benchmark::Counter(static_cast<double>(batch), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["planned_MiB"] =
      static_cast<double>(session.plan({batch, side, side, 3}).bytes()) / (1 << 20);
}

void inference(benchmark::State& state, double scale, std::int64_t batch) {
  const Model model = make_model(scale);
  const std::vector<float> images = make_images(batch);
  auto session = model.session();
  const kd::View<const float> x{images.data(), {batch, side, side, 3}};
  session.features(x);
  for (auto _ : state) benchmark::DoNotOptimize(session.features(x).data);
  state.counters["images/s"] =
      benchmark::Counter(static_cast<double>(batch), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["planned_MiB"] = static_cast<double>(session.bytes()) / (1 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  for (const auto& [name, scale] : {std::pair("x1_0", 1.0), std::pair("x2_5", 2.5)}) {
    const std::string n = name;
    for (const std::int64_t batch : {2, 32})
      benchmark::RegisterBenchmark(("TrainStep/" + n + "/" + std::to_string(batch)).c_str(),
                                   train_step, scale, batch)
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    for (const std::int64_t batch : {1, 32})
      benchmark::RegisterBenchmark(("Inference/" + n + "/" + std::to_string(batch)).c_str(),
                                   inference, scale, batch)
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
