#pragma once
// The commands of the program rec; see main.cpp.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace rec {

struct Options {
  std::filesystem::path config;
  std::vector<std::string> overrides;
  std::filesystem::path weights;  ///< empty: OUTPUT/latest.safetensors
  bool resume = false;
  std::filesystem::path out;       ///< of extract
  std::filesystem::path features;  ///< of query
  std::filesystem::path image;     ///< of query
  int k = 10;
  int queries = 12;
  std::filesystem::path methods;  ///< file of methods
  std::vector<std::string> only;  ///< names of methods; empty: all
  double seconds = 8;             ///< of training for each method and seed
  int seeds = 5;
  std::int64_t items = 1'000'000;  ///< that codes are searched among
};

void train(const Options& options);
void evaluate(const Options& options);
/// Metrics of raw pixels, the untrained and the trained network, and ranking lists, for a report.
void compare(const Options& options);
void extract(const Options& options);
/// Trains many heads and losses under the same conditions; a table and a plot.
void methods(const Options& options);
void query(const Options& options);
/// mAP of packed codes beside that of their features, and the speed of the Hamming search.
void codes(const Options& options);

}  // namespace rec
