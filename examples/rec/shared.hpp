#pragma once
// What several commands of rec do alike.

#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "commands.hpp"
#include "experiment.hpp"

namespace rec {

inline Model trained_model(const Experiment& experiment, const Options& options) {
  Model model = experiment.make_model();
  Experiment::load(model, options.weights.empty() ? experiment.output() / "latest.safetensors"
                                                  : options.weights);
  return model;
}

inline auto features_of(kindred::Session<Model>& session) {
  return [&session](const auto& images) { return session.features(images); };
}

inline void print_progress(std::size_t done, std::size_t total) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\r\033[K%zu of %zu images", done, total);
  if (done >= total) std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
}

inline void report_unreadable(const kindred::data::Loader& loader) {
  if (loader.unreadable().total() > 0) std::cerr << loader.unreadable() << '\n';
}

}  // namespace rec
