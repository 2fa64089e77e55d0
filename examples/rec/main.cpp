// rec: train, evaluate and use a model that a YAML file describes, as PaddleClas' tools do.
//   rec train   -c examples/configs/quickstart.yaml -o Global.epochs=5
//   rec eval    -c ...                    metrics of the trained model
//   rec extract -c ... --out test.npy     features of the evaluation images, and their paths
//   rec query   -c ... --features test.npy --image some.png
//   rec codes   -c ...                    mAP of packed codes beside the features', queries per
//   second rec methods -c ... --methods examples/configs/methods.yaml --out comparison

#include <cstdio>
#include <exception>

#include <CLI/CLI.hpp>

#include "commands.hpp"

int main(int argc, char** argv) {
  CLI::App app{"Feature learning from a YAML file: train, evaluate, extract features, query."};
  app.require_subcommand(1);
  rec::Options options;

  const auto command = [&](const char* name, const char* help, void (*run)(const rec::Options&)) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->add_option("-c,--config", options.config, "YAML file")->required();
    sub->add_option("-o,--override", options.overrides,
                    "section.key=value in place of what the file says; repeatable")
        ->expected(1)
        ->take_all();
    sub->callback([&options, run] { run(options); });
    return sub;
  };
  const auto with_weights = [&](CLI::App* sub) {
    sub->add_option("-w,--weights", options.weights,
                    "safetensors file [latest.safetensors in Global.output_dir]");
    return sub;
  };
  command("train", "Train; checkpoints and logs go to Global.output_dir", rec::train)
      ->add_flag("--resume", options.resume, "continue from latest.safetensors, if it is there");
  with_weights(command("eval", "Print retrieval metrics on DataLoader.Eval", rec::evaluate));
  CLI::App* compare = with_weights(command(
      "compare", "Metrics of raw pixels, the untrained and the trained network, for a report",
      rec::compare));
  compare->add_option("--queries", options.queries, "ranking lists of each kind")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  compare->add_option("-k", options.k, "length of a ranking list")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  with_weights(command("extract", "Write the features of DataLoader.Eval and their image paths",
                       rec::extract))
      ->add_option("--out", options.out, "NAME.npy; the paths go to NAME.txt")
      ->required();
  CLI::App* query = with_weights(
      command("query", "Print the images whose features are nearest to an image's", rec::query));
  query->add_option("--features", options.features, "what `rec extract` wrote")->required();
  query->add_option("--image", options.image, "the image to look for")->required();
  query->add_option("-k", options.k, "how many")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  CLI::App* codes = with_weights(command(
      "codes", "Print metrics of packed codes beside those of the features, and their speed",
      rec::codes));
  codes->add_option("-k", options.k, "neighbours of the timed search")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  codes
      ->add_option("--items", options.items, "codes of the timed search, repeated from the gallery")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000'000));
#ifndef REC_CUDA
  CLI::App* methods = command(
      "methods", "Train many heads and losses for the same time; write one table and one plot",
      rec::methods);
  methods->add_option("--methods", options.methods, "YAML file: see examples/configs/methods.yaml")
      ->required();
  methods->add_option("--only", options.only, "names of methods [all of the file]");
  methods->add_option("--seconds", options.seconds, "training time of each method and seed")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 1e6));
  methods->add_option("--seeds", options.seeds, "training runs of each method")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  methods->add_option("--out", options.out, "folder for methods.md, methods.svg and the runs")
      ->required();
#endif

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "rec: %s\n", e.what());
    return 1;
  }
  return 0;
}
