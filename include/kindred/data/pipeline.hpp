#pragma once
// Transforms in a row, from a decoded image to its place in the batch.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <opencv2/core.hpp>

#include <kindred/core/error.hpp>
#include <kindred/core/random.hpp>
#include <kindred/data/transforms.hpp>

namespace kindred::data {

template <class T>
concept ImageTransform = requires(const T& t, cv::Mat& image, RandomSequence& random) {
  t(image, random);
};

/// Any transform: one of transforms.hpp, or your own function of (cv::Mat&, RandomSequence&).
class Transform {
 public:
  template <ImageTransform T>
  Transform(T t) {  // NOLINT: a description is a transform
    if constexpr (requires { t.check(); }) t.check();
    if constexpr (std::is_same_v<T, NormalizeImage>) table_ = t.table();
    apply_ = [t = std::move(t)](cv::Mat& image, const cv::Mat& place, RandomSequence& random) {
      // A transform that makes a new image anyway makes it where the batch wants it.
      if constexpr (requires(cv::Mat & out) { t.convert(image, out); }) {
        const bool fits = image.size() == place.size() && place.type() == CV_32FC3;
        cv::Mat out = fits ? place : cv::Mat();
        t.convert(image, out);
        image = out;
      } else {
        t(image, random);
      }
    };
  }
  void operator()(cv::Mat& image, const cv::Mat& place, RandomSequence& random) const {
    apply_(image, place, random);
  }
  /// What NormalizeImage makes of 8-bit pixels; nothing for every other transform.
  const std::optional<PixelTable>& table() const { return table_; }

 private:
  std::optional<PixelTable> table_;
  std::function<void(cv::Mat&, const cv::Mat&, RandomSequence&)> apply_;
};

/// The transforms of a data set, ending in a float RGB image of `size`.
/// Throws ConfigError at construction if a transform's settings make no sense.
class Pipeline {
 public:
  Pipeline(ImageSize size, std::vector<Transform> transforms)
      : size_(size), transforms_(std::move(transforms)) {
    detail::check_size("Pipeline", size);
  }

  const ImageSize& size() const { return size_; }

  /// Transforms `image` (8-bit RGB; its pixels may be overwritten) into `out` [height, width, 3].
  /// Throws ConfigError if the result is not float or not of size(), ImageError if a transform
  /// cannot use this image.
  void operator()(cv::Mat image, RandomSequence& random, float* out) const {
    apply(transforms_.size(), image, random, cv::Mat(size_.height, size_.width, CV_32FC3, out));
  }
  /// The same without the NormalizeImage at the end: its 8-bit pixels, to be looked up in table().
  void operator()(cv::Mat image, RandomSequence& random, std::uint8_t* out) const {
    table();
    apply(transforms_.size() - 1, image, random, cv::Mat(size_.height, size_.width, CV_8UC3, out));
  }
  /// Throws ConfigError if the last transform is not NormalizeImage.
  const PixelTable& table() const {
    if (transforms_.empty() || !transforms_.back().table())
      throw ConfigError(
          "Pipeline: pixels cannot be normalised on the device, as the last transform is not "
          "NormalizeImage; set LoaderConfig::pixels to false");
    return *transforms_.back().table();
  }
  bool ends_in_normalization() const {
    return !transforms_.empty() && transforms_.back().table().has_value();
  }

 private:
  /// The first `count` transforms, into `place`.
  void apply(std::size_t count, cv::Mat& image, RandomSequence& random, cv::Mat place) const {
    for (std::size_t i = 0; i < count; ++i) transforms_[i](image, place, random);
    if (image.type() != place.type())
      throw ConfigError(
          place.type() == CV_32FC3
              ? "Pipeline: the transforms do not end in a float image with 3 channels; add "
                "NormalizeImage"
              : "Pipeline: the image is not 8-bit with 3 channels before the last NormalizeImage");
    if (image.size() != place.size())
      throw ConfigError(text("Pipeline: the transforms end in an image of ", image.cols, " x ",
                             image.rows, ", expected ", size_.width, " x ", size_.height,
                             "; add ResizeImage, CropImage or RandCropImage of that size"));
    if (image.data != place.data) image.copyTo(place);
  }

  ImageSize size_;
  std::vector<Transform> transforms_;
};

/// Training: random part resized to `size`, mirrored or not, normalised (PaddleClas's
/// GeneralRecognition recipe).
inline Pipeline train_transforms(ImageSize size) {
  return {size, {RandCropImage{.size = size}, RandFlipImage{}, NormalizeImage{}}};
}

/// Evaluation: the whole image resized to `size`, normalised (PaddleClas's retrieval recipes).
inline Pipeline eval_transforms(ImageSize size) {
  return {size, {ResizeImage{.size = size}, NormalizeImage{}}};
}

}  // namespace kindred::data
