#pragma once
// The state of a training run in one file, so that no kill can leave two halves of different steps.

#include <cstdint>
#include <filesystem>
#include <string>
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
};

/// Weights with Paddle's names, the moments of the optimizer as "optimizer.<k>" (flat, in the
/// layout of the model's parameter table), and the position in the file's metadata.
inline constexpr const char* checkpoint_format = "kindred.checkpoint.1";

/// Writes a checkpoint whole or not at all. Throws FileError; the old file is kept then.
template <class Model>
void save_checkpoint(const std::filesystem::path& path, const Model& model,
                     const std::vector<std::vector<typename Model::Scalar>>& moments,
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
                                 {"best_metric", text(std::hexfloat, at.best_metric)},
                                 {"best_epoch", std::to_string(at.best_epoch)}};
  io::save_weights(path, model.parameters(), model.trainable().data(), model.statistics().data(),
                   metadata, extras);
}

/// Reads what save_checkpoint wrote into the model and the moments. All or nothing. Throws
/// FileError for a damaged file, another model, another optimizer, another seed or another version.
template <class Model>
Position load_checkpoint(const std::filesystem::path& path, Model& model,
                         std::vector<std::vector<typename Model::Scalar>>& moments,
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
      throw FileError(text(path.string(), ": its ", key, " is ", value(key), ", this run has ",
                           mine,
                           "; resume with the settings it was made with, or start a new run"));
  };
  auto number = [&](const char* key) {
    try {
      return std::stod(value(key));
    } catch (const std::logic_error&) {
      throw FileError(text(path.string(), ": \"", key, "\" in its metadata is not a number"));
    }
  };
  demand("format", checkpoint_format);
  demand("optimizer", optimizer);
  demand("seed", std::to_string(model.seed().value));
  const Position at{static_cast<std::int64_t>(number("epoch")),
                    static_cast<std::int64_t>(number("batch")),
                    static_cast<std::int64_t>(number("step")), number("best_metric"),
                    static_cast<std::int64_t>(number("best_epoch"))};
  if (at.epoch < 0 || at.batch < 0 || at.step < 0)
    throw FileError(text(path.string(), ": negative position in its metadata"));
  std::vector<std::vector<T>> read = moments;
  for (std::size_t k = 0; k < read.size(); ++k)
    file.read(std::string(io::optimizer_prefix) + std::to_string(k), std::span<T>(read[k]));
  io::load_weights(path, model.parameters(), model.trainable().data(), model.statistics().data());
  moments = std::move(read);
  return at;
}

}  // namespace kindred::train
