#include <kindred/data/decode.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "io/files.hpp"

using namespace kindred;
using namespace kindred::data;
using namespace kindred::test;

namespace {

using File = std::vector<unsigned char>;

/// Keeps the complaints of libjpeg and libpng about damaged files off the terminal.
class QuietErrors {
 public:
  QuietErrors() : kept_(::dup(2)) {
    const int nowhere = ::open("/dev/null", O_WRONLY);
    ::dup2(nowhere, 2);
    ::close(nowhere);
  }
  ~QuietErrors() {
    ::dup2(kept_, 2);
    ::close(kept_);
  }

 private:
  int kept_;
};

/// An image whose every pixel differs, in BGR as OpenCV writes it.
cv::Mat pattern(int width, int height) {
  cv::Mat image(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      image.at<cv::Vec3b>(y, x) = cv::Vec3b(static_cast<uchar>(x * 7), static_cast<uchar>(y * 5),
                                            static_cast<uchar>(x + y * 3));
  return image;
}

File encoded(const char* extension, const cv::Mat& image, const std::vector<int>& flags = {}) {
  File file;
  REQUIRE(cv::imencode(extension, image, file, flags));
  return file;
}

/// The fault with which decoding fails; fails the test if it does not.
ImageFault fault_of(const File& file, const DecodeImage& decode = {}) {
  try {
    decode(Bytes(file));
  } catch (const ImageError& e) {
    return e.fault();
  }
  FAIL("the file was decoded");
  return {};
}

std::vector<std::pair<std::string, File>> all_formats() {
  const cv::Mat image = pattern(37, 23);
  return {{"png", encoded(".png", image)},
          {"jpeg", encoded(".jpg", image)},
          {"progressive jpeg", encoded(".jpg", image, {cv::IMWRITE_JPEG_PROGRESSIVE, 1})},
          {"jpeg with restarts", encoded(".jpg", image, {cv::IMWRITE_JPEG_RST_INTERVAL, 1})},
          {"bmp", encoded(".bmp", image)},
          {"webp", encoded(".webp", image, {cv::IMWRITE_WEBP_QUALITY, 80})},
          {"lossless webp", encoded(".webp", image, {cv::IMWRITE_WEBP_QUALITY, 101})}};
}

}  // namespace

TEST_CASE("decode: RGB order, 8 bit, 3 channels") {
  const cv::Mat image = pattern(37, 23);
  for (const char* lossless : {".png", ".bmp"}) {
    const cv::Mat rgb = DecodeImage{}(Bytes(encoded(lossless, image)));
    REQUIRE(rgb.type() == CV_8UC3);
    REQUIRE(rgb.size() == image.size());
    const auto stored = image.at<cv::Vec3b>(11, 6), got = rgb.at<cv::Vec3b>(11, 6);
    CHECK(got == cv::Vec3b(stored[2], stored[1], stored[0]));
    CHECK(DecodeImage{.to_rgb = false}(Bytes(encoded(lossless, image))).at<cv::Vec3b>(11, 6) ==
          stored);
  }
  const cv::Mat gray = DecodeImage{}(Bytes(encoded(".png", cv::Mat(4, 5, CV_8UC1, cv::Scalar(9)))));
  CHECK(gray.at<cv::Vec3b>(3, 4) == cv::Vec3b(9, 9, 9));
}

TEST_CASE("decode: every format is read whole and refused when truncated anywhere") {
  for (const auto& [name, whole] : all_formats()) {
    INFO(name);
    const data::detail::ImageHeader header = data::detail::image_header(Bytes(whole));
    CHECK(header.width == 37);
    CHECK(header.height == 23);
    CHECK(DecodeImage{}(Bytes(whole)).size() == cv::Size(37, 23));
    File longer = whole;
    longer.insert(longer.end(), 100, 0);  // some cameras append data
    CHECK(DecodeImage{}(Bytes(longer)).size() == cv::Size(37, 23));
    for (std::size_t n = 1; n < whole.size(); n += 1 + n / 50) {
      INFO(n << " of " << whole.size() << " bytes");
      const ImageFault fault = fault_of(File(whole.begin(), whole.begin() + static_cast<long>(n)));
      CHECK((fault == ImageFault::truncated || (n < 12 && fault == ImageFault::not_an_image)));
    }
  }
}

TEST_CASE("decode: the end of a thumbnail is not the end of a JPEG") {
  const File thumbnail = encoded(".jpg", pattern(16, 16)), photo = encoded(".jpg", pattern(64, 64));
  File file(photo.begin(), photo.begin() + 2);
  const std::size_t length = thumbnail.size() + 2;
  REQUIRE(length < 65536);
  for (std::size_t byte : {std::size_t{0xFF}, std::size_t{0xE1}, length >> 8, length & 0xFF})
    file.push_back(static_cast<unsigned char>(byte));
  file.insert(file.end(), thumbnail.begin(), thumbnail.end());
  file.insert(file.end(), photo.begin() + 2, photo.end());
  CHECK(DecodeImage{}(Bytes(file)).size() == cv::Size(64, 64));
  file.resize(file.size() - 20);
  CHECK(fault_of(file) == ImageFault::truncated);
}

TEST_CASE("decode: hostile headers are refused before memory is taken") {
  File png = encoded(".png", pattern(8, 8));
  png[16] = 0x7F;  // width 2^31
  CHECK(fault_of(png) == ImageFault::too_large);
  File jpeg = encoded(".jpg", pattern(8, 8));
  for (std::size_t i = 2; i + 8 < jpeg.size(); ++i)
    if (jpeg[i] == 0xFF && jpeg[i + 1] == 0xC0)
      for (std::size_t j = 5; j < 9; ++j) jpeg[i + j] = 0xFF;  // 65535 x 65535
  CHECK(fault_of(jpeg) == ImageFault::too_large);
  File bmp = encoded(".bmp", pattern(8, 8));
  bmp[21] = bmp[25] = 0x7F;
  CHECK(fault_of(bmp) == ImageFault::too_large);
  CHECK(fault_of(encoded(".png", pattern(101, 100)), {.max_pixels = 10000}) ==
        ImageFault::too_large);
  CHECK(DecodeImage{.max_pixels = 10000}(Bytes(encoded(".png", pattern(100, 100)))).cols == 100);
}

TEST_CASE("decode: other files") {
  const QuietErrors quiet;
  const std::string words = "a text file that is called an image";
  CHECK(fault_of({}) == ImageFault::empty);
  CHECK(fault_of(File(words.begin(), words.end())) == ImageFault::not_an_image);
  CHECK(fault_of(File(100, 0)) == ImageFault::not_an_image);
  File png = encoded(".png", pattern(37, 23));
  for (std::size_t i = 60; i < 100; ++i) png[i] ^= 0x55;  // inside of the compressed data
  CHECK(fault_of(png) == ImageFault::damaged);

  TemporaryFolder folder;
  File bytes;
  auto fault = [&](const std::filesystem::path& path) {
    try {
      DecodeImage{}(path, bytes);
    } catch (const ImageError& e) {
      return e.fault();
    }
    FAIL("the file was decoded");
    return ImageFault{};
  };
  write_bytes(folder / "empty.png", "");
  CHECK(fault(folder / "absent.png") == ImageFault::missing);
  CHECK(fault(folder.path()) == ImageFault::missing);
  CHECK(fault("/dev/zero") == ImageFault::missing);
  CHECK(fault(folder / "empty.png") == ImageFault::empty);
}

TEST_CASE("decode: changed files are decoded or refused") {
  const QuietErrors quiet;
  RandomSequence random({4, 5, 6});
  const auto formats = all_formats();
  int decoded = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    const File& valid = formats[random.below(formats.size())].second;
    const std::string changed = mutated(std::string(valid.begin(), valid.end()), random);
    try {
      const File file(changed.begin(), changed.end());
      // A small limit, since some changes claim images that are large but allowed.
      const cv::Mat image = DecodeImage{.max_pixels = 1 << 20}(Bytes(file));
      CHECK((image.type() == CV_8UC3 && image.total() <= 1 << 20));
      ++decoded;
    } catch (const ImageError&) {
      ++refused;
    }
  }
  CHECK(decoded > 100);
  CHECK(refused > 100);
}
