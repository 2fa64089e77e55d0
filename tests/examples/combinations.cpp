// Every head with every loss and two necks composes and trains on drawn characters; that these are
// all that the project promises is tests/config/components.cpp. They are compiled in
// rec/components_*.cpp. Without Chinese typefaces the program ends with 77: skipped.

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <kindred/config/model.hpp>
#include <kindred/optim/optimizer.hpp>

#include "quickstart/glyphs.hpp"
#include "support/catch.hpp"

using namespace kindred;
namespace qs = kindred::quickstart;

namespace {

constexpr std::int64_t classes = 4, faces = 2, batch = classes * faces, side = 32, dim = 16;

/// Four characters in two faces, 1 for ink and -1 for paper: images [8,32,32,3].
std::vector<float> characters() {
  const auto found = qs::find_faces();
  std::vector<float> images;
  if (!found.empty()) {
    qs::Renderer renderer(found, side);
    std::vector<std::size_t> able;  // faces that have all characters
    const char32_t wanted[classes] = {0x5C71, 0x6C34, 0x9F8D, 0x5927};
    for (std::size_t f = 0; f < found.size() && able.size() < faces; ++f) {
      bool all = true;
      for (const char32_t c : wanted) all = all && renderer.draw(f, c).has_value();
      if (all) able.push_back(f);
    }
    for (std::int64_t c = 0; c < classes && able.size() == faces; ++c)
      for (const std::size_t f : able) {
        const auto picture = renderer.draw(f, wanted[c]);
        for (const std::uint8_t ink : *picture)
          images.insert(images.end(), 3, static_cast<float>(ink) / 127.5f - 1);
      }
  }
  if (images.empty()) {
    std::cout << "SKIPPED: fewer than " << faces << " Chinese typefaces; apt-get install "
              << qs::font_packages << std::endl;
    std::exit(77);
  }
  return images;
}

std::set<std::string> heads() {
  std::set<std::string> all{"FC", "ArcMargin"};  // known without a registration
  for (const auto& [name, make] : config::detail::head_registry()) all.insert(name);
  return all;
}
std::set<std::string> losses() {
  std::set<std::string> all{"CELoss", "TripletLossV2"};
  for (const auto& [name, add] : config::detail::loss_registry<Cpu>()) all.insert(name);
  return all;
}

/// The settings that a component needs besides its sizes.
std::string head_settings(const std::string& name) {
  const auto sizes = text("embedding_size: ", dim, ", class_num: ", classes);
  if (name == "CircleMargin") return sizes + ", margin: 0.25, scale: 8";
  if (name == "DynamicMargin") return sizes + ", class_counts: [2, 2, 2, 2], scale: 8";
  if (name == "ArcMargin") return sizes + ", margin: 0.1, scale: 8";
  if (name == "FC") return sizes;
  if (name == "AdaMargin") return sizes + ", s: 8";
  return sizes + ", scale: 8";
}
std::string loss_settings(const std::string& name) {
  if (name.starts_with("Proxy") || name == "SoftTripleLoss" || name == "CSQLoss" ||
      name == "GreedyHashLoss")
    return text("weight: 1.0, num_classes: ", classes, ", embedding_size: ", dim);
  if (name == "ContrastiveLoss_XBM")
    return text("weight: 1.0, xbm_size: 16, xbm_weight: 1, start_iter: 0, margin: 0.3, ",
                "embedding_size: ", dim);
  if (name == "MagRegularizer") return "weight: 1.0, l_a: 0.01, u_a: 100";
  if (name == "CenterLoss") return text("weight: 1.0, num_classes: ", classes, ", feat_dim: ", dim);
  return "weight: 1.0";
}

config::Model make(const std::string& neck, const std::string& head, const std::string& loss) {
  std::string yaml = "Arch:\n  name: RecModel\n  Backbone: {name: PPLCNet_x0_25, class_expand: ";
  yaml += text(dim, ", dropout_prob: 0}\n  BackboneStopLayer: {name: flatten}\n  Neck: {name: ");
  yaml += neck == "FC" ? text("FC, embedding_size: ", dim, ", class_num: ", dim)
                       : text("BNNeck, num_features: ", dim);
  yaml += text("}\n  Head: {name: ", head, ", ", head_settings(head), "}\nLoss:\n  Train:\n");
  if (loss != "CELoss") yaml += "    - CELoss: {weight: 1.0}\n";  // so that the head is used
  yaml += text("    - ", loss, ": {", loss_settings(loss), "}\n");
  return config::Model(config::model(config::Section(YAML::Load(yaml), "")), Seed{3});
}

/// Losses of every step of training on one batch.
std::vector<double> train(config::Model& model, const std::vector<float>& images) {
  constexpr int steps = 20;
  auto session = model.train_session({.threads = 1});
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < batch; ++i) labels.push_back(i / faces);
  const optim::Optimizer auto adam = optim::AdamW{.weight_decay = 0};
  const auto ranges = optim::ranges(model.parameters(), 0, {});
  std::vector<std::vector<float>> moments(2, std::vector<float>(model.trainable().size()));
  std::vector<double> values;
  for (int step = 0; step <= steps; ++step) {
    session.zero_gradients();
    const auto reports = session.forward_backward({images.data(), {batch, side, side, 3}}, labels,
                                                  static_cast<std::uint64_t>(step));
    double sum = 0;
    for (const auto& report : reports) sum += report.value;
    values.push_back(sum);
    adam.update(
        session.context(), std::span<const optim::Range>(ranges),
        optim::Update<float>{model.trainable(), session.gradients(), moments, 2e-3, step + 1});
  }
  return values;
}

}  // namespace

TEST_CASE("combinations: every head with every loss and two necks trains") {
  const auto images = characters();
  int count = 0;
  for (const std::string& head : heads())
    for (const std::string& loss : losses())
      for (const std::string neck : {"FC", "BNNeck"}) {
        INFO(neck << " " << head << " " << loss);
        config::Model model = make(neck, head, loss);
        const auto values = train(model, images);
        CAPTURE(values.front(), values.back());
        // The memory adds pairs in its first steps; from then on the loss must fall, too.
        const double first = loss == "ContrastiveLoss_XBM" ? values[2] : values[0];
        CHECK(values.back() < first);
        ++count;
      }
  std::cout << count << " combinations trained" << std::endl;
}
