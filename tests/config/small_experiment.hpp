#pragma once
// A small experiment from YAML with images of its own: 4 classes of 4, of 24 x 24 pixels.

#include <string>
#include <vector>

#include <opencv2/imgcodecs.hpp>

#include "io/files.hpp"
#include "rec/experiment.hpp"

namespace kindred::test {

inline constexpr const char* small_yaml = R"(
Global: {device: cpu, output_dir: FOLDER/output, seed: 5, epochs: 2, image_shape: [3, 32, 32]}
Arch:
  Backbone: {name: PPLCNet_x0_25, class_expand: 32, dropout_prob: 0}
  BackboneStopLayer: {name: flatten}
  Neck: {name: FC, embedding_size: 32, class_num: 16}
  Head: {name: ArcMargin, embedding_size: 16, class_num: 4, margin: 0.1, scale: 8}
Loss:
  Train:
    - CELoss: {weight: 1.0}
Optimizer:
  name: Momentum
  lr: {name: Constant, learning_rate: 0.01}
DataLoader:
  Train:
    dataset: &dataset
      name: ImageNetDataset
      image_root: FOLDER
      cls_label_path: FOLDER/list.txt
      transform_ops:
        - ResizeImage: {size: 32}
        - NormalizeImage: {scale: 1.0/255.0, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
    sampler: {name: BatchSampler, batch_size: 8, shuffle: True, drop_last: True}
    loader: {num_workers: 0}
  Eval:
    dataset: *dataset
    sampler: {name: BatchSampler, batch_size: 8}
    loader: {num_workers: 0}
Metric:
  Eval:
    - Recallk: {topk: [1, 2]}
)";

/// The images, their list, and experiments on them.
class SmallExperiment {
 public:
  SmallExperiment() {
    std::string list, supers, first, second;
    RandomSequence random({3, 0, 0});
    for (int i = 0; i < 16; ++i) {
      cv::Mat image(24, 24, CV_8UC3, cv::Scalar(60 * (i / 4), 255 - 60 * (i / 4), 20 * (i % 4)));
      image.at<cv::Vec3b>(static_cast<int>(random.below(24)), 5) = {255, 255, 255};
      REQUIRE(cv::imwrite((folder_ / (std::to_string(i) + ".png")).string(), image));
      list += text(i, ".png ", i / 4, "\n");
      supers += text(i, ".png ", i / 8, "\n");
      (i < 8 ? first : second) += text(i, ".png ", i / 4, "\n");
    }
    write_bytes(folder_ / "list.txt", list);
    write_bytes(folder_ / "supers.txt", supers);
    write_bytes(folder_ / "first.txt", first);
    write_bytes(folder_ / "second.txt", second);
  }

  std::filesystem::path folder() const { return folder_.path(); }
  /// FOLDER in the overrides is the folder of the images.
  config::Experiment operator()(std::vector<std::string> overrides = {}) const {
    write_bytes(folder_ / "config.yaml", placed(small_yaml));
    for (std::string& o : overrides) o = placed(o);
    return config::Experiment(folder_ / "config.yaml", overrides);
  }
  /// The ConfigError of reading the file, or of what f does with the experiment.
  template <class F>
  std::string refused(const std::vector<std::string>& overrides, F&& f) const {
    try {
      f((*this)(overrides));
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "nothing was thrown";
  }
  std::string refused(const std::vector<std::string>& overrides) const {
    return refused(overrides, [](const auto&) {});
  }

 private:
  std::string placed(std::string words) const {
    for (std::size_t at = 0; (at = words.find("FOLDER")) != std::string::npos;)
      words.replace(at, 6, folder_.path().string());
    return words;
  }
  TemporaryFolder folder_;
};

/// The mean colours of an image, around 0: features that tell the classes apart.
class MeanColours {
 public:
  View<const float> operator()(View<const float> x) {
    const std::int64_t area = x.dim(1) * x.dim(2);
    values_.assign(static_cast<std::size_t>(3 * x.dim(0)), 0.f);
    for (std::int64_t i = 0; i < x.size(); ++i)
      values_[static_cast<std::size_t>(i / (3 * area) * 3 + i % 3)] += x[i] / float(area);
    return {values_.data(), {x.dim(0), 3}};
  }

 private:
  std::vector<float> values_;
};

}  // namespace kindred::test
