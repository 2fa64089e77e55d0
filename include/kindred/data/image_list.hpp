#pragma once
// Which images there are and what they show: the text lists of PaddleClas and of the data sets.
// Reading a list does not touch the images; the loader counts and reports those that are missing.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>

namespace kindred::data {

/// One image of a list.
struct Sample {
  std::string path{};             ///< as the list has it, relative to the root folder of the list
  std::int64_t label = 0;         ///< class or identity, >= 0
  std::int64_t camera = -1;       ///< camera or unique id, where the list has that column
  std::int64_t super_label = -1;  ///< of the class's class: Stanford Online Products has it

  friend bool operator==(const Sample&, const Sample&) = default;
};

/// What stands in a line of a list file.
enum class Columns {
  path_label,                ///< "path label": PaddleClas's ImageNetDataset
  path_label_camera,         ///< "path label camera": VeriWild; evaluation lists with a unique id
  stanford_online_products,  ///< "image_id class_id super_class_id path" below a header line
};

/// An immutable list of images with their labels; as cheap to copy as a pointer.
///
/// Lists in columns are split from the right, so that a path may contain the delimiter. Empty lines
/// and Windows line ends are accepted. Source: ImageNetDataset and VeriWild of PaddleClas, and the
/// Ebay_train.txt / Ebay_test.txt of Stanford Online Products.
class ImageList {
 public:
  struct Config {
    std::filesystem::path image_root{};  ///< paths are relative to it; empty: the list's own folder
    std::filesystem::path cls_label_path{};  ///< the list file
    Columns columns = Columns::path_label;
    std::string delimiter = " ";
    bool relabel = false;        ///< labels become 0, 1, 2, ... in ascending order of the old ones
    std::int64_t class_num = 0;  ///< labels must be below it; 0: any
  };

  /// Throws FileError (missing or empty list), DataError (a line that cannot be used: file, line
  /// number, text and fix), ConfigError (settings).
  explicit ImageList(const Config& config);
  explicit ImageList(const std::filesystem::path& cls_label_path)
      : ImageList(Config{.cls_label_path = cls_label_path}) {}
  /// A list made by the program. Throws DataError if it is empty or has a negative label.
  ImageList(std::filesystem::path image_root, std::vector<Sample> samples) {
    if (samples.empty()) throw DataError("an image list without images");
    for (const Sample& s : samples)
      if (s.label < 0) throw DataError(text("negative label ", s.label, " of image ", s.path));
    adopt(std::move(image_root), std::move(samples));
  }

  /// Several lists behind one another, with their labels as they are.
  static ImageList joined(const std::vector<ImageList>& lists) {
    std::vector<Sample> all;
    for (const ImageList& list : lists)
      for (std::size_t i = 0; i < list.size(); ++i) {
        all.push_back(list[i]);
        all.back().path = list.path(i).string();
      }
    return ImageList({}, std::move(all));
  }

  std::size_t size() const { return content_->samples.size(); }
  const Sample& operator[](std::size_t i) const { return content_->samples[i]; }
  const std::vector<Sample>& samples() const { return content_->samples; }
  /// The labels alone, in the order of the list.
  const std::vector<std::int64_t>& labels() const { return content_->labels; }
  /// Largest label + 1: the least number of classes of a head that learns this list.
  std::int64_t class_num() const { return content_->class_num; }
  /// Where image i lies.
  std::filesystem::path path(std::size_t i) const { return content_->root / (*this)[i].path; }

 private:
  struct Content {
    std::filesystem::path root;
    std::vector<Sample> samples;
    std::vector<std::int64_t> labels;
    std::int64_t class_num = 0;
  };

  void adopt(std::filesystem::path root, std::vector<Sample> samples) {
    auto content = std::make_shared<Content>();
    content->root = std::move(root);
    content->samples = std::move(samples);
    content->labels.reserve(content->samples.size());
    for (const Sample& s : content->samples) {
      content->labels.push_back(s.label);
      content->class_num = std::max(content->class_num, s.label + 1);
    }
    content_ = std::move(content);
  }

  std::shared_ptr<const Content> content_;
};

namespace detail {

/// A piece of a file in a message: short, and without control characters.
inline std::string excerpt(std::string_view piece) {
  constexpr std::size_t longest = 80;
  std::string out = "\"";
  for (char c : piece.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7F ? '?' : c;
  }
  return out + (piece.size() > longest ? "...\"" : "\"");
}

inline bool parse_integer(std::string_view word, std::int64_t& value) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc{} && end == word.data() + word.size() && !word.empty();
}

inline std::string_view strip(std::string_view s) {
  constexpr std::string_view blanks = " \t\r\n\v\f";
  const std::size_t first = s.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return s.substr(first, s.find_last_not_of(blanks) - first + 1);
}

/// Reads the lines of one list; every error names file, line and text.
class ListReader {
 public:
  explicit ListReader(const ImageList::Config& config) : config_(config) {}

  std::vector<Sample> read() {
    std::ifstream in = open();
    std::string line;
    while (std::getline(in, line)) {
      ++number_;
      std::string_view content = line;
      if (number_ == 1 && content.starts_with("\xEF\xBB\xBF")) content.remove_prefix(3);
      text_ = strip(content);
      if (!text_.empty() && !is_header()) {
        samples_.push_back(parse());
        lines_.push_back(number_);
      }
    }
    if (in.bad())
      throw FileError(text("image list ", config_.cls_label_path.string(), ": reading failed"));
    if (samples_.empty())
      throw FileError(text("image list ", config_.cls_label_path.string(),
                           " has no images; expected lines such as ", example()));
    if (config_.relabel) relabel();
    check_class_num();
    return std::move(samples_);
  }

 private:
  std::ifstream open() const {
    const std::string name = config_.cls_label_path.string();
    if (config_.delimiter.empty()) throw ConfigError("ImageList: delimiter is empty");
    if (config_.class_num < 0)
      throw ConfigError(text("ImageList: class_num is ", config_.class_num, ", must be >= 0"));
    std::error_code error;
    if (!std::filesystem::is_regular_file(config_.cls_label_path, error))
      throw FileError(text("image list ", name, " is missing or is not a file; set cls_label_path",
                           " to a text file with lines such as ", example()));
    std::ifstream in(config_.cls_label_path, std::ios::binary);
    if (!in) throw FileError(text("image list ", name, " cannot be opened for reading"));
    return in;
  }

  bool is_header() const {
    return config_.columns == Columns::stanford_online_products && text_.starts_with("image_id");
  }

  std::string example() const {
    const std::string& d = config_.delimiter;
    switch (config_.columns) {
      case Columns::path_label:
        return excerpt("images/1.jpg" + d + "0");
      case Columns::path_label_camera:
        return excerpt("images/1.jpg" + d + "0" + d + "3");
      default:
        return excerpt("1" + d + "1" + d + "1" + d + "bicycle_final/1.JPG");
    }
  }

  [[noreturn]] void fail(std::string_view line, std::size_t number, const std::string& why) const {
    throw DataError(text(config_.cls_label_path.string(), ":", number, ": ", why, "; the line is ",
                         excerpt(line)));
  }
  [[noreturn]] void fail(const std::string& why) const { fail(text_, number_, why); }

  Sample parse() const {
    std::string_view rest = text_;
    Sample sample;
    if (config_.columns == Columns::stanford_online_products) {
      number_in(first(rest, "image_id"), "image_id");
      sample.label = label(first(rest, "class_id"));
      sample.super_label = number_in(first(rest, "super_class_id"), "super_class_id");
    } else {
      if (config_.columns == Columns::path_label_camera)
        sample.camera = number_in(last(rest, "camera"), "camera");
      sample.label = label(last(rest, "label"));
      // A third number would otherwise be taken for the label without a word.
      std::int64_t ignored = 0;
      const std::size_t at = rest.rfind(config_.delimiter);
      if (at != std::string_view::npos &&
          parse_integer(rest.substr(at + config_.delimiter.size()), ignored))
        fail(text("more columns of numbers than expected",
                  config_.columns == Columns::path_label
                      ? "; set columns = Columns::path_label_camera if the last one is a camera or "
                        "a unique id"
                      : ""));
    }
    if (rest.empty()) fail("the path of the image is empty");
    sample.path = std::string(rest);
    return sample;
  }

  /// Cuts the last column off `rest`.
  std::string_view last(std::string_view& rest, const char* column) const {
    const std::size_t at = rest.rfind(config_.delimiter);
    if (at == std::string_view::npos) missing(column);
    const std::string_view word = strip(rest.substr(at + config_.delimiter.size()));
    rest = strip(rest.substr(0, at));
    return word;
  }
  /// Cuts the first column off `rest`.
  std::string_view first(std::string_view& rest, const char* column) const {
    const std::size_t at = rest.find(config_.delimiter);
    if (at == std::string_view::npos) missing(column);
    const std::string_view word = strip(rest.substr(0, at));
    rest = strip(rest.substr(at + config_.delimiter.size()));
    return word;
  }
  [[noreturn]] void missing(const char* column) const {
    const char* other = text_.find('\t') != std::string_view::npos ? "\\t" : nullptr;
    fail(text("no ", column, " after the delimiter ", excerpt(config_.delimiter), "; expected ",
              example(),
              other ? "; if the columns are separated by tabs set delimiter = \"\\t\"" : ""));
  }

  std::int64_t number_in(std::string_view word, const char* column) const {
    std::int64_t value = 0;
    if (!parse_integer(word, value))
      fail(
          text("the ", column, " ", excerpt(word), " is not a whole number; expected ", example()));
    return value;
  }
  std::int64_t label(std::string_view word) const {
    const std::int64_t value = number_in(word, "label");
    if (value < 0)
      fail(text("the label ", value, " is negative; number the classes from 0, and remove images ",
                "that have no class"));
    if (value == INT64_MAX) fail(text("the label ", value, " is too large"));
    return value;
  }

  void relabel() {
    std::vector<std::int64_t> old;
    old.reserve(samples_.size());
    for (const Sample& s : samples_) old.push_back(s.label);
    std::sort(old.begin(), old.end());
    old.erase(std::unique(old.begin(), old.end()), old.end());
    for (Sample& s : samples_)
      s.label = std::lower_bound(old.begin(), old.end(), s.label) - old.begin();
  }

  void check_class_num() const {
    if (config_.class_num == 0) return;
    for (std::size_t i = 0; i < samples_.size(); ++i)
      if (samples_[i].label >= config_.class_num)
        fail(
            samples_[i].path, lines_[i],
            text("the label ", samples_[i].label, config_.relabel ? " (after relabel)" : "",
                 " is not below class_num = ", config_.class_num,
                 config_.relabel ? "; raise class_num"
                                 : "; raise class_num, or set relabel = true if labels have gaps"));
  }

  const ImageList::Config& config_;
  std::vector<Sample> samples_;
  std::vector<std::size_t> lines_;  // of the samples, for messages
  std::size_t number_ = 0;
  std::string_view text_;
};

}  // namespace detail

inline ImageList::ImageList(const Config& config) {
  std::vector<Sample> samples = detail::ListReader(config).read();
  adopt(config.image_root.empty() ? config.cls_label_path.parent_path() : config.image_root,
        std::move(samples));
}

}  // namespace kindred::data
