#pragma once
// The state of a training run in one file, so that no kill can leave two halves of different steps.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <kindred/io/weights.hpp>

namespace kindred::train {

/// Where a run stands. Samplers, augmentation and dropout are functions of (seed, epoch, step), so
/// these numbers are the whole state of its random numbers and data.
struct Position {
  std::int64_t epoch = 0;       ///< epochs done
  std::int64_t batch = 0;       ///< batches done in the epoch under way
  std::int64_t step = 0;        ///< optimizer steps done
  double best_metric = -1e300;  ///< of the evaluations so far
  std::int64_t best_epoch = 0;  ///< 0: none yet
  std::vector<double> scores;   ///< first metric of every evaluation so far, where it is finite
  /// Batches since the last log line and the sums of their losses, so that a resumed run logs the
  /// same lines as one that was never interrupted.
  std::int64_t log_batches = 0;
  std::vector<double> log_losses;
};

/// Weights with Paddle's names, the state of the optimizers as "optimizer.<k>" (flat, in the layout
/// of the model's parameter table), and the position in the file's metadata.
inline constexpr const char* checkpoint_format = "kindred.checkpoint.2";

namespace detail {

/// The shortest text that gives the same number again, in every locale.
inline std::string exact(double value) {
  char buffer[32];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
}

inline std::string exact(const std::vector<double>& values) {
  std::string out;
  for (const double value : values) {
    if (!out.empty()) out += ' ';
    out += exact(value);
  }
  return out;
}

/// Numbers separated by spaces, or nothing if `words` has anything else.
template <class T>
std::vector<T> numbers(const std::string& words) {
  std::vector<T> out;
  const char *at = words.data(), *end = at + words.size();
  while (at != end) {
    T value{};
    const auto [rest, fault] = std::from_chars(at, end, value);
    const bool finite = std::isfinite(static_cast<double>(value));
    if (fault != std::errc{} || !finite || (rest != end && *rest != ' ')) return {};
    out.push_back(value);
    at = rest == end ? end : rest + 1;
  }
  return out;
}

}  // namespace detail

/// Writes a checkpoint whole or not at all. `moments` are any flat arrays, `optimizer` says in
/// words without meaning here whose they are. Throws FileError; the old file is kept then.
template <class Model>
void save_checkpoint(const std::filesystem::path& path, const Model& model,
                     const std::vector<typename Model::Array>& moments,
                     const std::string& optimizer, const Position& at) {
  std::vector<io::FlatTensor<typename Model::Scalar>> extras;
  for (std::size_t k = 0; k < moments.size(); ++k)
    extras.push_back({std::string(io::optimizer_prefix) + std::to_string(k), moments[k]});
  const io::Metadata metadata = {{"format", checkpoint_format},
                                 {"optimizer", optimizer},
                                 {"seed", std::to_string(model.seed().value)},
                                 {"epoch", std::to_string(at.epoch)},
                                 {"batch", std::to_string(at.batch)},
                                 {"step", std::to_string(at.step)},
                                 {"best_metric", detail::exact(at.best_metric)},
                                 {"best_epoch", std::to_string(at.best_epoch)},
                                 {"log_batches", std::to_string(at.log_batches)},
                                 {"log_losses", detail::exact(at.log_losses)},
                                 {"scores", detail::exact(at.scores)}};
  io::save_weights(path, model.parameters(), model.trainable().data(), model.statistics().data(),
                   metadata, extras);
}

/// Reads what save_checkpoint wrote into the model and the moments. All or nothing. Throws
/// FileError for a damaged file, another model, another optimizer, another seed or another version.
template <class Model>
Position load_checkpoint(const std::filesystem::path& path, Model& model,
                         std::vector<typename Model::Array>& moments,
                         const std::string& optimizer) {
  using T = typename Model::Scalar;
  const io::SafetensorsFile file(path);
  auto value = [&](const char* key) -> std::string {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end())
      throw FileError(text(path.string(), ": no \"", key,
                           "\" in its metadata; not a checkpoint of ", "a kindred training run"));
    return found->second;
  };
  auto demand = [&](const char* key, const std::string& mine) {
    if (value(key) != mine)
      throw FileError(text(path.string(), ": its ", key, " is ", io::printable(value(key)),
                           ", this run has ", mine,
                           "; resume with the settings it was made with, or start a new run"));
  };
  auto bad = [&](const char* key) {
    return FileError(text(path.string(), ": \"", key, "\" in its metadata is \"",
                          io::printable(value(key)), "\", which no run can have written"));
  };
  auto count = [&](const char* key) {
    const auto read = detail::numbers<std::int64_t>(value(key));
    if (read.size() != 1 || read[0] < 0) throw bad(key);
    return read[0];
  };
  demand("format", checkpoint_format);
  demand("optimizer", optimizer);
  demand("seed", std::to_string(model.seed().value));
  const auto best = detail::numbers<double>(value("best_metric"));
  if (best.size() != 1) throw bad("best_metric");
  const Position at{.epoch = count("epoch"),
                    .batch = count("batch"),
                    .step = count("step"),
                    .best_metric = best[0],
                    .best_epoch = count("best_epoch"),
                    .scores = detail::numbers<double>(value("scores")),
                    .log_batches = count("log_batches"),
                    .log_losses = detail::numbers<double>(value("log_losses"))};
  if (at.log_losses.size() != static_cast<std::size_t>(model.loss().entries()))
    throw bad("log_losses");
  if (at.scores.empty() && !value("scores").empty()) throw bad("scores");
  std::vector<typename Model::Array> read = moments;
  for (std::size_t k = 0; k < read.size(); ++k)
    file.read(std::string(io::optimizer_prefix) + std::to_string(k), std::span<T>(read[k]));
  for (const auto& m : read)
    if (!std::all_of(m.begin(), m.end(), [](T v) { return std::isfinite(v); }))
      throw FileError(text(path.string(), ": the state of the optimizer is not finite"));
  io::load_weights(path, model.parameters(), model.trainable().data(), model.statistics().data());
  moments = std::move(read);
  return at;
}

}  // namespace kindred::train
