#include "commands.hpp"

#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include <kindred/io/npy.hpp>

#include "shared.hpp"

namespace rec {

void train(const Options& options) {
  const Experiment experiment(options.config, options.overrides);
  Model model = experiment.make_model();
  fmt::print("{} parameters, {} features, {} classes, {} logits matrix\n",
             model.parameters().trainable_count(), model.feature_size(), model.class_num(),
             model.builds_logits() ? "with a" : "without a");
  const auto result = experiment.train(model, options.resume);
  fmt::print("{} steps, loss {:.4f}", result.steps, result.loss);
  if (result.best_epoch > 0)
    fmt::print(", best recall@1 {:.4f} after epoch {}", result.best_metric, result.best_epoch);
  fmt::print("; checkpoints in {}\n", experiment.output().string());
}

void evaluate(const Options& options) {
  const Experiment experiment(options.config, options.overrides);
  const Model model = trained_model(experiment, options);
  auto evaluation = experiment.evaluation();
  auto session = model.session({.activations = experiment.evaluation_activations()});
  const auto result = evaluation(features_of(session), print_progress);
  std::cout << result << '\n';
  const auto print = [](const std::vector<kindred::train::Metric>& metrics) {
    for (const auto& metric : metrics) fmt::print("{} {:.5g}\n", metric.name, metric.value);
  };
  print(evaluation.further());
  print(evaluation.classify([&](kindred::View<const float> x) { return session.logits(x); }));
  if (evaluation.class_report()) {
    const auto file = experiment.output() / "class_report.tsv";
    kindred::io::AtomicFile table(file);
    table.write(kindred::config::class_table(*evaluation.class_report()));
    table.commit();
    fmt::print("{} classes, the worst first, in {}\n", evaluation.class_report()->labels.size(),
               file.string());
  }
  report_unreadable(evaluation.query());
}

void extract(const Options& options) {
  const Experiment experiment(options.config, options.overrides);
  const Model model = trained_model(experiment, options);
  auto evaluation = experiment.evaluation();
  auto session = model.session({.activations = experiment.evaluation_activations()});
  // What can be searched is the gallery; with one set it is the gallery, too.
  kindred::data::Loader& loader =
      evaluation.gallery() != nullptr ? *evaluation.gallery() : evaluation.query();
  const auto table = kindred::data::extract_features(loader, features_of(session), print_progress);
  kindred::io::write_npy(options.out, table.features());
  auto names = options.out;
  names.replace_extension(".txt");
  kindred::io::AtomicFile list(names);
  for (std::size_t i = 0; i < table.ids.size(); ++i)
    list.write(fmt::format("{} {}\n",
                           loader.list().path(static_cast<std::size_t>(table.ids[i])).string(),
                           table.labels[i]));
  list.commit();
  fmt::print("{} features of {} numbers in {}, paths in {}\n", table.size(), table.width,
             options.out.string(), names.string());
  report_unreadable(loader);
}

void query(const Options& options) {
  const Experiment experiment(options.config, options.overrides);
  const Model model = trained_model(experiment, options);
  const auto gallery = kindred::io::read_npy<float>(options.features);
  auto names = options.features;
  names.replace_extension(".txt");
  const kindred::data::ImageList list(
      {.image_root = "/", .cls_label_path = names});  // absolute paths win over the root
  if (gallery.shape.rank() != 2 || gallery.shape[0] != static_cast<std::int64_t>(list.size()))
    throw kindred::FileError(kindred::text(options.features.string(), " has shape ", gallery.shape,
                                           ", but ", names.string(), " has ", list.size(),
                                           " lines; write both with rec extract"));
  // One image through the transforms of DataLoader.Eval.
  auto loader = experiment.evaluation_loader_for(options.image);
  auto session = model.session({.activations = experiment.evaluation_activations()});
  const auto feature = kindred::data::extract_features(*loader, features_of(session));
  const auto nearest = kindred::eval::top_k({.features = feature.features()},
                                            {.features = {gallery.values.data(), gallery.shape}},
                                            std::min<std::int64_t>(options.k, gallery.shape[0]));
  for (std::size_t i = 0; i < nearest.indices.size(); ++i)
    fmt::print("{:3} {:.4f} {}\n", i + 1, nearest.scores[i],
               list[static_cast<std::size_t>(nearest.indices[i])].path);
}

}  // namespace rec
