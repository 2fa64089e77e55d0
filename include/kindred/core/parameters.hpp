#pragma once
// The table of a model's parameters. Components declare what they need and keep a ParameterRef;
// the values of all trainable parameters lie in one flat buffer (as do gradients and moments), the
// running statistics in a second one.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <kindred/core/arena.hpp>
#include <kindred/core/random.hpp>
#include <kindred/core/shape.hpp>

namespace kindred {

enum class ParameterKind { weight, bias, norm, center, buffer };

inline const char* name_of(ParameterKind kind) {
  constexpr const char* names[] = {"weight", "bias", "norm", "center", "buffer"};
  return names[static_cast<int>(kind)];
}

/// How a parameter starts. Fans are resolved where it is made, so only these four remain.
struct Initializer {
  enum class Kind { constant, normal, uniform, values } kind = Kind::constant;
  double a = 0;                                               ///< value | mean | low
  double b = 0;                                               ///< -     | standard deviation | high
  std::shared_ptr<const std::vector<double>> list = nullptr;  ///< Kind::values: every element

  static Initializer constant(double value) { return {Kind::constant, value, 0}; }
  static Initializer normal(double mean, double deviation) {
    return {Kind::normal, mean, deviation};
  }
  static Initializer uniform(double low, double high) { return {Kind::uniform, low, high}; }
  /// Given element by element; the list must be as long as the parameter.
  static Initializer values(std::vector<double> list) {
    return {Kind::values, 0, 0, std::make_shared<const std::vector<double>>(std::move(list))};
  }
  /// Normal(0, sqrt(2 / (in + out))): paddle.nn.initializer.XavierNormal.
  static Initializer xavier_normal(std::int64_t fan_in, std::int64_t fan_out) {
    return normal(0, std::sqrt(2.0 / static_cast<double>(fan_in + fan_out)));
  }
  /// Uniform(+-sqrt(6 / (in + out))): the default of paddle.nn.Linear.
  static Initializer xavier_uniform(std::int64_t fan_in, std::int64_t fan_out) {
    const double limit = std::sqrt(6.0 / static_cast<double>(fan_in + fan_out));
    return uniform(-limit, limit);
  }
  /// Normal(0, sqrt(2 / fan_in)): paddle.nn.initializer.KaimingNormal with its default gain.
  static Initializer kaiming_normal(std::int64_t fan_in) {
    return normal(0, std::sqrt(2.0 / static_cast<double>(fan_in)));
  }

  /// Fills `values`; element i depends on (key, i) alone.
  template <class T>
  void fill(View<T> values, RandomKey key) const {
    for (std::int64_t i = 0; i < values.size(); ++i) {
      key.step = static_cast<std::uint64_t>(i);
      RandomSequence random(key);
      const double value = kind == Kind::constant ? a
                           : kind == Kind::values ? list->at(static_cast<std::size_t>(i))
                           : kind == Kind::normal ? a + b * random.normal()
                                                  : random.uniform(a, b);
      values[i] = static_cast<T>(value);
    }
  }
};

/// How a parameter is stored in files that follow Paddle, relative to its layout in memory.
enum class FileLayout {
  same,
  transposed,   ///< matrix: file [n, m], memory [m, n] (class centres: Paddle has [D, C])
  convolution,  ///< file [O, I, kh, kw], memory [kh, kw, I, O]
};

struct ParameterInfo {
  std::string name;  ///< as Paddle names it: "backbone.conv1.conv.weight"
  Shape shape;
  ParameterKind kind = ParameterKind::weight;
  Initializer initializer;
  FileLayout layout = FileLayout::same;
  double lr_multiplier = 1;          ///< effective rate = rate * multiplier; 0 freezes
  double decay_multiplier = 1;       ///< effective decay = decay * multiplier
  std::int64_t offset = 0;           ///< first element, in the flat buffer of its region
  std::string loss{};                ///< name of the loss that declared it: "CenterLoss"
  bool updated_in_tile = false;      ///< its gradient is not stored, see Scope::updated_in_tile
  std::int64_t gradient_offset = 0;  ///< first element in the gradients; -1 without one
};

/// Where a component finds one of its parameters.
struct ParameterRef {
  std::int64_t offset = -1;
  Shape shape;
  std::int64_t gradient_offset = -1;  ///< that of ParameterInfo
};

/// All parameters in order of declaration. Two regions: trainable values, and buffers. Gradients
/// have the layout of the trainable values, without those that are updated in tiles.
class ParameterTable {
 public:
  ParameterRef add(ParameterInfo info) {
    if (!index_.emplace(info.name, entries_.size()).second)
      throw ConfigError(text("two parameters are named ", info.name));
    const bool buffer = info.kind == ParameterKind::buffer;
    if (buffer) info.updated_in_tile = false;
    if (info.updated_in_tile && updated_in_tile() != nullptr)
      throw ConfigError(text("only one parameter can be updated in tiles, not both ",
                             updated_in_tile()->name, " and ", info.name));
    constexpr std::int64_t line = 16;  // elements; keeps every parameter aligned for vector loads
    const std::int64_t size = (info.shape.size() + line - 1) / line * line;
    std::int64_t& end = buffer ? buffer_size_ : trainable_size_;
    info.offset = end;
    end += size;
    info.gradient_offset = -1;
    if (info.updated_in_tile) {
      in_tile_ = static_cast<std::ptrdiff_t>(entries_.size());
    } else if (!buffer) {
      info.gradient_offset = gradient_size_;
      gradient_size_ += size;
    }
    entries_.push_back(info);
    return {info.offset, info.shape, info.gradient_offset};
  }

  const std::vector<ParameterInfo>& entries() const { return entries_; }
  /// The entry of that name, or nullptr.
  const ParameterInfo* find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &entries_[found->second];
  }
  /// The parameter whose gradient is not stored, or nullptr.
  const ParameterInfo* updated_in_tile() const {
    return in_tile_ < 0 ? nullptr : &entries_[static_cast<std::size_t>(in_tile_)];
  }
  std::int64_t trainable_size() const { return trainable_size_; }
  std::int64_t gradient_size() const { return gradient_size_; }
  std::int64_t buffer_size() const { return buffer_size_; }
  /// Trainable values without the padding between parameters.
  std::int64_t trainable_count() const { return count(false); }
  std::int64_t buffer_count() const { return count(true); }

 private:
  std::int64_t count(bool buffers) const {
    std::int64_t n = 0;
    for (const ParameterInfo& p : entries_)
      if ((p.kind == ParameterKind::buffer) == buffers) n += p.shape.size();
    return n;
  }

  std::vector<ParameterInfo> entries_;
  std::unordered_map<std::string, std::size_t> index_;
  std::int64_t trainable_size_ = 0;
  std::int64_t gradient_size_ = 0;
  std::int64_t buffer_size_ = 0;
  std::ptrdiff_t in_tile_ = -1;  // index of the entry
};

/// A place in the parameter table: prefix of names, and multipliers for all that is declared there.
class Scope {
 public:
  explicit Scope(ParameterTable& table, std::string prefix = {})
      : table_(&table), prefix_(std::move(prefix)) {}

  Scope operator/(std::string_view name) const {
    Scope inner = *this;
    inner.prefix_ = join(name);
    return inner;
  }
  Scope with_lr(double multiplier) const {
    Scope inner = *this;
    inner.lr_ *= multiplier;
    return inner;
  }
  Scope with_decay(double multiplier) const {
    Scope inner = *this;
    inner.decay_ *= multiplier;
    return inner;
  }
  /// Marks what is declared here as a loss's own; an inner mark replaces an outer one.
  Scope of_loss(std::string_view name) const {
    Scope inner = *this;
    inner.loss_ = name;
    return inner;
  }

  /// What is declared here has no gradient in memory if `on`: the kernel that computes it hands
  /// each part of it to Run::row_update at once. One parameter of a model can be so.
  Scope updated_in_tile(bool on = true) const {
    Scope inner = *this;
    inner.updated_in_tile_ = on;
    return inner;
  }

  ParameterRef declare(std::string_view name, const Shape& shape, ParameterKind kind,
                       const Initializer& initializer, FileLayout layout = FileLayout::same) const {
    return table_->add(
        {join(name), shape, kind, initializer, layout, lr_, decay_, 0, loss_, updated_in_tile_});
  }
  const std::string& prefix() const { return prefix_; }

 private:
  std::string join(std::string_view name) const {
    return prefix_.empty() ? std::string(name) : prefix_ + "." + std::string(name);
  }

  ParameterTable* table_;
  std::string prefix_;
  double lr_ = 1;
  double decay_ = 1;
  std::string loss_;
  bool updated_in_tile_ = false;
};

}  // namespace kindred
