#pragma once
// The memory of one pass, planned once and then replayed without allocating.
//
// A pass (a training step, an inference) is run once in recording mode: nothing is computed, but
// every request for memory and every release is noted, with the shapes checked on the way. From the
// lifetimes the plan assigns offsets so that memory is shared by what never lives at the same time.
// Later passes over the same shapes replay the plan: the i-th request gets the i-th offset.
// Therefore the sequence of requests may depend on shapes and settings, never on data.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/shape.hpp>

namespace kindred {

/// The recorded requests of one pass with their places in one block of memory.
class Plan {
 public:
  struct Request {
    std::size_t bytes = 0;
    std::size_t offset = 0;
    std::int64_t birth = 0, death = 0;  ///< positions in the sequence of requests and releases
    const char* label = "";
  };

  std::size_t bytes() const { return bytes_; }
  const std::vector<Request>& requests() const { return requests_; }

  /// Bytes alive at the same time at the worst moment: the lower bound of any placement.
  std::size_t peak_live_bytes() const {
    std::vector<std::pair<std::int64_t, std::int64_t>> changes;
    for (const Request& r : requests_) {
      changes.emplace_back(r.birth, static_cast<std::int64_t>(r.bytes));
      changes.emplace_back(r.death, -static_cast<std::int64_t>(r.bytes));
    }
    std::sort(changes.begin(), changes.end());
    std::int64_t live = 0, peak = 0;
    for (const auto& change : changes) peak = std::max(peak, live += change.second);
    return static_cast<std::size_t>(peak);
  }

  /// The plan in words: total, lower bound and the largest requests.
  friend std::ostream& operator<<(std::ostream& out, const Plan& plan) {
    out << plan.bytes_ << " bytes planned (" << plan.peak_live_bytes() << " alive at the peak) for "
        << plan.requests_.size() << " arrays; largest:";
    std::vector<Request> by_size = plan.requests_;
    std::stable_sort(by_size.begin(), by_size.end(),
                     [](const Request& a, const Request& b) { return a.bytes > b.bytes; });
    for (std::size_t i = 0; i < std::min<std::size_t>(5, by_size.size()); ++i)
      out << ' ' << by_size[i].label << ' ' << by_size[i].bytes << (i < 4 ? ";" : "");
    return out;
  }

 private:
  friend class Arena;

  /// Best-fit by decreasing size: each request goes to the lowest gap that is free while it lives.
  void place() {
    std::vector<Request*> order;
    for (Request& r : requests_) order.push_back(&r);
    std::stable_sort(order.begin(), order.end(),
                     [](const Request* a, const Request* b) { return a->bytes > b->bytes; });
    std::vector<const Request*> placed;  // by offset
    bytes_ = 0;
    for (Request* r : order) {
      std::size_t offset = 0;
      for (const Request* other : placed) {
        if (other->death <= r->birth || r->death <= other->birth) continue;
        if (offset + r->bytes <= other->offset) break;
        offset = std::max(offset, other->offset + other->bytes);
      }
      r->offset = offset;
      bytes_ = std::max(bytes_, offset + r->bytes);
      placed.insert(std::upper_bound(
                        placed.begin(), placed.end(), r,
                        [](const Request* a, const Request* b) { return a->offset < b->offset; }),
                    r);
    }
  }

  std::vector<Request> requests_;
  std::size_t bytes_ = 0;
};

/// Hands out the memory of a pass: records a Plan, or replays one in a block that only grows.
class Arena {
 public:
  /// Allocates `bytes` on the device of the arena; the deleter frees them.
  using Allocator = std::shared_ptr<void> (*)(std::size_t bytes);
  static constexpr std::size_t alignment = 64;

  explicit Arena(Allocator allocator) : allocator_(allocator) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  bool recording() const { return mode_ == Mode::record; }

  /// Starts a recording pass. Requests return an address that must not be read or written.
  void begin_recording() {
    begin(Mode::record);
    recorded_ = Plan{};
  }
  /// Ends the recording pass and returns its plan.
  Plan end_recording() {
    for (Plan::Request& r : recorded_.requests_)
      if (r.death < 0) r.death = clock_ + 1;
    recorded_.place();
    mode_ = Mode::idle;
    ++pass_;
    return std::move(recorded_);
  }
  /// Starts a pass over the same shapes as the one recorded in `plan`, which must outlive it.
  void begin_replay(const Plan& plan) {
    try {
      reserve(plan.bytes());
    } catch (const DeviceError& e) {
      throw DeviceError(text(e.what(), "; ", plan));
    }
    begin(Mode::replay);
    plan_ = &plan;
    if (poison_ && plan.bytes() > 0) std::memset(block_.get(), 0xFF, plan.bytes());
  }
  /// Grows the block to at least `bytes`.
  void reserve(std::size_t bytes) {
    if (bytes <= capacity_) return;
    block_.reset();
    capacity_ = 0;
    block_ = allocator_(bytes);
    capacity_ = bytes;
  }
  std::size_t capacity() const { return capacity_; }

  /// For tests, in host memory: fills memory with NaN before the pass and again when it is
  /// released.
  void set_poison(bool on) { poison_ = on; }

  struct Ticket {
    void* data = nullptr;
    std::size_t index = 0;
    std::uint64_t pass = 0;
  };
  Ticket request(std::size_t bytes, const char* label) {
    bytes = (bytes + alignment - 1) / alignment * alignment;
    const std::size_t index = next_++;
    switch (mode_) {
      case Mode::record:
        recorded_.requests_.push_back({bytes, 0, ++clock_, -1, label});
        return {reinterpret_cast<void*>(alignment), index, pass_};
      case Mode::replay: {
        if (index >= plan_->requests_.size() || plan_->requests_[index].bytes != bytes)
          throw Error(text("the memory plan was recorded for another pass: request ", index, " (",
                           label, ", ", bytes, " bytes) is not in it"));
        return {static_cast<char*>(block_.get()) + plan_->requests_[index].offset, index, pass_};
      }
      default:
        throw Error(text("memory for ", label, " was requested outside of a planned pass"));
    }
  }
  void release(const Ticket& ticket) {
    if (ticket.pass != pass_) return;  // left over from an earlier pass
    if (mode_ == Mode::record) {
      recorded_.requests_[ticket.index].death = ++clock_;
    } else if (mode_ == Mode::replay && poison_ && plan_->requests_[ticket.index].bytes > 0) {
      std::memset(ticket.data, 0xFF, plan_->requests_[ticket.index].bytes);
    }
  }

 private:
  enum class Mode { idle, record, replay };

  void begin(Mode mode) {
    mode_ = mode;
    ++pass_;
    next_ = 0;
    clock_ = 0;
  }

  Allocator allocator_;
  std::shared_ptr<void> block_;
  std::size_t capacity_ = 0;
  Mode mode_ = Mode::idle;
  Plan recorded_;
  const Plan* plan_ = nullptr;
  std::uint64_t pass_ = 0;
  std::size_t next_ = 0;
  std::int64_t clock_ = 0;
  bool poison_ = false;
};

/// A view of memory from an Arena, released when the tensor is destroyed. Moving it moves the duty
/// to release: `y = layer.forward(run, std::move(x))` tells the plan that x may end there.
template <class T>
class Tensor : public View<T> {
 public:
  Tensor() = default;
  Tensor(Arena& arena, const Shape& extents, const char* label)
      : View<T>{nullptr, extents}, arena_(&arena) {
    std::int64_t bytes = 0;
    if (__builtin_mul_overflow(extents.size(), static_cast<std::int64_t>(sizeof(T)), &bytes))
      throw ShapeError(text(label, " of shape ", extents, " does not fit into memory"));
    ticket_ = arena.request(static_cast<std::size_t>(bytes), label);
    this->data = static_cast<T*>(ticket_.data);
  }
  Tensor(Tensor&& other) noexcept { swap(other); }
  Tensor& operator=(Tensor&& other) noexcept {
    if (this != &other) {
      reset();
      swap(other);
    }
    return *this;
  }
  ~Tensor() { reset(); }

  bool empty() const { return arena_ == nullptr; }
  /// Ends the life of the array.
  void reset() {
    if (arena_ != nullptr) arena_->release(ticket_);
    arena_ = nullptr;
    View<T>::operator=(View<T>{});
  }

 private:
  void swap(Tensor& other) noexcept {
    std::swap(static_cast<View<T>&>(*this), static_cast<View<T>&>(other));
    std::swap(arena_, other.arena_);
    std::swap(ticket_, other.ticket_);
  }

  Arena* arena_ = nullptr;
  Arena::Ticket ticket_;
};

}  // namespace kindred
