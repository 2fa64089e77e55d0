#pragma once
// Batches of transformed images, prepared ahead of training by worker threads.
//
// The unit of work is one image: its position in the epoch decides the sample, the place in the
// batch and the random numbers, so the bits do not depend on who does it. Workers fill a fixed ring
// of batch buffers; a buffer is handed out when it is complete and in order, and refilled after the
// consumer has asked for the next one.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <ostream>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <opencv2/core.hpp>

#include <kindred/core/context.hpp>
#include <kindred/core/error.hpp>
#include <kindred/core/random.hpp>
#include <kindred/core/shape.hpp>
#include <kindred/data/decode.hpp>
#include <kindred/data/image_list.hpp>
#include <kindred/data/pipeline.hpp>
#include <kindred/data/samplers.hpp>

namespace kindred::data {

/// Memory of the loader; valid until its next call of next() or start().
struct Batch {
  View<const float> images;               ///< [B, H, W, 3]; nothing where there are pixels
  PixelImages pixels;                     ///< with LoaderConfig::pixels
  std::span<const std::int64_t> labels;   ///< of the images that are in the batch
  std::span<const std::int64_t> cameras;  ///< -1 where the list has none
  std::span<const std::size_t> indices;   ///< positions in the image list
  std::uint64_t epoch = 0;
  std::size_t number = 0;  ///< within the epoch

  std::size_t size() const { return indices.size(); }
  /// f(images) or f(pixels).
  template <class F>
  decltype(auto) visit(F&& f) const {
    return pixels.table != nullptr ? f(pixels) : f(images);
  }
};

/// The images that could not be used since the loader was made, each counted once.
struct UnreadableReport {
  struct Example {
    std::size_t index = 0;  ///< in the image list
    ImageFault fault{};
    std::string message;  ///< path and reason
  };
  static constexpr std::size_t most_examples = 10;

  std::array<std::size_t, image_fault_count> counts{};
  std::vector<Example> examples;  ///< the first few, in the order of the batches

  std::size_t count(ImageFault fault) const { return counts[static_cast<std::size_t>(fault)]; }
  std::size_t total() const {
    std::size_t n = 0;
    for (std::size_t c : counts) n += c;
    return n;
  }
  /// "3 unreadable images (2 missing, 1 truncated), such as" and the examples, one a line.
  friend std::ostream& operator<<(std::ostream& out, const UnreadableReport& report) {
    out << report.total() << " unreadable images";
    const char* separator = " (";
    for (int i = 0; i < image_fault_count; ++i) {
      const auto fault = static_cast<ImageFault>(i);
      if (report.count(fault) == 0) continue;
      out << separator << report.count(fault) << ' ' << name_of(fault);
      separator = ", ";
    }
    if (report.total() > 0) out << "), such as";
    for (const Example& e : report.examples) out << "\n  " << e.message;
    return out;
  }
};

/// What to do with an image that cannot be read.
enum class OnUnreadable {
  replace,  ///< training: take the next readable image of the same label, else of the list
  drop,     ///< evaluation: leave it out; Batch::indices says which images are there
};

struct LoaderConfig {
  int num_workers = 1;       ///< threads; 0 works in next()
  std::size_t prefetch = 4;  ///< batches prepared ahead
  OnUnreadable on_unreadable = OnUnreadable::replace;
  double max_unreadable = 0.5;  ///< DataError above this fraction of an epoch's images
  std::size_t cache_bytes = 0;  ///< decoded images are kept in memory up to this size
  /// Calls cv::setNumThreads(1), which holds for the whole process: threads inside of OpenCV would
  /// compete with the workers and with training.
  bool single_threaded_opencv = true;
  DecodeImage decode{};
  /// Batches of 8-bit pixels, that the device normalises with the same bits: for transforms that
  /// end in NormalizeImage.
  bool pixels = false;
  /// Memory of the batches. Cuda::allocate_results gives memory that the device copies from at full
  /// speed, and while the host goes on: TrainSession::step() and launch() may still read a batch
  /// when they return, so ask for the losses before next().
  std::shared_ptr<void> (*allocate)(std::size_t bytes) = &cpu::allocate;
};

namespace detail {

/// Decoded images of the samples and what is known about those that cannot be decoded; safe to be
/// used by several threads. What is in it never changes a result, only its cost.
class ImageStore {
 public:
  ImageStore(ImageList list, const LoaderConfig& config)
      : list_(std::move(list)),
        decode_(config.decode),
        states_(std::make_unique<std::atomic<State>[]>(list_.size())),
        budget_(config.cache_bytes) {
    if (budget_ > 0) images_.resize(list_.size());
  }
  const ImageList& list() const { return list_; }

  /// Memory of one thread, reused from image to image.
  struct Scratch {
    std::vector<unsigned char> bytes;
    cv::Mat image;
  };

  /// The pixels of a sample, which the caller may overwrite. Throws ImageError.
  cv::Mat load(std::size_t index, Scratch& scratch) {
    std::atomic<State>& state = states_[index];
    if (state.load(std::memory_order_acquire) == State::cached) {
      images_[index].copyTo(scratch.image);
      return scratch.image;
    }
    cv::Mat image = decode_(list_.path(index), scratch.bytes);
    State expected = State::unknown;
    if (budget_.load() > 0 && state.compare_exchange_strong(expected, State::writing)) {
      const bool room = reserve(image.total() * image.elemSize());
      if (room) images_[index] = image.clone();
      state.store(room ? State::cached : State::unknown, std::memory_order_release);
    }
    return image;
  }

 private:
  enum class State : std::uint8_t { unknown, writing, cached };

  bool reserve(std::size_t bytes) {
    std::size_t left = budget_.load();
    while (left >= bytes)
      if (budget_.compare_exchange_weak(left, left - bytes)) return true;
    return false;
  }

  ImageList list_;
  DecodeImage decode_;
  std::unique_ptr<std::atomic<State>[]> states_;
  std::vector<cv::Mat> images_;
  std::atomic<std::size_t> budget_;
};

/// One place of a batch after the work was done.
struct LoadedImage {
  std::size_t index = 0;                          ///< the sample that was taken
  bool present = false;                           ///< false: unreadable and not replaced
  std::vector<UnreadableReport::Example> faults;  ///< in the order in which they were met
  std::exception_ptr error;                       ///< anything but an unreadable image
};

/// Buffers of one batch. `left` counts the images still to do.
struct BatchBuffer {
  std::shared_ptr<void> memory;
  std::vector<LoadedImage> items;
  std::vector<std::int64_t> labels, cameras;
  std::vector<std::size_t> indices;
  std::size_t left = 0;

  std::byte* bytes() const { return static_cast<std::byte*>(memory.get()); }
};

}  // namespace detail

/// Delivers the batches of an epoch in order. `start(epoch)`, then `next(batch)` until it is false.
///
/// Bits depend on (list, sampler, transforms, seed, epoch) alone: not on the number of workers, nor
/// on whether the epoch was started at its first batch or later. One consumer at a time.
///
/// An image that cannot be read is counted, reported and replaced or dropped. DataError stops the
/// epoch when more than max_unreadable of its images are unreadable, or in training all images of a
/// batch of two or more, or when no replacement is found. Any other exception of a transform
/// surfaces in next() when its batch is due. After an exception start() begins anew.
class Loader {
 public:
  using Batch = data::Batch;

  Loader(ImageList list, Sampler sampler, Pipeline transforms, Seed seed, LoaderConfig config = {})
      : config_(check(config)),
        store_(std::move(list), config),
        sampler_(std::move(sampler)),
        transforms_(std::move(transforms)),
        seed_(seed),
        counted_(store_.list().size(), false) {
    if (config_.single_threaded_opencv) cv::setNumThreads(1);
    if (config_.pixels) table_ = &transforms_.table();
    if (config_.on_unreadable == OnUnreadable::replace) {
      groups_ = detail::group_by_label(list_labels());
      group_of_.resize(store_.list().size());
      for (std::size_t g = 0; g < groups_.size(); ++g)
        for (std::size_t i : groups_[g]) group_of_[i] = g;
    }
  }
  /// Stops the workers; waits at most for the images they are at.
  ~Loader() { stop(); }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const ImageList& list() const { return store_.list(); }
  /// Height, width and channels of the images.
  Shape image_shape() const { return {transforms_.size().height, transforms_.size().width, 3}; }
  /// How many batches that epoch has. Throws ConfigError if the sampler does not fit the list.
  std::size_t batches_in(std::uint64_t epoch) const {
    return sampler_.batches(list_labels(), seed_, epoch).size();
  }
  /// What the user should know about the sampler and this list, or nothing.
  std::string warning() const { return sampler_.warning(list_labels()); }

  /// Begins `epoch` at `first_batch`, wherever the loader was. Throws ConfigError.
  void start(std::uint64_t epoch, std::size_t first_batch = 0) {
    stop();
    plan_ = sampler_.batches(list_labels(), seed_, epoch);
    if (first_batch > plan_.size())
      throw ConfigError(text("Loader: epoch ", epoch, " has ", plan_.size(),
                             " batches, it cannot start at batch ", first_batch));
    epoch_ = epoch;
    due_ = next_batch_ = first_batch;
    next_item_ = 0;
    unreadable_positions_ = 0;
    reader_cost_ = 0;
    prepare_ring();
    for (int i = 0; i < config_.num_workers; ++i)
      workers_.emplace_back([this](std::stop_token token) { work(token); });
    started_ = true;
  }

  /// The next batch of the epoch, or false at its end. In evaluation, batches whose images are all
  /// unreadable are passed over.
  bool next(Batch& batch) {
    if (!started_) throw Error("Loader: call start() before next()");
    while (due_ < plan_.size()) {
      detail::BatchBuffer& buffer = wait_for(due_);
      deliver(buffer, batch);
      if (batch.size() > 0) return true;
    }
    return false;
  }

  /// What next() will deliver, if it is ready now: its images alone, which stay where they are
  /// until the next() after it. For TrainSession::prefetch(). Never ready where images may be
  /// dropped.
  bool peek(Batch& batch) {
    if (!started_ || due_ >= plan_.size() || config_.num_workers == 0 ||
        config_.on_unreadable == OnUnreadable::drop)
      return false;
    {
      const std::lock_guard lock(mutex_);
      // The buffer of the batch that is held now may be that of a later one.
      if (due_ >= released_ || buffer_of(due_).left > 0) return false;
    }
    show(buffer_of(due_), plan_[due_].size(), batch);
    return true;
  }

  /// The path of the i-th image of a batch.
  std::string describe(const Batch& batch, std::size_t i) const { return path(batch.indices[i]); }
  /// Seconds that next() spent on waiting for images since start().
  double reader_cost() const { return reader_cost_; }
  const UnreadableReport& unreadable() const { return unreadable_; }

 private:
  static LoaderConfig check(const LoaderConfig& config) {
    if (config.num_workers < 0 || config.num_workers > 1024)
      throw ConfigError(
          text("Loader: num_workers is ", config.num_workers, ", must be in 0..1024"));
    if (config.prefetch < 1 || config.prefetch > 1024)
      throw ConfigError(text("Loader: prefetch is ", config.prefetch, ", must be in 1..1024"));
    if (!(config.max_unreadable >= 0 && config.max_unreadable <= 1))
      throw ConfigError(
          text("Loader: max_unreadable is ", config.max_unreadable, ", must be in [0, 1]"));
    return config;
  }
  Labels list_labels() const { return store_.list().labels(); }
  std::size_t image_bytes() const {
    return static_cast<std::size_t>(image_shape().size()) * (config_.pixels ? 1 : sizeof(float));
  }

  // The ring. A buffer holds batch b where b % ring size is its place; batch b may be begun when
  // the consumer has let go of batch b - ring size.

  void prepare_ring() {
    const std::size_t places = config_.num_workers == 0 ? 1 : config_.prefetch + 1;
    if (ring_.size() != places) ring_ = std::vector<detail::BatchBuffer>(places);
    const std::size_t most = std::min(plan_.batch_size, plan_.indices.size());
    for (detail::BatchBuffer& buffer : ring_) {
      if (buffer.items.size() >= most) continue;
      buffer.memory = config_.allocate(most * image_bytes());
      buffer.items.resize(most);
      buffer.labels.resize(most);
      buffer.cameras.resize(most);
      buffer.indices.resize(most);
    }
    released_ = due_ + places;
    for (std::size_t b = due_; b < std::min(released_, plan_.size()); ++b)
      buffer_of(b).left = plan_[b].size();
  }
  detail::BatchBuffer& buffer_of(std::size_t batch) { return ring_[batch % ring_.size()]; }

  /// Batch `batch` complete; the buffer of the one before it is given back first.
  detail::BatchBuffer& wait_for(std::size_t batch) {
    const auto begin = std::chrono::steady_clock::now();
    if (config_.num_workers == 0) {
      for (std::size_t item = 0; item < plan_[batch].size(); ++item)
        load_item(batch, item, scratch_);
    } else {
      std::unique_lock lock(mutex_);
      if (held_) release();
      batch_done_.wait(lock, [&] { return buffer_of(batch).left == 0; });
    }
    held_ = true;
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
    reader_cost_ += waited.count();
    return buffer_of(batch);
  }
  /// The consumer is done with the oldest batch: its buffer may take the next one.
  void release() {
    if (released_ < plan_.size()) buffer_of(released_).left = plan_[released_].size();
    ++released_;
    work_or_stop_.notify_all();
  }

  void work(const std::stop_token& token) {
    detail::ImageStore::Scratch scratch;
    std::unique_lock lock(mutex_);
    for (;;) {
      const bool more = work_or_stop_.wait(
          lock, token, [this] { return next_batch_ < released_ || next_batch_ >= plan_.size(); });
      if (!more || token.stop_requested() || next_batch_ >= plan_.size()) return;
      const std::size_t batch = next_batch_, item = next_item_;
      if (++next_item_ == plan_[batch].size()) {
        ++next_batch_;
        next_item_ = 0;
      }
      lock.unlock();
      load_item(batch, item, scratch);
      lock.lock();
      if (--buffer_of(batch).left == 0) batch_done_.notify_one();
    }
  }

  void stop() {
    for (std::jthread& worker : workers_) worker.request_stop();
    workers_.clear();  // joins
    started_ = held_ = false;
  }

  // One image.

  void load_item(std::size_t batch, std::size_t item, detail::ImageStore::Scratch& scratch) {
    detail::BatchBuffer& buffer = buffer_of(batch);
    detail::LoadedImage& loaded = buffer.items[item];
    loaded.present = false;
    loaded.faults.clear();
    loaded.error = nullptr;
    const std::size_t wanted = plan_[batch][item];
    loaded.index = wanted;
    const std::uint64_t position = batch * plan_.batch_size + item;
    std::byte* out = buffer.bytes() + item * image_bytes();
    try {
      loaded.present = try_sample(wanted, position, scratch, out, loaded);
      if (!loaded.present && config_.on_unreadable == OnUnreadable::replace)
        replace(wanted, position, scratch, out, loaded);
    } catch (...) {
      loaded.error = std::current_exception();
    }
  }

  bool try_sample(std::size_t index, std::uint64_t position, detail::ImageStore::Scratch& scratch,
                  std::byte* out, detail::LoadedImage& loaded) {
    // 40 bits of position leave 2^24 epochs.
    RandomSequence random({seed_.value, stream_of("transforms"), epoch_ << 40 | position});
    try {
      if (config_.pixels)
        transforms_(store_.load(index, scratch), random, reinterpret_cast<std::uint8_t*>(out));
      else
        transforms_(store_.load(index, scratch), random, reinterpret_cast<float*>(out));
      loaded.index = index;
      return true;
    } catch (const ImageError& e) {
      loaded.faults.push_back({index, e.fault(), text(path(index), ": ", e.what())});
    } catch (const cv::Exception& e) {
      throw DataError(text(path(index), ": a transform failed in OpenCV: ", e.what()));
    }
    return false;
  }
  std::string path(std::size_t index) const { return store_.list().path(index).string(); }

  /// The next images of the same label, then the next of the list, both in a ring.
  void replace(std::size_t wanted, std::uint64_t position, detail::ImageStore::Scratch& scratch,
               std::byte* out, detail::LoadedImage& loaded) {
    constexpr std::size_t most_attempts = 16;  // of each kind; more means that the folder is gone
    const std::vector<std::size_t>& same = groups_[group_of_[wanted]];
    const auto here =
        static_cast<std::size_t>(std::lower_bound(same.begin(), same.end(), wanted) - same.begin());
    for (std::size_t i = 1; !loaded.present && i < std::min(same.size(), most_attempts + 1); ++i)
      loaded.present = try_sample(same[(here + i) % same.size()], position, scratch, out, loaded);
    const std::size_t n = store_.list().size();
    std::size_t attempts = 0;
    for (std::size_t i = 1; !loaded.present && i < n && attempts < most_attempts; ++i) {
      const std::size_t candidate = (wanted + i) % n;
      if (group_of_[candidate] == group_of_[wanted]) continue;
      ++attempts;
      loaded.present = try_sample(candidate, position, scratch, out, loaded);
    }
  }

  // Delivery: in the consumer's thread and in the order of the batches, so that reports and errors
  // do not depend on the workers.

  void deliver(detail::BatchBuffer& buffer, Batch& batch) {
    const std::size_t number = due_++;
    const std::size_t n = plan_[number].size();
    std::size_t kept = 0, faulty = 0;
    for (std::size_t item = 0; item < n; ++item) {
      detail::LoadedImage& loaded = buffer.items[item];
      if (loaded.error) fail(loaded.error);
      if (!loaded.faults.empty()) ++faulty;
      for (auto& fault : loaded.faults) count(fault);
      if (!loaded.present) continue;
      if (kept != item)  // close the gap of dropped images
        std::memcpy(buffer.bytes() + kept * image_bytes(), buffer.bytes() + item * image_bytes(),
                    image_bytes());
      const Sample& sample = store_.list()[loaded.index];
      buffer.labels[kept] = sample.label;
      buffer.cameras[kept] = sample.camera;
      buffer.indices[kept++] = loaded.index;
    }
    check_unreadable(number, n, kept, faulty);
    show(buffer, kept, batch);
    batch.labels = std::span(buffer.labels).first(kept);
    batch.cameras = std::span(buffer.cameras).first(kept);
    batch.indices = std::span(buffer.indices).first(kept);
    batch.epoch = epoch_;
    batch.number = number;
  }

  /// The first `count` images of the buffer.
  void show(const detail::BatchBuffer& buffer, std::size_t count, Batch& batch) const {
    const Shape image = image_shape();
    const Shape shape{static_cast<std::int64_t>(count), image[0], image[1], image[2]};
    batch.images = {};
    batch.pixels = {};
    if (config_.pixels)
      batch.pixels = {{reinterpret_cast<const std::uint8_t*>(buffer.bytes()), shape}, *table_};
    else
      batch.images = {reinterpret_cast<const float*>(buffer.bytes()), shape};
  }

  void count(UnreadableReport::Example& fault) {
    if (counted_[fault.index]) return;
    counted_[fault.index] = true;
    ++unreadable_.counts[static_cast<std::size_t>(fault.fault)];
    if (unreadable_.examples.size() < UnreadableReport::most_examples)
      unreadable_.examples.push_back(std::move(fault));
  }

  void check_unreadable(std::size_t number, std::size_t n, std::size_t kept, std::size_t faulty) {
    unreadable_positions_ += faulty;
    const bool training = config_.on_unreadable == OnUnreadable::replace;
    std::string why;
    if (training && n > 1 && faulty == n)
      why = text("all ", n, " images of batch ", number, " are unreadable");
    else if (training && kept < n)
      why = text("no readable image was found to replace one of batch ", number);
    else if (static_cast<double>(unreadable_positions_) >
             config_.max_unreadable * static_cast<double>(plan_.indices.size()))
      why = text(unreadable_positions_, " of the ", plan_.indices.size(), " images of epoch ",
                 epoch_, " are unreadable, more than max_unreadable = ", config_.max_unreadable);
    if (why.empty()) return;
    fail(std::make_exception_ptr(DataError(text(why, "; check image_root. ", unreadable_))));
  }

  [[noreturn]] void fail(const std::exception_ptr& error) {
    const std::exception_ptr kept = error;  // stop() may end the buffer it lies in
    stop();
    std::rethrow_exception(kept);
  }

  LoaderConfig config_;
  detail::ImageStore store_;
  Sampler sampler_;
  Pipeline transforms_;
  Seed seed_;
  const PixelTable* table_ = nullptr;             // of the transforms, for pixels
  std::vector<std::vector<std::size_t>> groups_;  // images by label, ascending; to replace one
  std::vector<std::size_t> group_of_;

  // The epoch under way; not changed while workers run.
  EpochBatches plan_;
  std::uint64_t epoch_ = 0;
  std::vector<detail::BatchBuffer> ring_;

  // The consumer's.
  bool started_ = false, held_ = false;
  std::size_t due_ = 0;  // the batch that next() delivers
  std::size_t unreadable_positions_ = 0;
  double reader_cost_ = 0;
  UnreadableReport unreadable_;
  std::vector<bool> counted_;
  detail::ImageStore::Scratch scratch_;

  // Shared with the workers, under the mutex.
  std::mutex mutex_;
  std::condition_variable_any work_or_stop_;
  std::condition_variable batch_done_;
  std::size_t released_ = 0;  // batches below it may be begun
  std::size_t next_batch_ = 0, next_item_ = 0;

  std::vector<std::jthread> workers_;  // last: joined before anything else ends
};

}  // namespace kindred::data
