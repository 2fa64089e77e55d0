#pragma once
// From the bytes of an image file to pixels, without trusting the file.
//
// OpenCV fills the rest of a truncated JPEG with grey and allocates whatever a header claims, so
// the container is walked first: format, dimensions and completeness. Damage inside the compressed
// data of a complete JPEG is not detectable; the decoder's best effort is taken, as in every peer.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include <kindred/core/error.hpp>

namespace kindred::data {

/// Why an image could not be used.
enum class ImageFault {
  missing,       ///< no such file, not a regular file, or no permission
  empty,         ///< zero bytes
  not_an_image,  ///< neither JPEG, PNG, BMP nor WebP
  truncated,     ///< ends before the image does
  too_large,     ///< more pixels than DecodeImage::max_pixels
  damaged,       ///< the decoder gave up
  unfit,         ///< readable, but a transform cannot use it (smaller than the crop)
};
inline constexpr int image_fault_count = 7;

inline const char* name_of(ImageFault fault) {
  constexpr std::array<const char*, image_fault_count> names{
      "missing", "empty", "not an image", "truncated", "too large", "damaged", "unfit"};
  return names[static_cast<std::size_t>(fault)];
}

/// Thrown for an image that cannot be used; the loader counts it and goes on.
class ImageError : public DataError {
 public:
  ImageError(ImageFault fault, const std::string& message) : DataError(message), fault_(fault) {}
  ImageFault fault() const noexcept { return fault_; }

 private:
  ImageFault fault_;
};

using Bytes = std::span<const unsigned char>;

namespace detail {

/// What the container of an image says about it.
struct ImageHeader {
  std::int64_t width = 0, height = 0;
  bool complete = false;  ///< the file reaches the end of the image
};

/// Little- or big-endian unsigned number of n bytes at `at`; 0 beyond the end.
inline std::uint32_t number_at(Bytes file, std::size_t at, int n, bool big_endian) {
  if (at + static_cast<std::size_t>(n) > file.size()) return 0;
  std::uint32_t value = 0;
  for (int i = 0; i < n; ++i)
    value = value << 8 | file[at + static_cast<std::size_t>(big_endian ? i : n - 1 - i)];
  return value;
}
inline bool has_at(Bytes file, std::size_t at, const char* magic, std::size_t n) {
  return at + n <= file.size() && std::memcmp(file.data() + at, magic, n) == 0;
}

/// Chunks up to IEND (PNG specification, section 5).
inline ImageHeader png_header(Bytes file) {
  ImageHeader header{number_at(file, 16, 4, true), number_at(file, 20, 4, true)};
  std::size_t at = 8;
  while (at + 12 <= file.size()) {
    const std::size_t end = at + 12 + number_at(file, at, 4, true);
    if (end > file.size()) break;
    if (has_at(file, at + 4, "IEND", 4)) {
      header.complete = true;
      break;
    }
    at = end;
  }
  return header;
}

/// Position of the next marker in entropy-coded data: FF and neither 00 (a stuffed byte), FF nor a
/// restart marker.
inline std::size_t next_jpeg_marker(Bytes file, std::size_t at) {
  while (at + 1 < file.size()) {
    const void* found = std::memchr(file.data() + at, 0xFF, file.size() - 1 - at);
    if (found == nullptr) break;
    at = static_cast<std::size_t>(static_cast<const unsigned char*>(found) - file.data());
    const unsigned char next = file[at + 1];
    if (next != 0 && next != 0xFF && !(next >= 0xD0 && next <= 0xD7)) return at;
    at += next == 0xFF ? 1 : 2;
  }
  return file.size();
}

/// Segments up to the end-of-image marker (ITU T.81, annex B). A plain search for FFD9 would find
/// that of an embedded thumbnail.
inline ImageHeader jpeg_header(Bytes file) {
  ImageHeader header;
  std::size_t at = 2;
  while ((at = next_jpeg_marker(file, at)) < file.size()) {
    const unsigned char marker = file[at + 1];
    if (marker == 0xD9) {
      header.complete = true;
      break;
    }
    const bool frame =
        marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && header.width == 0) {
      header.height = number_at(file, at + 5, 2, true);
      header.width = number_at(file, at + 7, 2, true);
    }
    at += 2 + number_at(file, at + 2, 2, true);
  }
  return header;
}

inline ImageHeader bmp_header(Bytes file) {
  ImageHeader header;
  const std::uint32_t info = number_at(file, 14, 4, false), bytes = number_at(file, 2, 4, false);
  const std::uint32_t offset = number_at(file, 10, 4, false);
  if (info == 12) {
    header.width = number_at(file, 18, 2, false);
    header.height = number_at(file, 20, 2, false);
  } else {
    header.width = static_cast<std::int32_t>(number_at(file, 18, 4, false));
    // A negative height says that the first row is the upper one.
    header.height =
        std::abs(std::int64_t{static_cast<std::int32_t>(number_at(file, 22, 4, false))});
  }
  const std::size_t bits = number_at(file, info == 12 ? 24 : 28, 2, false);
  const bool packed = info != 12 && number_at(file, 30, 4, false) != 0;
  std::size_t needed = std::max<std::size_t>(bytes, 26);  // no file is shorter
  if (!packed && header.width > 0 && header.width <= INT32_MAX)
    needed = offset + (static_cast<std::size_t>(header.width) * bits + 31) / 32 * 4 *
                          static_cast<std::size_t>(header.height);
  header.complete = file.size() >= needed;
  return header;
}

/// RIFF container of WebP (RFC 9649).
inline ImageHeader webp_header(Bytes file) {
  ImageHeader header;
  if (has_at(file, 12, "VP8X", 4)) {
    header.width = std::int64_t{number_at(file, 24, 3, false)} + 1;
    header.height = std::int64_t{number_at(file, 27, 3, false)} + 1;
  } else if (has_at(file, 12, "VP8L", 4)) {
    const std::uint32_t bits = number_at(file, 21, 4, false);
    header.width = (bits & 0x3FFF) + 1;
    header.height = ((bits >> 14) & 0x3FFF) + 1;
  } else {
    header.width = number_at(file, 26, 2, false) & 0x3FFF;
    header.height = number_at(file, 28, 2, false) & 0x3FFF;
  }
  header.complete = file.size() >= std::size_t{number_at(file, 4, 4, false)} + 8;
  return header;
}

inline ImageHeader image_header(Bytes file) {
  if (has_at(file, 0, "\x89PNG\r\n\x1A\n", 8)) return png_header(file);
  if (has_at(file, 0, "\xFF\xD8\xFF", 3)) return jpeg_header(file);
  if (has_at(file, 0, "BM", 2)) return bmp_header(file);
  if (has_at(file, 0, "RIFF", 4) && has_at(file, 8, "WEBP", 4)) return webp_header(file);
  throw ImageError(ImageFault::not_an_image,
                   "it is neither a JPEG, PNG, BMP nor WebP file; convert it or remove it");
}

}  // namespace detail

/// Decodes a JPEG, PNG, BMP or WebP file to 8-bit RGB [H,W,3] (BGR with to_rgb = false), turned
/// upright by its EXIF orientation, grey repeated, transparency dropped: cv::IMREAD_COLOR, as
/// PaddleClas's DecodeImage. Throws ImageError.
struct DecodeImage {
  bool to_rgb = true;
  std::int64_t max_pixels = std::int64_t{1} << 28;  ///< more is taken for a hostile header

  cv::Mat operator()(Bytes file) const {
    check(file);
    cv::Mat image;
    try {
      const cv::Mat buffer(1, static_cast<int>(file.size()), CV_8UC1,
                           const_cast<unsigned char*>(file.data()));  // only read
      image = cv::imdecode(buffer, cv::IMREAD_COLOR);
    } catch (const cv::Exception& e) {
      throw ImageError(ImageFault::damaged, "OpenCV cannot decode it: " + e.err);
    }
    if (image.empty()) throw ImageError(ImageFault::damaged, "OpenCV cannot decode it");
    if (to_rgb) cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
    return image;
  }

  /// Reads and decodes `path`; `bytes` is memory to read into, reused from call to call.
  cv::Mat operator()(const std::filesystem::path& path, std::vector<unsigned char>& bytes) const {
    read(path, bytes);
    return (*this)(Bytes(bytes));
  }

 private:
  void check(Bytes file) const {
    if (file.empty()) throw ImageError(ImageFault::empty, "the file is empty");
    const detail::ImageHeader header = detail::image_header(file);
    // Width and height are below 2^32, so that the quotient cannot overflow where a product could.
    if (header.width > 0 && header.height > max_pixels / header.width)
      throw ImageError(ImageFault::too_large,
                       text("its header claims ", header.width, " x ", header.height,
                            " pixels, more than max_pixels = ", max_pixels));
    if (!header.complete)
      throw ImageError(ImageFault::truncated,
                       text("it ends after ", file.size(), " bytes, before the image does"));
    if (header.width <= 0 || header.height <= 0)
      throw ImageError(ImageFault::damaged, "its header has no valid width and height");
  }

  static void read(const std::filesystem::path& path, std::vector<unsigned char>& bytes) {
    std::error_code error;
    // Also keeps pipes and devices out, whose reading might never end.
    if (!std::filesystem::is_regular_file(path, error))
      throw ImageError(ImageFault::missing, "no such file");
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (!error && size > INT32_MAX)
      throw ImageError(ImageFault::too_large, text("the file has ", size, " bytes"));
    std::ifstream in(path, std::ios::binary);
    if (error || !in) throw ImageError(ImageFault::missing, "it cannot be opened for reading");
    bytes.resize(static_cast<std::size_t>(size));
    in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    if (static_cast<std::uintmax_t>(in.gcount()) != size)
      throw ImageError(ImageFault::truncated, "it cannot be read to its end");
  }
};

}  // namespace kindred::data
