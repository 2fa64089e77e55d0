#include <kindred/data/pipeline.hpp>
#include <kindred/data/transforms.hpp>

#include <set>

#include "support/catch.hpp"

using namespace kindred;
using namespace kindred::data;

namespace {

RandomSequence sequence(std::uint64_t step) { return RandomSequence({3, 4, step}); }

/// Pixel (x, y) has the colour (x, y, 7).
cv::Mat coordinates(int width, int height) {
  cv::Mat image(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      image.at<cv::Vec3b>(y, x) = cv::Vec3b(static_cast<uchar>(x), static_cast<uchar>(y), 7);
  return image;
}

template <class T>
cv::Mat applied(const T& transform, cv::Mat image, std::uint64_t step = 0) {
  RandomSequence random = sequence(step);
  transform(image, random);
  return image;
}

cv::Size short_side(int width, int height, int target) {
  return applied(ResizeImage{.resize_short = target}, coordinates(width, height)).size();
}

/// Whether a transform with bad settings is refused with a message that has `part`.
template <class T>
void check_refused(const T& transform, const std::string& part) {
  CHECK_THROWS_AS(Transform(transform), ConfigError);
  CHECK_THROWS_WITH(Transform(transform), ContainsSubstring(part));
}

}  // namespace

TEST_CASE("resize: size is width, height; the short side is rounded half to even") {
  CHECK(applied(ResizeImage{.size = 6}, coordinates(9, 4)).size() == cv::Size(6, 6));
  CHECK(applied(ResizeImage{.size = {5, 3}}, coordinates(9, 4)).size() == cv::Size(5, 3));
  CHECK(short_side(640, 480, 256) == cv::Size(341, 256));  // 341.33
  CHECK(short_side(480, 640, 256) == cv::Size(256, 341));
  CHECK(short_side(100, 101, 50) == cv::Size(50, 50));  // 50.5 goes to 50
  CHECK(short_side(100, 103, 50) == cv::Size(50, 52));  // 51.5 goes to 52
  CHECK(short_side(7, 7, 7) == cv::Size(7, 7));
}

TEST_CASE("resize: bilinear with pixel centres at one half") {
  cv::Mat image(1, 2, CV_8UC3);
  image.at<cv::Vec3b>(0, 0) = {0, 100, 8};
  image.at<cv::Vec3b>(0, 1) = {100, 200, 8};
  const cv::Mat wide = applied(ResizeImage{.size = {4, 1}}, image);
  for (int x = 0; x < 4; ++x) {
    const int expected[] = {0, 25, 75, 100};
    CHECK(wide.at<cv::Vec3b>(0, x) ==
          cv::Vec3b(static_cast<uchar>(expected[x]), static_cast<uchar>(expected[x] + 100), 8));
  }
  const cv::Mat nearest =
      applied(ResizeImage{.size = {4, 1}, .interpolation = Interpolation::nearest}, image);
  CHECK(nearest.at<cv::Vec3b>(0, 1)[0] == 0);
  CHECK(nearest.at<cv::Vec3b>(0, 2)[0] == 100);
}

TEST_CASE("crop: the centre, offsets rounded down") {
  const cv::Mat part = applied(CropImage{.size = {4, 2}}, coordinates(9, 7));
  REQUIRE(part.size() == cv::Size(4, 2));
  CHECK(part.at<cv::Vec3b>(0, 0) == cv::Vec3b(2, 2, 7));  // (9 - 4) / 2, (7 - 2) / 2
  CHECK(part.at<cv::Vec3b>(1, 3) == cv::Vec3b(5, 3, 7));
  CHECK_THROWS_AS(applied(CropImage{.size = 8}, coordinates(9, 7)), ImageError);
  CHECK_THROWS_WITH(applied(CropImage{.size = 8}, coordinates(9, 7)),
                    ContainsSubstring("9 x 7, smaller than 8 x 8; put a ResizeImage before"));
}

TEST_CASE("random crop: area and aspect within their ranges, anywhere in the image") {
  const RandCropImage crop{.size = 10, .scale = {0.2, 0.5}, .ratio = {0.5, 2}};
  std::set<int> left, top;
  double least = 1, most = 0;
  for (std::uint64_t step = 0; step < 2000; ++step) {
    RandomSequence random = sequence(step);
    const cv::Rect part = crop.draw(200, 100, random);
    CHECK((cv::Rect(0, 0, 200, 100) & part) == part);
    const double area = part.area() / 20000.0, aspect = 1.0 * part.width / part.height;
    CHECK(area <= 0.5);
    CHECK(area > 0.19);  // both sides are rounded down
    CHECK(aspect < 2.1);
    CHECK(aspect > 0.48);
    least = std::min(least, area);
    most = std::max(most, area);
    left.insert(part.x);
    top.insert(part.y);
  }
  CHECK(least < 0.22);
  CHECK(most > 0.45);
  CHECK(left.size() > 100);
  CHECK(top.size() > 50);
  CHECK(applied(crop, coordinates(200, 100)).size() == cv::Size(10, 10));
}

TEST_CASE("random crop: the part is bounded by the image, and one pixel is an image") {
  for (std::uint64_t step = 0; step < 200; ++step) {
    RandomSequence random = sequence(step);
    // Aspect 1 in an image of 4 : 1 can cover a quarter at most.
    const cv::Rect part =
        RandCropImage{.size = 4, .scale = {1, 1}, .ratio = {1, 1}}.draw(400, 100, random);
    CHECK(part.size() == cv::Size(100, 100));
    CHECK(RandCropImage{.size = 4}.draw(1, 1, random) == cv::Rect(0, 0, 1, 1));
    const cv::Rect line = RandCropImage{.size = 4}.draw(300, 1, random);
    CHECK((line.width >= 1 && line.height == 1));
  }
}

TEST_CASE("flip: half of the images, the given axis") {
  int flipped = 0;
  for (std::uint64_t step = 0; step < 1000; ++step) {
    const cv::Vec3b corner = applied(RandFlipImage{}, coordinates(5, 3), step).at<cv::Vec3b>(1, 0);
    CHECK((corner == cv::Vec3b(0, 1, 7) || corner == cv::Vec3b(4, 1, 7)));
    flipped += corner[0] == 4;
    const cv::Vec3b both =
        applied(RandFlipImage{.flip_code = -1}, coordinates(5, 3), step).at<cv::Vec3b>(0, 0);
    CHECK((both == cv::Vec3b(0, 0, 7) || both == cv::Vec3b(4, 2, 7)));
  }
  CHECK(flipped > 430);
  CHECK(flipped < 570);
}

TEST_CASE("normalize: (x scale - mean) / std per RGB channel") {
  cv::Mat image(1, 2, CV_8UC3);
  image.at<cv::Vec3b>(0, 0) = {0, 128, 255};
  image.at<cv::Vec3b>(0, 1) = {255, 0, 1};
  cv::Mat floats;
  image.convertTo(floats, CV_32FC3);
  for (const cv::Mat& input : {image, floats}) {
    const cv::Mat out = applied(NormalizeImage{}, input);
    REQUIRE(out.type() == CV_32FC3);
    CHECK(out.at<cv::Vec3f>(0, 0)[0] == Approx(-2.117904));  // (0 - 0.485) / 0.229
    CHECK(out.at<cv::Vec3f>(0, 0)[1] == Approx(0.205182));   // (128 / 255 - 0.456) / 0.224
    CHECK(out.at<cv::Vec3f>(0, 0)[2] == Approx(2.640000));   // (1 - 0.406) / 0.225
    CHECK(out.at<cv::Vec3f>(0, 1)[0] == Approx(2.248908));   // (1 - 0.485) / 0.229
    const NormalizeImage other{.scale = 1, .mean = {1, 2, 3}, .std = {2, 4, 8}};
    CHECK(applied(other, input).at<cv::Vec3f>(0, 0)[2] == Approx(31.5));
  }
}

TEST_CASE("random erasing: one rectangle with area and aspect within their ranges") {
  const RandomErasing erase{.EPSILON = 1, .mean = {5, 6, 7}};
  double least = 1, most = 0;
  for (std::uint64_t step = 0; step < 500; ++step) {
    const cv::Mat image = applied(erase, cv::Mat(60, 80, CV_32FC3, cv::Scalar(1, 1, 1)), step);
    cv::Mat erased;
    cv::inRange(image, cv::Scalar(5, 6, 7), cv::Scalar(5, 6, 7), erased);
    const cv::Rect hole = cv::boundingRect(erased);
    CHECK(cv::countNonZero(erased) == hole.area());
    CHECK(cv::sum(image)[0] == 60 * 80 + 4 * hole.area());
    const double area = hole.area() / 4800.0, aspect = 1.0 * hole.height / hole.width;
    CHECK((area > 0.015 && area < 0.42));
    CHECK((aspect > 0.25 && aspect < 4));
    least = std::min(least, area);
    most = std::max(most, area);
  }
  CHECK(least < 0.05);
  CHECK(most > 0.37);
}

TEST_CASE("random erasing: how often and with what") {
  int erased = 0;
  for (std::uint64_t step = 0; step < 1000; ++step)
    erased += cv::sum(applied(RandomErasing{.EPSILON = 0.3},
                              cv::Mat(20, 20, CV_32FC3, cv::Scalar(1, 1, 1)), step))[0] < 400;
  CHECK(erased > 240);
  CHECK(erased < 360);

  const cv::Mat zero = cv::Mat::zeros(50, 50, CV_32FC3);
  auto colours = [&](RandomErasing::Mode mode) {
    const cv::Mat image =
        applied(RandomErasing{.EPSILON = 1, .sl = 0.3, .mode = mode}, zero.clone());
    std::set<float> values;
    for (int y = 0; y < 50; ++y)
      for (int x = 0; x < 50; ++x) values.insert(image.at<cv::Vec3f>(y, x)[1]);
    return values.size();
  };
  CHECK(colours(RandomErasing::Mode::constant) == 1);
  CHECK(colours(RandomErasing::Mode::rand) == 2);
  CHECK(colours(RandomErasing::Mode::pixel) > 500);
  // Nothing fits in one pixel; the image stays.
  CHECK(cv::sum(applied(RandomErasing{.EPSILON = 1, .mean = {5, 5, 5}},
                        cv::Mat(1, 1, CV_32FC3, cv::Scalar(1, 1, 1))))[0] == 1);
  CHECK_THROWS_WITH(applied(RandomErasing{}, coordinates(4, 4)),
                    ContainsSubstring("put it after NormalizeImage"));
}

TEST_CASE("transforms: bad settings name transform and key") {
  check_refused(ResizeImage{}, "ResizeImage: set either size or resize_short");
  check_refused(ResizeImage{.size = 4, .resize_short = 5}, "ResizeImage: set either");
  check_refused(ResizeImage{.size = {4, 0}}, "ResizeImage: size is 4 x 0");
  check_refused(ResizeImage{.resize_short = -3}, "ResizeImage: set either");
  check_refused(CropImage{}, "CropImage: size is 0 x 0");
  check_refused(RandCropImage{.size = -1}, "RandCropImage: size");
  check_refused(RandCropImage{.size = 4, .scale = {0.5, 0.1}}, "RandCropImage: scale");
  check_refused(RandCropImage{.size = 4, .ratio = {0, 1}}, "RandCropImage: ratio");
  check_refused(RandFlipImage{.flip_code = 2}, "RandFlipImage: flip_code is 2");
  check_refused(NormalizeImage{.std = {1, 0, 1}}, "NormalizeImage: std");
  check_refused(NormalizeImage{.scale = NAN}, "NormalizeImage");
  check_refused(RandomErasing{.EPSILON = 1.5}, "RandomErasing: EPSILON");
  check_refused(RandomErasing{.sl = 0.5}, "RandomErasing: sl, sh");
  check_refused(RandomErasing{.r1 = 0}, "RandomErasing: r1");
  check_refused(RandomErasing{.attempt = 0}, "RandomErasing: attempt");
}

TEST_CASE("pipeline: the result is in the given memory, wherever the float image is made") {
  const cv::Mat input = coordinates(40, 30);
  const std::vector<Transform> normalize_last{ResizeImage{.size = {8, 6}}, NormalizeImage{}};
  const std::vector<Transform> normalize_first{NormalizeImage{}, CropImage{.size = {8, 6}}};
  const std::vector<Transform> own{
      ResizeImage{.size = {8, 6}}, NormalizeImage{},
      [](cv::Mat& image, RandomSequence&) { cv::flip(image.clone(), image, 0); }};
  for (const auto& transforms : {normalize_last, normalize_first, own}) {
    std::vector<float> out(8 * 6 * 3 + 1, -77.0f);
    RandomSequence random = sequence(0);
    Pipeline({8, 6}, transforms)(input.clone(), random, out.data());
    CHECK(out.back() == -77.0f);
    CHECK(std::count(out.begin(), out.end(), -77.0f) == 1);
    for (std::size_t i = 2; i < 8 * 6 * 3; i += 3)
      CHECK(out[i] == Approx((7 / 255.0 - 0.406) / 0.225));
  }
}

TEST_CASE("pipeline: what it does is the transforms one after the other") {
  const Pipeline pipeline = train_transforms(16);
  const cv::Mat input = coordinates(50, 41);
  std::vector<float> out(16 * 16 * 3);
  RandomSequence random = sequence(5), again = sequence(5);
  pipeline(input.clone(), random, out.data());
  cv::Mat expected = input.clone();
  RandCropImage{.size = 16}(expected, again);
  RandFlipImage{}(expected, again);
  NormalizeImage{}(expected, again);
  CHECK(cv::norm(cv::Mat(16, 16, CV_32FC3, out.data()), expected, cv::NORM_INF) == 0);
}

TEST_CASE("pipeline: a wrong end is named") {
  std::vector<float> out(64 * 64 * 3);
  RandomSequence random = sequence(0);
  CHECK_THROWS_WITH(Pipeline(8, {ResizeImage{.size = 8}})(coordinates(9, 9), random, out.data()),
                    ContainsSubstring("add NormalizeImage"));
  CHECK_THROWS_WITH(Pipeline(8, {ResizeImage{.size = 9}, NormalizeImage{}})(coordinates(9, 9),
                                                                            random, out.data()),
                    ContainsSubstring("end in an image of 9 x 9, expected 8 x 8"));
  CHECK_THROWS_AS(Pipeline({0, 8}, {}), ConfigError);
}
