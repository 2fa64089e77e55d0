// The data set of the quickstart. Without Chinese typefaces the program ends with 77: skipped.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "quickstart/glyphs.hpp"
#include "support/catch.hpp"

namespace fs = std::filesystem;
namespace qs = kindred::quickstart;

namespace {

class Folder {
 public:
  Folder()
      : path_(fs::temp_directory_path() /
              ("kindred_glyphs_" + std::to_string(getpid()) + "_" + std::to_string(count_++))) {
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  static inline int count_ = 0;
  fs::path path_;
};

qs::GlyphSettings small(const Folder& folder) {
  qs::GlyphSettings settings;
  settings.output = folder.path().string();
  settings.characters = 40;
  settings.test_fraction = 0.25;
  settings.size = 32;
  settings.min_faces = 5;
  settings.threads = 2;
  return settings;
}

/// Skips the whole program: without typefaces there is nothing to test here.
void need_faces() {
  if (qs::find_faces().size() >= 10) return;
  std::cout << "SKIPPED: fewer than 10 Chinese typefaces; apt-get install " << qs::font_packages
            << std::endl;
  std::exit(77);
}

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Every file below a folder: relative path -> bytes.
std::map<std::string, std::string> files(const fs::path& root) {
  std::map<std::string, std::string> result;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file())
      result[fs::relative(entry.path(), root).string()] = content(entry.path());
  return result;
}

struct Item {
  std::string path, character;
  int label = 0;
};

/// Reads a list strictly: exactly "images/U+X/faceNN.png label" on each line.
std::vector<Item> read_list(const fs::path& path) {
  std::vector<Item> items;
  std::istringstream lines(content(path));
  for (std::string line; std::getline(lines, line);) {
    const auto space = line.find(' ');
    REQUIRE(space != std::string::npos);
    const std::string image = line.substr(0, space), label = line.substr(space + 1);
    REQUIRE(image.starts_with("images/U+"));
    REQUIRE_FALSE(label.empty());
    REQUIRE(label.find_first_not_of("0123456789") == std::string::npos);
    items.push_back({image, image.substr(7, image.rfind('/') - 7), std::stoi(label)});
  }
  return items;
}

std::map<int, std::vector<Item>> by_label(const std::vector<Item>& items) {
  std::map<int, std::vector<Item>> classes;
  for (const Item& item : items) classes[item.label].push_back(item);
  return classes;
}

qs::Picture picture(std::vector<std::uint8_t> ink) { return ink; }

}  // namespace

TEST_CASE("ink_difference: 0 for equal, 1 for disjoint, the share in between") {
  const auto a = picture({255, 255, 0, 0}), b = picture({0, 0, 255, 255});
  CHECK(qs::ink_difference(a, a) == 0);
  CHECK(qs::ink_difference(a, b) == 1);
  CHECK(qs::ink_difference(a, picture({255, 0, 0, 0})) == Approx(0.5));
  CHECK(qs::ink_difference(picture({0, 0}), picture({0, 0})) == 0);
}

TEST_CASE("is_ideograph leaves out second numbers of the same look") {
  CHECK(qs::is_ideograph(0x4E00));
  CHECK(qs::is_ideograph(0x3400));
  CHECK(qs::is_ideograph(0x20000));
  CHECK_FALSE(qs::is_ideograph(0x2F00));  // the radical that looks like U+4E00
  CHECK_FALSE(qs::is_ideograph(0xF900));  // the compatibility ideograph of U+8C48
  CHECK_FALSE(qs::is_ideograph('A'));
}

TEST_CASE("settings out of range and missing fonts are one clear error") {
  Folder folder;
  const auto made = [&](auto change) {
    auto settings = small(folder);
    change(settings);
    return qs::GlyphDataSet(settings, nullptr);
  };
  CHECK_THROWS_WITH(made([](auto& s) { s.size = 8; }), ContainsSubstring("size"));
  CHECK_THROWS_WITH(made([](auto& s) { s.characters = 1; }), ContainsSubstring("characters"));
  CHECK_THROWS_WITH(made([](auto& s) { s.test_fraction = 1; }), ContainsSubstring("test-fraction"));
  CHECK_THROWS_WITH(made([](auto& s) { s.min_faces = 1; }), ContainsSubstring("min-faces"));
  CHECK_THROWS_WITH(made([](auto& s) { s.distortion = -1; }), ContainsSubstring("distortion"));
  CHECK_THROWS_WITH(made([&](auto& s) { s.fonts = folder.path().string(); }),
                    ContainsSubstring("fonts-noto-cjk"));
  CHECK_THROWS_AS(made([](auto& s) { s.fonts = "/no/such/folder"; }), kindred::FileError);
}

TEST_CASE("lists: dense labels, disjoint classes, enough faces, readable grey images") {
  need_faces();
  Folder folder;
  const auto summary = qs::GlyphDataSet(small(folder), nullptr).write();
  CHECK(summary.train_classes == 30);
  CHECK(summary.test_classes == 10);

  std::set<std::string> characters;
  std::size_t images = 0, classes = 0;
  for (const char* name : {"train_list.txt", "test_list.txt"}) {
    const auto items = read_list(folder.path() / name);
    const auto labelled = by_label(items);
    CHECK(labelled.rbegin()->first + 1 == static_cast<int>(labelled.size()));
    for (const auto& [label, members] : labelled) {
      CHECK(members.size() >= 5);
      for (const Item& item : members) CHECK(item.character == members[0].character);
      CHECK(characters.insert(members[0].character).second);  // in no other class, in no other list
    }
    for (const Item& item : items) {
      const cv::Mat image = cv::imread((folder.path() / item.path).string(), cv::IMREAD_UNCHANGED);
      REQUIRE(image.type() == CV_8UC1);
      CHECK(image.size() == cv::Size(32, 32));
    }
    images += items.size();
    classes += labelled.size();
  }
  CHECK(classes == 40);
  CHECK(images == summary.train_images + summary.test_images);
  CHECK(files(folder.path() / "images").size() == images);
}

TEST_CASE("no two pictures of the data set are the same or nearly so within a class") {
  need_faces();
  Folder folder;
  qs::GlyphDataSet(small(folder), nullptr).write();
  std::set<std::vector<std::uint8_t>> all;
  for (const char* name : {"train_list.txt", "test_list.txt"})
    for (const auto& [label, members] : by_label(read_list(folder.path() / name))) {
      std::vector<qs::Picture> pictures;
      for (const Item& item : members) {
        const cv::Mat image = cv::imread((folder.path() / item.path).string(), 0);
        pictures.emplace_back(image.begin<std::uint8_t>(), image.end<std::uint8_t>());
        CHECK(all.insert(pictures.back()).second);
        for (std::size_t i = 0; i + 1 < pictures.size(); ++i)
          CHECK(qs::ink_difference(pictures[i], pictures.back()) >= qs::distinct_ink);
      }
    }
}

TEST_CASE("copies are found: a face added twice gives no second picture") {
  need_faces();
  auto faces = qs::find_faces();
  faces.resize(1);
  faces.push_back(faces[0]);
  qs::Renderer renderer(faces, 48);
  const char32_t character = renderer.ideographs(0).at(100);
  const auto glyphs = qs::distinct_glyphs(renderer, faces.size(), character);
  CHECK(glyphs.pictures.size() == 1);
  CHECK(glyphs.copies == 1);
}

TEST_CASE("the same options give the same files, whatever the threads and what was there before") {
  need_faces();
  Folder first, second;
  auto settings = small(first);
  qs::GlyphDataSet(settings, nullptr).write();
  settings.threads = 1;
  settings.output = second.path().string();
  settings.characters = 60;  // leaves images that the next run must clear away
  qs::GlyphDataSet(settings, nullptr).write();
  settings.characters = 40;
  qs::GlyphDataSet(settings, nullptr).write();
  CHECK(files(first.path()) == files(second.path()));

  settings.seed = 43;
  qs::GlyphDataSet(settings, nullptr).write();
  CHECK(content(first.path() / "train_list.txt") != content(second.path() / "train_list.txt"));
}

TEST_CASE("distortion changes the pictures, not the choice") {
  need_faces();
  Folder plain, moved;
  auto settings = small(plain);
  qs::GlyphDataSet(settings, nullptr).write();
  settings.output = moved.path().string();
  settings.distortion = 1;
  qs::GlyphDataSet(settings, nullptr).write();
  CHECK(content(plain.path() / "test_list.txt") == content(moved.path() / "test_list.txt"));
  const auto before = files(plain.path() / "images"), after = files(moved.path() / "images");
  std::size_t changed = 0;
  for (const auto& [path, bytes] : before) changed += bytes != after.at(path);
  CHECK(changed > before.size() * 9 / 10);
}

TEST_CASE("more characters than there are is an error that gives their number") {
  need_faces();
  Folder folder;
  auto settings = small(folder);
  settings.min_faces = 1000;
  CHECK_THROWS_WITH(qs::GlyphDataSet(settings, nullptr).write(),
                    ContainsSubstring("only 0 characters have 1000 distinct pictures"));
}
