// A small program for a product: loads weights, turns images into features, compares them.
//   03_infer weights.safetensors a.rgb b.rgb      (raw 8-bit RGB, 64 x 64)
// Without arguments it makes weights and images itself. See `rec` for a complete tool.

#include <cmath>
#include <cstdio>
#include <fstream>
#include <vector>

#include <kindred/io/weights.hpp>
#include <kindred/kindred.hpp>

namespace kd = kindred;

using Model =
    kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::ArcMargin, kd::loss::CELoss>;
constexpr std::int64_t side = 64, values = side * side * 3;

/// The pixels of one raw image, normalised as in training: (x / 255 - 0.5) / 0.5.
std::vector<float> read_image(const char* path) {
  std::vector<unsigned char> bytes(values);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(bytes.data()), values))
    throw kd::FileError(kd::text(path, ": expected ", values, " bytes of raw RGB"));
  return std::vector<float>(bytes.begin(), bytes.end());
}

int main(int argc, char** argv) try {
  Model model({.backbone = {.scale = 0.5, .dropout_prob = 0},
               .neck = {.embedding_size = 1280, .class_num = 128},
               .head = {.embedding_size = 128, .class_num = 10}},
              kd::Seed{1});
  std::vector<float> images;
  if (argc == 4) {
    // Another number of classes does not matter: the head is not used.
    kd::io::load_weights(argv[1], model.parameters(), model.trainable().data(),
                         model.statistics().data(), {.mode = kd::io::LoadMode::matching});
    for (const char* path : {argv[2], argv[3]})
      for (float v : read_image(path)) images.push_back((v / 255 - 0.5f) / 0.5f);
  } else {
    for (std::int64_t i = 0; i < 2 * values; ++i) images.push_back(std::sin(0.01f * float(i * i)));
  }

  auto session = model.session({.max_batch = 2, .threads = 1});
  const auto features = session.features({images.data(), {2, side, side, 3}});
  double ab = 0, aa = 0, bb = 0;
  for (std::int64_t d = 0; d < features.dim(1); ++d) {
    const double a = features.row(0)[d], b = features.row(1)[d];
    ab += a * b;
    aa += a * a;
    bb += b * b;
  }
  std::printf("cosine %.4f (%zu bytes of working memory)\n", ab / std::sqrt(aa * bb),
              session.bytes());
} catch (const kd::Error& e) {
  std::fprintf(stderr, "03_infer: %s\n", e.what());
  return 1;
}
