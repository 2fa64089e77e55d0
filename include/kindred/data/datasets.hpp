#pragma once
// Public data sets as they come out of their archives.

#include <filesystem>

#include <kindred/data/image_list.hpp>

namespace kindred::data {

/// Stanford Online Products (Oh Song et al., "Deep metric learning via lifted structured feature
/// embedding", CVPR 2016): 59,551 training images of 11,318 products and 60,502 test images of
/// 11,316 other products.
struct StanfordOnlineProducts {
  ImageList train;  ///< labels 0 .. 11317
  ImageList test;   ///< labels 0 .. 11315, of products that training never sees
};

/// Reads Ebay_train.txt and Ebay_test.txt in `root`, the unpacked folder Stanford_Online_Products.
/// Throws FileError or DataError as ImageList does.
inline StanfordOnlineProducts stanford_online_products(const std::filesystem::path& root) {
  auto list = [&root](const char* name) {
    return ImageList({.image_root = root,
                      .cls_label_path = root / name,
                      .columns = Columns::stanford_online_products,
                      .relabel = true});
  };
  return {list("Ebay_train.txt"), list("Ebay_test.txt")};
}

}  // namespace kindred::data
