#pragma once
// What happens to an image before the network sees it, in PaddleClas's names and conventions.
//
// An image is a cv::Mat in RGB order, 8-bit until NormalizeImage makes it float. A transform is a
// description with `operator()(cv::Mat& image, RandomSequence&) const`; a random one draws from the
// given sequence alone. A transform may write into the pixels of the image it is given. `check()`
// throws ConfigError for settings that make no sense.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include <kindred/core/error.hpp>
#include <kindred/core/random.hpp>
#include <kindred/data/decode.hpp>
#include <kindred/kernels/normalize_images.hpp>

namespace kindred::data {

/// Width and height in pixels; one number for a square. Lists in PaddleClas's files are [w, h] too.
struct ImageSize {
  int width = 0, height = 0;

  constexpr ImageSize() = default;
  constexpr ImageSize(int side) : width(side), height(side) {}  // NOLINT: a number is a size
  constexpr ImageSize(int w, int h) : width(w), height(h) {}
  bool positive() const { return width > 0 && height > 0; }
  cv::Size cv() const { return {width, height}; }
  friend constexpr bool operator==(const ImageSize&, const ImageSize&) = default;
};

enum class Interpolation {
  nearest = cv::INTER_NEAREST,
  bilinear = cv::INTER_LINEAR,
  area = cv::INTER_AREA,
  bicubic = cv::INTER_CUBIC,
  lanczos = cv::INTER_LANCZOS4,
};

namespace detail {

inline void resize(cv::Mat& image, cv::Size size, Interpolation interpolation) {
  if (image.size() == size) return;
  cv::Mat out;
  cv::resize(image, out, size, 0, 0, static_cast<int>(interpolation));
  image = out;
}

inline void check_size(const char* transform, const ImageSize& size) {
  if (!size.positive())
    throw ConfigError(
        text(transform, ": size is ", size.width, " x ", size.height, ", both must be >= 1"));
}

inline void check_range(const char* transform, const char* key, double low, double high,
                        double least, double most) {
  if (!(least <= low && low <= high && high <= most))
    throw ConfigError(text(transform, ": ", key, " is [", low, ", ", high,
                           "], must be ascending and within [", least, ", ", most, "]"));
}

}  // namespace detail

/// Resizes to `size`, or so that the shorter side becomes `resize_short` (the sides are rounded
/// half to even, as Python's round() does).
struct ResizeImage {
  ImageSize size{};
  int resize_short = 0;
  Interpolation interpolation = Interpolation::bilinear;

  void check() const {
    if (resize_short < 0 || (resize_short == 0) == (size == ImageSize{}))
      throw ConfigError("ResizeImage: set either size or resize_short, to a positive number");
    if (resize_short == 0) detail::check_size("ResizeImage", size);
  }
  void operator()(cv::Mat& image, RandomSequence&) const {
    cv::Size target = size.cv();
    if (resize_short > 0) {
      const double percent = static_cast<double>(resize_short) / std::min(image.cols, image.rows);
      target = {static_cast<int>(std::nearbyint(image.cols * percent)),
                static_cast<int>(std::nearbyint(image.rows * percent))};
    }
    detail::resize(image, target, interpolation);
  }
};

/// Takes the centre: rows from (H - height) / 2 and columns from (W - width) / 2, rounded down.
/// Throws ImageError if the image is smaller.
struct CropImage {
  ImageSize size{};

  void check() const { detail::check_size("CropImage", size); }
  void operator()(cv::Mat& image, RandomSequence&) const {
    if (image.cols < size.width || image.rows < size.height)
      throw ImageError(ImageFault::unfit, text("CropImage: the image is ", image.cols, " x ",
                                               image.rows, ", smaller than ", size.width, " x ",
                                               size.height, "; put a ResizeImage before"));
    image = image(cv::Rect((image.cols - size.width) / 2, (image.rows - size.height) / 2,
                           size.width, size.height));
  }
};

/// Cuts a random part and resizes it: aspect a from U(ratio) (its logarithm with use_log_aspect),
/// area A from U(scale) of the image, bounded so that the part fits; w = int(sqrt(A a)),
/// h = int(sqrt(A / a)), at least 1; uniform position. Source: PaddleClas's RandCropImage.
struct RandCropImage {
  ImageSize size{};
  std::array<double, 2> scale{0.08, 1.0};
  std::array<double, 2> ratio{3.0 / 4.0, 4.0 / 3.0};
  bool use_log_aspect = false;
  Interpolation interpolation = Interpolation::bilinear;

  void check() const {
    detail::check_size("RandCropImage", size);
    detail::check_range("RandCropImage", "scale", scale[0], scale[1], 0, 1);
    detail::check_range("RandCropImage", "ratio", ratio[0], ratio[1], 1e-3, 1e3);
  }
  /// The part that is cut from an image of that size.
  cv::Rect draw(int image_width, int image_height, RandomSequence& random) const {
    const double width = image_width, height = image_height;
    const double aspect = use_log_aspect
                              ? std::exp(random.uniform(std::log(ratio[0]), std::log(ratio[1])))
                              : random.uniform(ratio[0], ratio[1]);
    const double bound = std::min(width / height / aspect, height / width * aspect);
    const double area =
        width * height * random.uniform(std::min(scale[0], bound), std::min(scale[1], bound));
    // The bound holds up to rounding, hence the second limit.
    const int w = std::clamp(static_cast<int>(std::sqrt(area * aspect)), 1, image_width);
    const int h = std::clamp(static_cast<int>(std::sqrt(area / aspect)), 1, image_height);
    const auto x = random.below(static_cast<std::uint64_t>(image_width - w) + 1);
    const auto y = random.below(static_cast<std::uint64_t>(image_height - h) + 1);
    return {static_cast<int>(x), static_cast<int>(y), w, h};
  }
  void operator()(cv::Mat& image, RandomSequence& random) const {
    image = image(draw(image.cols, image.rows, random));
    detail::resize(image, size.cv(), interpolation);
  }
};

/// With probability 1/2 mirrors left and right (flip_code 1), up and down (0) or both (-1).
struct RandFlipImage {
  int flip_code = 1;

  void check() const {
    if (flip_code < -1 || flip_code > 1)
      throw ConfigError(text("RandFlipImage: flip_code is ", flip_code, ", must be -1, 0 or 1"));
  }
  void operator()(cv::Mat& image, RandomSequence& random) const {
    if (random.below(2) == 0) return;
    cv::Mat out;
    cv::flip(image, out, flip_code);
    image = out;
  }
};

/// (x scale - mean) / std per channel in float, from 8-bit or float pixels.
struct NormalizeImage {
  double scale = 1.0 / 255.0;
  std::array<double, 3> mean{0.485, 0.456, 0.406};
  std::array<double, 3> std{0.229, 0.224, 0.225};

  void check() const {
    for (double s : std)
      if (!(s > 0)) throw ConfigError(text("NormalizeImage: std has ", s, ", must be > 0"));
    for (double v : {scale, mean[0], mean[1], mean[2]})
      if (!std::isfinite(v)) throw ConfigError(text("NormalizeImage: ", v, " is not finite"));
  }
  void operator()(cv::Mat& image, RandomSequence&) const {
    cv::Mat out;
    convert(image, out);
    image = out;
  }
  /// Writes into `out`, whose memory is used if it has the size of the image.
  void convert(const cv::Mat& image, cv::Mat& out) const {
    out.create(image.size(), CV_32FC3);
    if (image.type() == CV_8UC3) {
      const PixelTable of_values = table();
      fill<unsigned char>(
          image, out, [&of_values](unsigned char v, std::size_t c) { return of_values.at(v, c); });
    } else if (image.type() == CV_32FC3) {
      fill<float>(image, out, [this](float v, std::size_t c) { return at(v, c); });
    } else {
      throw ConfigError("NormalizeImage: the image is neither 8-bit nor float with 3 channels");
    }
  }
  /// The results for all 8-bit pixels.
  PixelTable table() const {
    PixelTable of_values;
    for (std::size_t v = 0; v < 256; ++v)
      for (std::size_t c = 0; c < 3; ++c) of_values.value[3 * v + c] = at(static_cast<float>(v), c);
    return of_values;
  }

 private:
  float at(float value, std::size_t c) const {
    return (value * static_cast<float>(scale) - static_cast<float>(mean[c])) /
           static_cast<float>(std[c]);
  }
  template <class From, class F>
  static void fill(const cv::Mat& image, cv::Mat& out, F&& value) {
    for (int y = 0; y < image.rows; ++y) {
      const From* from = image.ptr<From>(y);
      float* to = out.ptr<float>(y);
      for (int x = 0; x < image.cols; ++x, from += 3, to += 3)
        for (std::size_t c = 0; c < 3; ++c) to[c] = value(from[c], c);
    }
  }
};

/// With probability EPSILON overwrites a rectangle: area from U(sl, sh) of the image, aspect h / w
/// from U(r1, 1 / r1) (its logarithm with use_log_aspect), uniform position; up to `attempt` draws
/// until one is smaller than the image on both sides. Works on the float image, so it stands after
/// NormalizeImage: mean 0 is the mean colour there. Source: Zhong et al., "Random erasing data
/// augmentation", AAAI 2020; PaddleClas's RandomErasing.
struct RandomErasing {
  enum class Mode {
    constant,  ///< the colour `mean` ("const" in PaddleClas)
    rand,      ///< one colour from N(0, 1)
    pixel,     ///< every value from N(0, 1)
  };

  double EPSILON = 0.5;
  double sl = 0.02;
  double sh = 0.4;
  double r1 = 0.3;
  std::array<float, 3> mean{0, 0, 0};
  int attempt = 100;
  bool use_log_aspect = false;
  Mode mode = Mode::constant;

  void check() const {
    detail::check_range("RandomErasing", "EPSILON", 0, EPSILON, 0, 1);
    detail::check_range("RandomErasing", "sl, sh", sl, sh, 0, 1);
    detail::check_range("RandomErasing", "r1", r1, r1, 1e-3, 1);
    if (attempt < 1)
      throw ConfigError(text("RandomErasing: attempt is ", attempt, ", must be >= 1"));
  }
  void operator()(cv::Mat& image, RandomSequence& random) const {
    if (image.type() != CV_32FC3)
      throw ConfigError("RandomErasing: the image is not float; put it after NormalizeImage");
    if (random.uniform() > EPSILON) return;
    const cv::Rect hole = draw(image.cols, image.rows, random);
    std::array<float, 3> colour = mean;
    auto normal = [&random] { return static_cast<float>(random.normal()); };
    if (mode == Mode::rand) std::generate(colour.begin(), colour.end(), normal);
    for (int y = hole.y; y < hole.y + hole.height; ++y) {
      float* pixel = image.ptr<float>(y) + 3 * hole.x;
      for (int x = 0; x < hole.width; ++x)
        for (std::size_t c = 0; c < 3; ++c) *pixel++ = mode == Mode::pixel ? normal() : colour[c];
    }
  }
  /// The rectangle to erase; empty if no attempt fits.
  cv::Rect draw(int width, int height, RandomSequence& random) const {
    for (int i = 0; i < attempt; ++i) {
      const double area = random.uniform(sl, sh) * width * height;
      const double aspect = use_log_aspect ? std::exp(random.uniform(std::log(r1), -std::log(r1)))
                                           : random.uniform(r1, 1 / r1);
      const int h = static_cast<int>(std::nearbyint(std::sqrt(area * aspect)));
      const int w = static_cast<int>(std::nearbyint(std::sqrt(area / aspect)));
      if (w >= width || h >= height) continue;
      const auto y = random.below(static_cast<std::uint64_t>(height - h) + 1);
      const auto x = random.below(static_cast<std::uint64_t>(width - w) + 1);
      return {static_cast<int>(x), static_cast<int>(y), w, h};
    }
    return {};
  }
};

}  // namespace kindred::data
