#pragma once
// Shared by the tests of training: batches made in memory, and what a run leaves.

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <kindred/train/trainer.hpp>

#include "io/files.hpp"

namespace kindred::test {

inline constexpr std::int64_t classes = 3, side = 32, batch_size = 6;

/// Batches that are functions of (epoch, number): noise around an image of each class.
class MemoryLoader {
 public:
  struct Batch {
    View<const float> images;
    std::span<const std::int64_t> labels;
    std::uint64_t epoch = 0;
    std::size_t number = 0;
  };
  /// Called before a batch is handed out; may change it or throw.
  using Hook = std::function<void(const Batch&, std::vector<float>&, std::vector<std::int64_t>&)>;

  explicit MemoryLoader(std::size_t batches, Hook hook = {})
      : batches_(batches), hook_(std::move(hook)) {}

  std::size_t batches_in(std::uint64_t) const { return batches_; }
  void start(std::uint64_t epoch, std::size_t first) {
    epoch_ = epoch;
    next_ = first;
  }
  bool next(Batch& batch) {
    if (next_ >= batches_) return false;
    fill();
    batch.epoch = epoch_;
    batch.number = next_;
    if (hook_) hook_(batch, images_, labels_);
    const auto n = static_cast<std::int64_t>(labels_.size());
    batch.images = {images_.data(), {n, side, side, 3}};
    batch.labels = labels_;
    ++next_;
    return true;
  }
  std::string describe(const Batch& batch, std::size_t i) const {
    return text("image ", batch.number, '/', i, " in memory");
  }
  double reader_cost() const { return 0; }
  std::string warning() const { return {}; }

 private:
  void fill() {
    RandomSequence random({17, epoch_, next_});
    labels_.resize(batch_size);
    images_.clear();
    for (std::size_t b = 0; b < labels_.size(); ++b) {
      labels_[b] = static_cast<std::int64_t>(b) / 2;
      RandomSequence image({18, static_cast<std::uint64_t>(labels_[b]), 0});
      for (std::int64_t i = 0; i < side * side * 3; ++i)
        images_.push_back(static_cast<float>(image.uniform(-1, 1) + random.uniform(-1, 1)));
    }
  }

  std::size_t batches_;
  Hook hook_;
  std::uint64_t epoch_ = 0;
  std::size_t next_ = 0;
  std::vector<float> images_;
  std::vector<std::int64_t> labels_;
};

struct Interruption : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws Interruption instead of handing out batch number `most` (counted over the whole run).
inline MemoryLoader::Hook interrupt_after(int most) {
  return [most, n = 0](const auto&, auto&, auto&) mutable {
    if (n++ == most) throw Interruption("unplugged");
  };
}

/// The lines of metrics.jsonl without what depends on the clock.
inline std::string journal_of(const std::filesystem::path& output) {
  std::ifstream in(output / "metrics.jsonl");
  std::string lines;
  for (std::string row; std::getline(in, row);) {
    auto json = nlohmann::json::parse(row);
    json.erase("images_per_second");
    json.erase("reader_seconds");
    lines += json.dump() + "\n";
  }
  return lines;
}

/// All that a run leaves: parameters, statistics, moments, position and best metric are in
/// `latest`.
struct Remains {
  std::string latest, best, journal;
  explicit Remains(const std::filesystem::path& output)
      : latest(read_bytes(output / "latest.safetensors")),
        best(read_bytes(output / "best_model.safetensors")),
        journal(journal_of(output)) {}
  friend bool operator==(const Remains&, const Remains&) = default;
};

}  // namespace kindred::test
