#pragma once
// A data set of Chinese characters: one class per character, one image per distinct look of it.

#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

#include <kindred/core/error.hpp>
#include <kindred/io/atomic_file.hpp>

#include "fonts.hpp"

namespace kindred::quickstart {

struct GlyphSettings {
  std::string output = "build/quickstart/data";
  std::optional<std::string> fonts;  ///< look only in this folder, not where fontconfig looks
  std::size_t characters = 3000;     ///< classes, of training and test together
  double test_fraction = 0.2;        ///< share of the classes that training never sees
  int size = 64;                     ///< pixels, 16..512
  std::size_t min_faces = 10;        ///< distinct pictures a character must have
  std::uint64_t seed = 42;
  double distortion = 0;  ///< 0..2: times up to 8 degrees, 8% of size, 4% of shift
  unsigned threads = std::max(1u, std::thread::hardware_concurrency());
};

struct GlyphSummary {
  std::size_t faces = 0;
  std::size_t examined = 0;  ///< characters drawn until enough were found
  std::size_t train_classes = 0, train_images = 0;
  std::size_t test_classes = 0, test_images = 0;
  std::size_t copies = 0;     ///< pictures left out: same as, or hardly different from, a kept one
  std::size_t too_few = 0;    ///< characters left out: fewer than min_faces distinct pictures
  std::size_t ambiguous = 0;  ///< characters left out: in some face they look like another one
};

/// Called with (stage, done, total) from one thread at a time.
using Progress = std::function<void(std::string_view, std::size_t, std::size_t)>;

inline constexpr std::string_view font_packages =
    "fonts-noto-cjk fonts-wqy-zenhei fonts-wqy-microhei fonts-arphic-uming fonts-arphic-ukai "
    "fonts-ipafont fonts-vlgothic fonts-droid-fallback";

/// Share of the ink in which two pictures differ: sum |a - b| / sum max(a, b), in 0..1.
/// 0 for equal pictures, 1 for pictures without common ink (the soft Jaccard distance).
inline double ink_difference(const Picture& a, const Picture& b) {
  long difference = 0, together = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::abs(a[i] - b[i]);
    together += std::max(a[i], b[i]);
  }
  return together ? static_cast<double>(difference) / static_cast<double>(together) : 0;
}

/// Two pictures of a character that differ in less than a tenth of their ink count as one: the
/// regional variants of a family share most of their outlines, and some families are re-issues of
/// another. Keeping both would let an evaluation find the same drawing instead of the character.
inline constexpr double distinct_ink = 0.1;

/// One character with its distinct pictures, in the order of the faces.
struct Glyphs {
  char32_t character = 0;
  std::vector<std::pair<std::size_t, Picture>> pictures;  ///< (face, picture)
  std::size_t copies = 0;
};

inline Glyphs distinct_glyphs(Renderer& renderer, std::size_t faces, char32_t character) {
  Glyphs glyphs{character, {}, 0};
  for (std::size_t f = 0; f < faces; ++f) {
    auto picture = renderer.draw(f, character);
    if (!picture) continue;
    const bool known = std::ranges::any_of(glyphs.pictures, [&](const auto& kept) {
      return ink_difference(kept.second, *picture) < distinct_ink;
    });
    if (known)
      ++glyphs.copies;
    else
      glyphs.pictures.emplace_back(f, std::move(*picture));
  }
  return glyphs;
}

/// work(i, thread) for i in [0, count) on `threads` threads; the first exception is rethrown.
inline void for_each_index(std::size_t count, std::size_t threads,
                           const std::function<void(std::size_t, std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto run = [&](std::size_t thread) {
    try {
      for (std::size_t i = next++; i < count; i = next++) work(i, thread);
    } catch (...) {
      next = count;
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t t = 1; t < threads; ++t) others.emplace_back(run, t);
    run(0);
  }
  if (failure) std::rethrow_exception(failure);
}

/// A 64-bit mixing function (SplitMix64): a random number that depends on its argument alone, so
/// that the order of characters is the same with every standard library.
inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// "U+4E00"
inline std::string code_point(char32_t c) {
  std::array<char, 16> name{};
  std::snprintf(name.data(), name.size(), "U+%04X", static_cast<unsigned>(c));
  return name.data();
}

/// Path of an image relative to the folder of the list files.
inline std::string image_path(char32_t character, std::size_t face) {
  std::array<char, 24> name{};
  std::snprintf(name.data(), name.size(), "/face%02zu.png", face);
  return "images/" + code_point(character) + name.data();
}

/// Draws, chooses and writes; see render_glyphs.
class GlyphDataSet {
 public:
  GlyphDataSet(GlyphSettings settings, Progress progress)
      : settings_(std::move(settings)), progress_(std::move(progress)) {
    const auto require = [](bool good, const char* problem) {
      if (!good) throw ConfigError(problem);
    };
    require(settings_.characters >= 2, "characters must be at least 2: one to train, one to test");
    require(settings_.size >= 16 && settings_.size <= 512, "size must be 16 to 512 pixels");
    require(settings_.min_faces >= 2, "min-faces must be at least 2: a query and its match");
    require(settings_.test_fraction > 0 && settings_.test_fraction < 1,
            "test-fraction must lie between 0 and 1");
    require(settings_.distortion >= 0 && settings_.distortion <= 2, "distortion must be 0 to 2");
    require(settings_.threads >= 1, "threads must be at least 1");
    faces_ = find_faces(settings_.fonts);
    if (faces_.empty())
      throw FileError(text("no typeface with Chinese characters found",
                           settings_.fonts ? " in " + *settings_.fonts : "",
                           "; on Debian: apt-get install ", font_packages));
    for (unsigned t = 0; t < settings_.threads; ++t)
      renderers_.push_back(std::make_unique<Renderer>(faces_, settings_.size));
    summary_.faces = faces_.size();
  }

  /// Throws DataError when fewer characters qualify than were asked for.
  GlyphSummary write() {
    choose(candidates());
    const std::size_t tests = std::clamp<std::size_t>(
        static_cast<std::size_t>(
            std::lround(settings_.test_fraction * static_cast<double>(settings_.characters))),
        1, settings_.characters - 1);
    write_images();
    const auto first_test = chosen_.end() - static_cast<std::ptrdiff_t>(tests);
    summary_.test_classes = tests;
    summary_.train_classes = chosen_.size() - tests;
    summary_.train_images = write_list("train_list.txt", chosen_.begin(), first_test);
    summary_.test_images = write_list("test_list.txt", first_test, chosen_.end());
    write_faces();
    return summary_;
  }

 private:
  /// Characters that enough faces claim to have, in the order of a random number each.
  std::vector<char32_t> candidates() const {
    std::map<char32_t, std::size_t> claims;
    for (std::size_t f = 0; f < faces_.size(); ++f)
      for (const char32_t c : renderers_[0]->ideographs(f)) ++claims[c];
    std::vector<std::pair<std::uint64_t, char32_t>> order;
    for (const auto& [c, count] : claims)
      if (count >= settings_.min_faces)
        order.emplace_back(mix(mix(settings_.seed) ^ static_cast<std::uint64_t>(c)), c);
    std::ranges::sort(order);
    std::vector<char32_t> result;
    for (const auto& [key, c] : order) result.push_back(c);
    return result;
  }

  /// Takes the first characters that qualify. They are drawn in blocks on all threads and judged
  /// in order by one, so that the choice does not depend on the number of threads.
  void choose(const std::vector<char32_t>& order) {
    constexpr std::size_t block = 64;
    std::vector<Glyphs> drawn(block);
    for (std::size_t begin = 0; begin < order.size() && chosen_.size() < settings_.characters;
         begin += block) {
      const std::size_t count = std::min(block, order.size() - begin);
      for_each_index(count, renderers_.size(), [&](std::size_t i, std::size_t thread) {
        drawn[i] = distinct_glyphs(*renderers_[thread], faces_.size(), order[begin + i]);
      });
      for (std::size_t i = 0; i < count && chosen_.size() < settings_.characters; ++i)
        judge(std::move(drawn[i]));
      if (progress_) progress_("choosing", chosen_.size(), settings_.characters);
    }
    if (chosen_.size() < settings_.characters)
      throw DataError(text("only ", chosen_.size(), " characters have ", settings_.min_faces,
                           " distinct pictures in the ", faces_.size(),
                           " faces found; ask for fewer characters or fewer faces, or install ",
                           font_packages));
  }

  /// Keeps a character unless it has too few pictures, or one that another character has too (a
  /// font that draws a box for what it lacks, or two code points of one shape): a picture with
  /// two labels would make either label wrong.
  void judge(Glyphs glyphs) {
    ++summary_.examined;
    if (glyphs.pictures.size() < settings_.min_faces) {
      ++summary_.too_few;
      return;
    }
    const auto bytes = [](const Picture& picture) {
      return std::hash<std::string_view>{}(
          {reinterpret_cast<const char*>(picture.data()), picture.size()});
    };
    for (const auto& [face, picture] : glyphs.pictures)
      if (looks_.contains(bytes(picture))) {
        ++summary_.ambiguous;
        return;
      }
    for (const auto& [face, picture] : glyphs.pictures)
      looks_.emplace(bytes(picture), glyphs.character);
    summary_.copies += glyphs.copies;
    chosen_.push_back(std::move(glyphs));
  }

  /// A character's own small turn, growth and shift, from (seed, character, face).
  Distortion distortion(char32_t character, std::size_t face) const {
    std::uint64_t state = mix(settings_.seed ^ mix(character * std::uint64_t{1000} + face));
    const auto uniform = [&state] {  // -1..1
      state = mix(state);
      return static_cast<double>(state >> 11) / 4503599627370496.0 - 1;
    };
    const double strength = settings_.distortion;
    const double shift = 0.04 * strength * settings_.size;
    return {8 * strength * uniform(), 1 + 0.08 * strength * uniform(), shift * uniform(),
            shift * uniform()};
  }

  void write_images() {
    namespace fs = std::filesystem;
    const fs::path images = fs::path(settings_.output) / "images";
    fs::create_directories(images);
    std::vector<fs::path> old;  // of an earlier run; nothing else in the folder is touched
    for (const auto& entry : fs::directory_iterator(images))
      if (entry.path().filename().string().starts_with("U+")) old.push_back(entry.path());
    for (const auto& folder : old) fs::remove_all(folder);

    std::size_t done = 0;
    std::mutex mutex;
    for_each_index(chosen_.size(), renderers_.size(), [&](std::size_t i, std::size_t thread) {
      write_character(chosen_[i], *renderers_[thread]);
      const std::scoped_lock lock(mutex);
      if (progress_ && (++done % 64 == 0 || done == chosen_.size()))
        progress_("writing", done, chosen_.size());
    });
  }

  void write_character(Glyphs& glyphs, Renderer& renderer) const {
    namespace fs = std::filesystem;
    const fs::path root = settings_.output;
    fs::create_directory(root / "images" / code_point(glyphs.character));
    for (auto& [face, picture] : glyphs.pictures) {
      if (settings_.distortion > 0)
        if (auto moved = renderer.draw(face, glyphs.character, distortion(glyphs.character, face)))
          picture = std::move(*moved);
      const cv::Mat image(settings_.size, settings_.size, CV_8UC1, picture.data());
      const std::string path = (root / image_path(glyphs.character, face)).string();
      bool written = false;
      try {
        written = cv::imwrite(path, image);
      } catch (const cv::Exception&) {  // reported below, like its return value
      }
      if (!written) throw FileError("cannot write " + path);
      picture = {};  // 3,000 characters of memory are not needed twice
    }
  }

  using Iterator = std::vector<Glyphs>::const_iterator;
  std::size_t write_list(const std::string& name, Iterator begin, Iterator end) const {
    std::string lines;
    std::size_t images = 0;
    for (auto glyphs = begin; glyphs != end; ++glyphs)
      for (const auto& [face, picture] : glyphs->pictures) {
        lines += image_path(glyphs->character, face) + ' ' + std::to_string(glyphs - begin) + '\n';
        ++images;
      }
    write_text(name, lines);
    return images;
  }

  void write_faces() const {
    std::vector<std::size_t> pictures(faces_.size());
    for (const auto& glyphs : chosen_)
      for (const auto& [face, picture] : glyphs.pictures) ++pictures[face];
    std::string lines = "# face\timages\tfamily\tstyle\tindex\tfile\n";
    for (std::size_t f = 0; f < faces_.size(); ++f)
      lines += text(f, '\t', pictures[f], '\t', faces_[f].family, '\t', faces_[f].style, '\t',
                    faces_[f].index, '\t', faces_[f].file, '\n');
    write_text("faces.txt", lines);
  }

  void write_text(const std::string& name, const std::string& content) const {
    io::AtomicFile file(std::filesystem::path(settings_.output) / name);
    file.write(content);
    file.commit();
  }

  GlyphSettings settings_;
  Progress progress_;
  GlyphSummary summary_;
  std::vector<Face> faces_;
  std::vector<std::unique_ptr<Renderer>> renderers_;  // one per thread
  std::vector<Glyphs> chosen_;
  std::unordered_map<std::size_t, char32_t> looks_;  // hash of every kept picture
};

}  // namespace kindred::quickstart
