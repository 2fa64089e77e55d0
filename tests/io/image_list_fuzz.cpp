#include <kindred/data/image_list.hpp>

#include "io/files.hpp"

using namespace kindred;
using namespace kindred::data;
using namespace kindred::test;

TEST_CASE("image list: fuzzed lists are read or refused") {
  const Columns columns =
      GENERATE(Columns::path_label, Columns::path_label_camera, Columns::stanford_online_products);
  const std::vector<std::string> valid{"a/1.jpg 0\r\n\nb c/2.jpg 12\n", "1.jpg 0 3\n2.jpg 1 4\n",
                                       "image_id class_id super_class_id path\n1 1 1 a/1.JPG\n"};
  fuzz(valid, 1, 4, [&](const std::filesystem::path& path) {
    const ImageList list(ImageList::Config{.cls_label_path = path, .columns = columns});
    REQUIRE(list.size() > 0);
    for (const Sample& sample : list.samples()) {
      REQUIRE(sample.label >= 0);
      REQUIRE(sample.label < list.class_num());
      REQUIRE(!sample.path.empty());
    }
  });
}
