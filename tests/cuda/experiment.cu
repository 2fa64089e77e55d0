// A whole experiment from YAML on CPU against CUDA: training from image files with evaluation and
// checkpoints, a run that is resumed, one that diverges, features of the trained network.

#ifdef KINDRED_CPU_SIDE
#include "rec/experiment.hpp"  // which is compiled once
#else
#include <kindred/kindred.cuh>
#endif

#include <fstream>

#include <unistd.h>
#include <opencv2/imgcodecs.hpp>

#include <kindred/config/experiment.hpp>

#include "cuda/support.hpp"

using namespace kindred;

namespace {

#ifdef KINDRED_CPU_SIDE
using Device = Cpu;
constexpr const char* device = "cpu";
constexpr const char* other_device = "gpu";
#else
using Device = Cuda;
constexpr const char* device = "gpu";  // PaddleClas' word for cuda
constexpr const char* other_device = "cpu";
#endif
using Experiment = config::BasicExperiment<Device>;

constexpr const char* yaml = R"(
Global: {device: cpu, output_dir: out, seed: 5, epochs: 2, image_shape: [3, 32, 32]}
Arch:
  Backbone: {name: PPLCNet_x0_25, class_expand: 64}
  BackboneStopLayer: {name: flatten}
  Neck: {name: FC, embedding_size: 64, class_num: 16}
  Head: {name: ArcMargin, embedding_size: 16, class_num: 4, margin: 0.1, scale: 8}
Loss:
  Train:
    - CELoss: {weight: 1.0}
    - TripletLossV2: {weight: 0.5, margin: 0.5}
Optimizer:
  name: Momentum
  momentum: 0.9
  lr: {name: Constant, learning_rate: 0.001}
DataLoader:
  Train:
    dataset: &dataset
      name: ImageNetDataset
      image_root: FOLDER
      cls_label_path: FOLDER/list.txt
      transform_ops:
        - DecodeImage: {to_rgb: True}
        - ResizeImage: {size: 32}
        - NormalizeImage: {scale: 1.0/255.0, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
    sampler: {name: BatchSampler, batch_size: 8, shuffle: True, drop_last: True}
    loader: {num_workers: 1}
  Eval:
    dataset: *dataset
    sampler: {name: BatchSampler, batch_size: 8}
    loader: {num_workers: 1}
)";

/// A folder with 4 images of each of 4 colours, their list, and the experiment's file.
class Files {
 public:
  Files() {
    folder_ =
        std::filesystem::temp_directory_path() / text("kindred_experiment_", device, "_", getpid());
    std::filesystem::create_directories(folder_);
    RandomSequence random({3, 1, 4});
    std::ofstream list(folder_ / "list.txt");
    for (int i = 0; i < 16; ++i) {
      cv::Mat image(32, 32, CV_8UC3);
      for (int y = 0; y < 32; ++y)
        for (int x = 0; x < 32; ++x)
          for (int c = 0; c < 3; ++c)
            image.at<cv::Vec3b>(y, x)[c] = static_cast<unsigned char>(
                random.below(120) + (((i / 4 + 1) >> c) & 1) * 100 + static_cast<unsigned>(y));
      const std::string name = text("image_", i, ".png");
      cv::imwrite((folder_ / name).string(), image);
      list << name << ' ' << i / 4 << '\n';
    }
    std::string words = yaml;
    for (std::size_t at = 0; (at = words.find("FOLDER")) != std::string::npos;)
      words.replace(at, 6, folder_.string());
    std::ofstream(folder_ / "experiment.yaml") << words;
  }
  Files(const Files&) = delete;
  ~Files() { std::filesystem::remove_all(folder_); }

  Experiment experiment(const std::string& run, std::vector<std::string> overrides = {},
                        const std::string& on = device) const {
    overrides.push_back("Global.device=" + on);
    overrides.push_back("Global.output_dir=" + (folder_ / run).string());
    return Experiment(folder_ / "experiment.yaml", overrides);
  }

 private:
  std::filesystem::path folder_;
};

template <class Span>
auto all(const Span& values) {
  return View<const float>{values.data(), {static_cast<std::int64_t>(values.size())}};
}

KINDRED_PARITY(train_and_evaluate) {
  if constexpr (std::is_same_v<T, float>) {
    const Files files;
    const Experiment experiment = files.experiment("whole");
    auto model = experiment.make_model();
    const FitResult result = experiment.train(model, false);
    side.check(result.steps == 4 && result.best_epoch > 0, "4 steps, and evaluations");
    // Four steps in float: batch norms of few images carry another order of sums on to the rest.
    const double tolerance = 1e-3;
    const std::vector<double> loss{result.loss};
    side.record("loss", View<const double>{loss.data(), {1}}, tolerance);
    side.record("parameters", all(std::as_const(model).trainable()), tolerance);
    side.record("statistics", all(std::as_const(model).statistics()), tolerance);

    auto loaded = experiment.make_model();
    Experiment::load(loaded, experiment.output() / "latest.safetensors");
    auto session = loaded.session();
    auto evaluation = experiment.evaluation();
    const auto retrieval = evaluation([&](const auto& x) { return session.features(x); });
    side.record("features of the checkpoint", evaluation.query_features().features(), tolerance);
    // The ranking itself hangs on near ties after so few steps; features are what is compared.
    side.check(retrieval.per_query.size() == 16, "every image is a query");

    // A function that takes numbers alone gets them from a loader of pixels, too.
    evaluation([](View<const float> x) -> View<const float> {
      return {x.data, {x.dim(0), x.size() / x.dim(0)}};
    });
    side.record("numbers", all(evaluation.query_features().values), 1e-6);
  }
}

// An interrupted run goes on to the bits of one that was not.
KINDRED_PARITY(resume) {
  if constexpr (std::is_same_v<T, float>) {
    const Files files;
    const Experiment whole = files.experiment("whole");
    auto model = whole.make_model();
    whole.train(model, false);
    const Experiment begin = files.experiment("parts", {"Global.epochs=1"});
    auto first = begin.make_model();
    side.check(begin.train(first, false).steps == 2, "the first epoch");
    const Experiment rest = files.experiment("parts");
    auto second = rest.make_model();
    side.check(rest.train(second, true).steps == 4, "the second epoch");
    const auto a = std::as_const(model).trainable(), b = std::as_const(second).trainable();
    side.check(std::equal(a.begin(), a.end(), b.begin(), b.end()), "the same bits");
  }
}

KINDRED_PARITY(divergence) {
  if constexpr (std::is_same_v<T, float>) {
    const Files files;
    const Experiment experiment = files.experiment("diverges", {"Optimizer.lr.learning_rate=1e30"});
    auto model = experiment.make_model();
    side.template check_throws<NumericError>([&] { experiment.train(model, false); },
                                             "lower the learning rate");
    side.template check_throws<ConfigError>([&] { files.experiment("x", {}, other_device); },
                                            "but this program computes on");
  }
}

KINDRED_PARITY(mixed_precision) {
  if constexpr (std::is_same_v<T, float>) {
    const Files files;
    std::vector<Storage> evaluations;
    const auto weights = [&](const std::string& run, const std::vector<std::string>& overrides) {
      const Experiment experiment = files.experiment(run, overrides);
      side.check(experiment.activations() == (overrides.empty() ? Storage::scalar : Storage::bf16),
                 "the storage of the file");
      evaluations.push_back(experiment.evaluation_activations());
      auto model = experiment.make_model();
      const FitResult result = experiment.train(model, false);  // evaluates after every epoch
      side.check(result.steps == 4 && std::isfinite(result.loss), "4 steps");
      const auto w = std::as_const(model).trainable();
      return std::vector<float>(w.begin(), w.end());
    };
    const auto full = weights("full", {}),
               rounded = weights("rounded", {"AMP={use_amp: True, dtype: bfloat16}"}),
               tested =
                   weights("tested", {"AMP={use_amp: True, dtype: bfloat16, use_fp16_test: True}"});
    side.check(rounded != full, "AMP has an effect");  // what it must be: bf16_model
    side.check(tested == rounded, "the mode of evaluation has none on training");
    side.check(evaluations == std::vector{Storage::scalar, Storage::scalar, Storage::bf16},
               "use_fp16_test: True evaluates in BF16");
  }
}

}  // namespace
