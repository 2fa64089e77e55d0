// One training step and one inference of the PP-ShiTu recognition model (PPLCNet, FC 1280 -> 512,
// ArcMargin, CELoss, momentum) on 224 x 224 images. Names: TrainStep/x1_0/32, Inference/x2_5/1;
// TrainStepBF16 and InferenceBF16 are those with Storage::bf16.
//   build/benchmarks/pplcnet --reference=DIR
// measures nothing and writes what compare_peers.py gives to the peers: for each scale the weights
// DIR/x1_0.safetensors and the features of the images, DIR/x1_0.npy, and the images,
// DIR/images.npy.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include <kindred/io/npy.hpp>
#include <kindred/io/weights.hpp>
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

void train_step(benchmark::State& state, double scale, std::int64_t batch, kd::Storage storage) {
  Model model = make_model(scale);
  const std::vector<float> images = make_images(batch);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < batch; ++i) labels.push_back(i * 31 % classes);
  auto session = model.train_session({.activations = storage});
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

void inference(benchmark::State& state, double scale, std::int64_t batch, kd::Storage storage) {
  const Model model = make_model(scale);
  const std::vector<float> images = make_images(batch);
  auto session = model.session({.activations = storage});
  const kd::View<const float> x{images.data(), {batch, side, side, 3}};
  session.features(x);
  for (auto _ : state) benchmark::DoNotOptimize(session.features(x).data);
  state.counters["images/s"] =
      benchmark::Counter(static_cast<double>(batch), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["planned_MiB"] = static_cast<double>(session.bytes()) / (1 << 20);
}

constexpr std::pair<const char*, double> scales[] = {{"x1_0", 1.0}, {"x2_5", 2.5}};

/// Sets the running statistics to those of these images: with the initial 0 and 1, the activations
/// of an untrained network fade, and hardly differ from image to image.
void set_statistics(Model& model, kd::View<const float> images) {
  const std::vector<std::int64_t> labels(static_cast<std::size_t>(images.dim(0)), 0);
  model.train_session().forward_backward(images, labels, 0);
  constexpr float momentum = 0.9f;  // of the running statistics
  for (const kd::ParameterInfo& p : model.parameters().entries()) {
    if (p.kind != kd::ParameterKind::buffer) continue;
    const bool variance = p.name.ends_with("_variance");
    for (float& v : model.parameter(p.name))
      v = variance ? std::max((v - momentum) / (1 - momentum), 1e-4f) : v / (1 - momentum);
  }
}

void write_reference(const std::filesystem::path& folder) {
  constexpr std::int64_t batch = 32;
  const std::vector<float> images = make_images(batch);
  const kd::View<const float> x{images.data(), {batch, side, side, 3}};
  std::filesystem::create_directories(folder);
  kd::io::write_npy<const float>(folder / "images.npy", {images.data(), {batch, side * side * 3}});
  for (const auto& [name, scale] : scales) {
    Model model = make_model(scale);
    set_statistics(model, x);
    const std::filesystem::path stem = folder / name;
    kd::io::save_weights(stem.string() + ".safetensors", model.parameters(),
                         model.trainable().data(), model.statistics().data());
    auto session = model.session();
    kd::io::write_npy<const float>(stem.string() + ".npy", session.features(x));
  }
}

void register_all() {
  for (const auto& [name, scale] : scales)
    for (const std::int64_t batch : {1, 32}) {
      const auto add = [&](const std::string& kind, auto function) {
        benchmark::RegisterBenchmark(kd::text(kind, '/', name, '/', batch).c_str(), function, scale,
                                     batch)
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
      };
      for (const kd::Storage storage : {kd::Storage::scalar, kd::Storage::bf16}) {
        const std::string suffix = storage == kd::Storage::bf16 ? "BF16" : "";
        if (batch > 1)
          add("TrainStep" + suffix, [storage](benchmark::State& state, double s, std::int64_t b) {
            train_step(state, s, b, storage);
          });
        add("Inference" + suffix, [storage](benchmark::State& state, double s, std::int64_t b) {
          inference(state, s, b, storage);
        });
      }
    }
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::string_view reference = "--reference=";
  if (argc == 2 && std::string_view(argv[1]).starts_with(reference)) {
    write_reference(argv[1] + reference.size());
    return 0;
  }
  register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
