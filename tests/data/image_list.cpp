#include <kindred/data/datasets.hpp>
#include <kindred/data/image_list.hpp>

#include "io/files.hpp"

using namespace kindred;
using namespace kindred::data;
using namespace kindred::test;
using Labels_ = std::vector<std::int64_t>;

namespace {

/// Reads `content` as a list file with the settings of `config`.
ImageList read(const std::string& content, ImageList::Config config = {}) {
  TemporaryFolder folder;
  config.cls_label_path = folder / "list.txt";
  write_bytes(config.cls_label_path, content);
  return ImageList(config);
}

/// The message with which reading `content` fails.
template <class Exception = DataError>
std::string failure(const std::string& content, const ImageList::Config& config = {}) {
  try {
    read(content, config);
  } catch (const Exception& e) {
    return e.what();
  }
  return "no exception";
}

}  // namespace

TEST_CASE("image list: path and label, split at the last delimiter") {
  const ImageList list = read("a/1.jpg 3\na folder/two words.jpg 0\n\nb/2.jpg  12\n");
  REQUIRE(list.size() == 3);
  CHECK(list[0] == Sample{"a/1.jpg", 3, -1});
  CHECK(list[1] == Sample{"a folder/two words.jpg", 0, -1});
  CHECK(list[2] == Sample{"b/2.jpg", 12, -1});
  CHECK(list.labels() == Labels_{3, 0, 12});
  CHECK(list.class_num() == 13);
}

TEST_CASE("image list: Windows lines, a byte order mark and other delimiters") {
  CHECK(read("\xEF\xBB\xBF"
             "a.jpg 1\r\nb.jpg 2\r\n")
            .samples() == std::vector<Sample>{{"a.jpg", 1}, {"b.jpg", 2}});
  CHECK(read("my file.jpg\t7\n", {.delimiter = "\t"})[0] == Sample{"my file.jpg", 7});
  CHECK(read("a.jpg, 7", {.delimiter = ","})[0] == Sample{"a.jpg", 7});
}

TEST_CASE("image list: the third column is the camera") {
  const ImageList list =
      read("a b.jpg 3 10\nc.jpg 4 11\n", {.columns = Columns::path_label_camera});
  CHECK(list[0] == Sample{"a b.jpg", 3, 10});
  CHECK(list[1] == Sample{"c.jpg", 4, 11});
}

TEST_CASE("image list: paths are relative to the root or to the list") {
  const std::filesystem::path root = "some/root";
  CHECK(read("a.jpg 0\n/absolute/b.jpg 0", {.image_root = root}).path(0) == root / "a.jpg");
  CHECK(read("a.jpg 0\n/absolute/b.jpg 0", {.image_root = root}).path(1) == "/absolute/b.jpg");
  TemporaryFolder folder;
  write_bytes(folder / "list.txt", "a.jpg 0");
  CHECK(ImageList(folder / "list.txt").path(0) == folder / "a.jpg");
}

TEST_CASE("image list: relabel numbers the labels in ascending order") {
  const std::string lines = "a 70\nb 5\nc 70\nd 1000000000000\n";
  CHECK(read(lines).labels() == Labels_{70, 5, 70, 1000000000000});
  const ImageList dense = read(lines, {.relabel = true, .class_num = 3});
  CHECK(dense.labels() == Labels_{1, 0, 1, 2});
  CHECK(dense.class_num() == 3);
}

TEST_CASE("image list: Stanford Online Products") {
  const std::string header = "image_id class_id super_class_id path\n";
  TemporaryFolder folder;
  write_bytes(folder / "Ebay_train.txt", header +
                                             "1 1 1 bicycle_final/1_0.JPG\r\n"
                                             "2 1 1 bicycle_final/1_1.JPG\r\n"
                                             "3 2 1 bicycle_final/2_0.JPG\r\n");
  write_bytes(folder / "Ebay_test.txt", header + "1 11319 1 chair final/9_0.JPG\n");
  const StanfordOnlineProducts sop = stanford_online_products(folder.path());
  CHECK(sop.train.labels() == Labels_{0, 0, 1});
  CHECK(sop.train.path(2) == folder.path() / "bicycle_final/2_0.JPG");
  CHECK(sop.test[0] == Sample{"chair final/9_0.JPG", 0, -1, 1});

  const ImageList::Config columns{.columns = Columns::stanford_online_products};
  CHECK_THAT(failure<FileError>(header, columns), ContainsSubstring("has no images"));
  CHECK_THAT(failure(header + "1 1 bicycle.JPG", columns),
             ContainsSubstring("list.txt:2") && ContainsSubstring("super_class_id"));
}

TEST_CASE("image list: every bad line names file, line, text and fix") {
  const auto at_line_2 = ContainsSubstring("list.txt:2: ");
  CHECK_THAT(failure("a.jpg 0\nb.jpg\n"),
             at_line_2 && ContainsSubstring("no label") && ContainsSubstring("\"b.jpg\""));
  CHECK_THAT(failure("a.jpg 0\nb.jpg\t1\n"),
             at_line_2 && ContainsSubstring("set delimiter = \"\\t\""));
  CHECK_THAT(failure("a.jpg 0\nb.jpg -1\n"),
             at_line_2 && ContainsSubstring("the label -1 is negative"));
  for (const char* word : {"cat", "1.0", "0x1", "99999999999999999999", "1e3", "+1"})
    CHECK_THAT(failure(text("a.jpg 0\nb.jpg ", word)),
               at_line_2 && ContainsSubstring(text("\"", word, "\" is not a whole number")));
  CHECK_THAT(failure("a.jpg 0\nb.jpg 1 2\n"),
             at_line_2 && ContainsSubstring("Columns::path_label_camera"));
  CHECK_THAT(failure("a.jpg 0\nb.jpg 9223372036854775807\n"),
             at_line_2 && ContainsSubstring("too large"));
  CHECK_THAT(failure("a.jpg,0\n,5\n", {.delimiter = ","}),
             at_line_2 && ContainsSubstring("the path of the image is empty"));
  CHECK_THAT(failure("a.jpg 0\nb.jpg 5\n", {.class_num = 5}),
             at_line_2 && ContainsSubstring("the label 5 is not below class_num = 5") &&
                 ContainsSubstring("relabel"));
  CHECK_THAT(failure("a.jpg 7\nb.jpg 9\n", {.relabel = true, .class_num = 1}),
             at_line_2 && ContainsSubstring("the label 1 (after relabel)"));
  // Control characters and long lines do not reach the terminal.
  const std::string message = failure("a.jpg 0\n\x1B[2J" + std::string(10000, 'x'));
  CHECK_THAT(message, at_line_2 && ContainsSubstring("?[2Jxxx") && ContainsSubstring("..."));
  CHECK(message.size() < 400);
}

TEST_CASE("image list: bad files and settings") {
  TemporaryFolder folder;
  CHECK_THROWS_AS(ImageList(folder / "absent.txt"), FileError);
  CHECK_THROWS_WITH(ImageList(folder / "absent.txt"), ContainsSubstring("absent.txt is missing") &&
                                                          ContainsSubstring("images/1.jpg 0"));
  CHECK_THROWS_WITH(ImageList(folder.path()), ContainsSubstring("is not a file"));
  CHECK_THAT(failure<FileError>(""), ContainsSubstring("has no images"));
  CHECK_THAT(failure<FileError>("\n \r\n"), ContainsSubstring("has no images"));
  CHECK_THAT(failure<ConfigError>("a 0", {.delimiter = ""}), ContainsSubstring("delimiter"));
  CHECK_THAT(failure<ConfigError>("a 0", {.class_num = -1}), ContainsSubstring("class_num"));
  CHECK_THROWS_AS(ImageList("", std::vector<Sample>{}), DataError);
  CHECK_THROWS_WITH(ImageList("", {{"a.jpg", -2}}), ContainsSubstring("negative label -2"));
}

TEST_CASE("image list: random bytes are read or refused") {
  RandomSequence random({1, 2, 3});
  const std::string valid = "a.jpg 0 1\nb c.jpg 1 2\r\n\nd.jpg 2 3\n";
  int accepted = 0, refused = 0;
  for (int i = 0; i < 500; ++i) {
    try {
      const ImageList list = read(mutated(valid, random),
                                  {.columns = Columns::path_label_camera, .relabel = i % 2 == 0});
      for (const Sample& s : list.samples()) CHECK((s.label >= 0 && !s.path.empty()));
      ++accepted;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(accepted > 50);
  CHECK(refused > 50);
}
