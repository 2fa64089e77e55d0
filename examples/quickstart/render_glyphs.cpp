// Draws Chinese characters in the typefaces of this machine and writes them as a data set of image
// files for metric learning: one class per character, one image per distinct look of it.
//
//   OUT/images/U+4E00/face07.png   8-bit grey, light ink on dark paper; 07 is a line of faces.txt
//   OUT/train_list.txt             "images/U+4E00/face07.png 0": path from OUT, class from 0
//   OUT/test_list.txt              likewise, over characters that train_list.txt does not have
//   OUT/faces.txt                  number, images, family, style, index and file of every face
//
// Pictures of one character that differ in less than a tenth of their ink count as one, and a
// character that some face draws exactly like another character is left out, so that neither
// training nor evaluation sees a copy of a picture. Same fonts, same options: same files.

#include <unistd.h>

#include <chrono>
#include <cstdio>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "glyphs.hpp"

namespace qs = kindred::quickstart;

namespace {

void show_progress(std::string_view stage, std::size_t done, std::size_t total) {
  constexpr std::size_t width = 40;
  const std::size_t filled = total ? width * done / total : width;
  fmt::print(stderr, "\r{:9} [{:=<{}}{: <{}}] {}/{}{}", stage, "", filled, "", width - filled, done,
             total, done == total ? "\n" : "");
}

}  // namespace

int main(int argc, char** argv) {
  qs::GlyphSettings settings;
  std::string fonts;
  CLI::App app{"Render a data set of Chinese characters: one class per character."};
  app.add_option("--out", settings.output, "folder to write")->capture_default_str();
  app.add_option("--characters", settings.characters, "classes, training and test together")
      ->capture_default_str();
  app.add_option("--test-fraction", settings.test_fraction, "share of classes kept for the test")
      ->capture_default_str();
  app.add_option("--size", settings.size, "side of the images in pixels")->capture_default_str();
  app.add_option("--min-faces", settings.min_faces, "distinct pictures a character must have")
      ->capture_default_str();
  app.add_option("--seed", settings.seed, "chooses the characters")->capture_default_str();
  app.add_option("--distortion", settings.distortion,
                 "0 (none) to 2, times at most 8 degrees, 8% of size, 4% of shift")
      ->capture_default_str();
  app.add_option("--fonts", fonts, "use only the fonts in this folder");
  app.add_option("--threads", settings.threads, "threads to draw with")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (!fonts.empty()) settings.fonts = fonts;

  try {
    const auto start = std::chrono::steady_clock::now();
    const bool terminal = isatty(fileno(stderr));
    qs::GlyphDataSet data(settings, terminal ? qs::Progress(show_progress) : nullptr);
    const qs::GlyphSummary done = data.write();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    fmt::print("train: {:6} characters {:8} images\ntest:  {:6} characters {:8} images\n",
               done.train_classes, done.train_images, done.test_classes, done.test_images);
    fmt::print(
        "{} faces; {} characters looked at: {} with fewer than {} distinct pictures, {} that some "
        "face draws like another character; {} copies of pictures left out\n",
        done.faces, done.examined, done.too_few, settings.min_faces, done.ambiguous, done.copies);
    fmt::print("written to {} in {:.1f} s\n", settings.output, time.count());
  } catch (const std::exception& error) {
    fmt::print(stderr, "render_glyphs: {}\n", error.what());
    return 1;
  }
}
