// The least program of another project: a network, its features of one image, and its weights.

#include <algorithm>
#include <cstdio>

#include <kindred/io/weights.hpp>
#include <kindred/kindred.hpp>

namespace kd = kindred;

using Model = kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::FC, kd::loss::CELoss>;

Model make_model(kd::Seed seed) {
  return Model({.backbone = {.scale = 0.25, .class_expand = 64},
                .neck = {.embedding_size = 64, .class_num = 16},
                .head = {.embedding_size = 16, .class_num = 10}},
               seed);
}

int main() {
  const Model model = make_model(kd::Seed{1});
  kd::io::save_weights("consumer.safetensors", model.parameters(), model.trainable().data(),
                       model.statistics().data());
  Model copy = make_model(kd::Seed{2});
  kd::io::load_weights("consumer.safetensors", copy.parameters(), copy.trainable().data(),
                       copy.statistics().data());

  xt::xtensor<float, 4> image = xt::xtensor<float, 4>::from_shape({1, 64, 64, 3});
  std::fill(image.begin(), image.end(), 0.5f);
  const auto a = model.session().features(image), b = copy.session().features(image);
  std::printf("%zu features, the first is %f; the copy's is %f\n", a.size(), a(0, 0), b(0, 0));
  return a == b ? 0 : 1;
}
