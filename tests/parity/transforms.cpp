// Image transforms against PaddleClas with its OpenCV backend.

#include <kindred/data/transforms.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::data;
using namespace kindred::test;

namespace {

template <class Transform>
cv::Mat applied(const Transform& transform, const cv::Mat& image) {
  RandomSequence random({1, 2, 3});
  transform.check();
  cv::Mat out = image.clone();
  transform(out, random);
  return out.clone();  // a crop is a view
}

template <class T>
std::vector<T> pixels(const cv::Mat& image) {
  REQUIRE(image.isContinuous());
  const T* begin = image.ptr<T>();
  return std::vector<T>(begin, begin + image.total() * 3);
}

/// Every byte within `limit` grey levels; a constant reference would prove nothing.
void check_bytes(const Fixture& one, const std::string& name, const cv::Mat& image, int limit = 0) {
  INFO(name);
  const auto& e = one.extents("out." + name);
  REQUIRE(image.type() == CV_8UC3);
  REQUIRE(e == std::vector<std::int64_t>{image.rows, image.cols, 3});
  const auto expected = one.bytes("out." + name);
  const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
  REQUIRE(*high - *low > 50);
  const auto got = pixels<unsigned char>(image);
  int worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::abs(int(got[i]) - int(expected[i])));
  CHECK(worst <= limit);
}

void check_floats(const Fixture& one, const std::string& name, const cv::Mat& image) {
  INFO(name);
  REQUIRE(image.type() == CV_32FC3);
  const auto& e = one.extents("out." + name);
  auto expected = one.stored<float>("out." + name);
  if (name.find("_chw") != std::string::npos) {
    REQUIRE(e == std::vector<std::int64_t>{3, image.rows, image.cols});
    expected = nhwc(expected, {1, e[0], e[1], e[2]});
  } else {
    REQUIRE(e == std::vector<std::int64_t>{image.rows, image.cols, 3});
  }
  CHECK(relative_difference(pixels<float>(image), expected) < 1e-6);
}

}  // namespace

TEST_CASE("parity: decoding, resizing, cropping, normalising") {
  const Fixture fixture("transforms");
  REQUIRE(fixture.cases() == std::vector<std::string>{"wide", "tall"});
  for (const std::string& name : fixture.cases()) {
    INFO(name);
    const Fixture one = fixture.at(name);
    const auto png = one.bytes("in.png");
    const cv::Mat rgb = DecodeImage{}(Bytes(png));
    check_bytes(one, "decoded", rgb);
    check_bytes(one, "decoded_bgr", DecodeImage{.to_rgb = false}(Bytes(png)));

    const cv::Mat small = applied(ResizeImage{.size = 8}, rgb);
    check_bytes(one, "resize_8", small);
    check_bytes(one, "resize_w13_h9", applied(ResizeImage{.size = {13, 9}}, rgb));
    check_bytes(one, "resize_32", applied(ResizeImage{.size = 32}, rgb));
    // Builds of OpenCV with Intel's IPP, as the reference's, round bicubic sums differently.
    check_bytes(one, "resize_16_bicubic",
                applied(ResizeImage{.size = 16, .interpolation = Interpolation::bicubic}, rgb), 1);
    check_bytes(one, "resize_short_20", applied(ResizeImage{.resize_short = 20}, rgb));
    const cv::Mat brief = applied(ResizeImage{.resize_short = 11}, rgb);
    check_bytes(one, "resize_short_11", brief);
    check_bytes(one, "resize_short_11_crop_8", applied(CropImage{.size = 8}, brief));
    check_bytes(one, "resize_short_11_crop_w10_h7", applied(CropImage{.size = {10, 7}}, brief));

    const cv::Mat normalised = applied(NormalizeImage{}, small);
    for (const char* like : {"normalised_hwc", "normalised_chw", "chw_normalised_chw"})
      check_floats(one, like, normalised);
    check_floats(
        one, "normalised_scale_0_00392157",
        applied(
            NormalizeImage{.scale = 0.00392157, .mean = {0.5, 0.4, 0.3}, .std = {0.2, 0.25, 0.3}},
            small));
    // From float pixels the same.
    cv::Mat as_float;
    small.convertTo(as_float, CV_32FC3);
    check_floats(one, "normalised_hwc", applied(NormalizeImage{}, as_float));
    CHECK(one.names("out").size() == 14);
  }
}
