#pragma once
// Which images form which batch. A sampler is a plain description; its batches depend on (labels,
// seed, epoch) alone, so that a resumed run sees the batches the interrupted one would have seen.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <kindred/core/error.hpp>
#include <kindred/core/random.hpp>

namespace kindred::data {

using Labels = std::span<const std::int64_t>;

/// The batches of one epoch: positions in the image list. All have `batch_size` images but the
/// last, which may have fewer.
struct EpochBatches {
  std::vector<std::size_t> indices;
  std::size_t batch_size = 1;

  std::size_t size() const { return (indices.size() + batch_size - 1) / batch_size; }
  std::span<const std::size_t> operator[](std::size_t batch) const {
    const std::size_t first = batch * batch_size;
    return std::span(indices).subspan(first, std::min(batch_size, indices.size() - first));
  }
  friend bool operator==(const EpochBatches&, const EpochBatches&) = default;
};

namespace detail {

/// The images of each identity, identities in order of first appearance.
inline std::vector<std::vector<std::size_t>> group_by_label(Labels labels) {
  std::vector<std::vector<std::size_t>> groups;
  std::unordered_map<std::int64_t, std::size_t> group_of;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::size_t group = group_of.try_emplace(labels[i], groups.size()).first->second;
    if (group == groups.size()) groups.emplace_back();
    groups[group].push_back(i);
  }
  return groups;
}

inline void check_batch_size(const char* sampler, std::size_t batch_size) {
  if (batch_size == 0) throw ConfigError(text(sampler, ": batch_size is 0, must be >= 1"));
}

inline void check_identity_batches(const char* sampler, std::size_t batch_size, const char* per_id,
                                   std::size_t k, std::size_t identities) {
  check_batch_size(sampler, batch_size);
  if (k == 0) throw ConfigError(text(sampler, ": ", per_id, " is 0, must be >= 1"));
  if (batch_size % k != 0)
    throw ConfigError(text(sampler, ": batch_size ", batch_size, " is not a multiple of ", per_id,
                           " ", k, "; the nearest multiples are ", batch_size / k * k, " and ",
                           (batch_size / k + 1) * k));
  if (identities < batch_size / k)
    throw ConfigError(text(sampler, ": a batch needs batch_size / ", per_id, " = ", batch_size / k,
                           " identities, the list has ", identities,
                           "; set batch_size <= ", identities * k, " or raise ", per_id));
}

/// "12 of 100 identities have fewer than 4 images; ..." or nothing.
inline std::string few_images_warning(const char* sampler, Labels labels, std::size_t k) {
  const auto groups = group_by_label(labels);
  const auto few = std::count_if(groups.begin(), groups.end(),
                                 [k](const auto& group) { return group.size() < k; });
  if (few == 0) return {};
  return text(sampler, ": ", few, " of ", groups.size(), " identities have fewer than ", k,
              " images; their images are repeated within a batch");
}

}  // namespace detail

/// Images in random order (shuffle) or in the order of the list, `batch_size` at a time. With
/// drop_last an incomplete last batch is left out. Source: paddle.io.BatchSampler.
struct BatchSampler {
  std::size_t batch_size = 64;
  bool shuffle = true;
  bool drop_last = false;

  void check(Labels labels) const {
    detail::check_batch_size("BatchSampler", batch_size);
    if (drop_last && labels.size() < batch_size)
      throw ConfigError(text("BatchSampler: ", labels.size(), " images do not fill one batch of ",
                             batch_size, "; lower batch_size or set drop_last = false"));
  }
  EpochBatches batches(Labels labels, Seed seed, std::uint64_t epoch) const {
    EpochBatches out{std::vector<std::size_t>(labels.size()), batch_size};
    std::iota(out.indices.begin(), out.indices.end(), std::size_t{0});
    RandomSequence random({seed.value, stream_of("BatchSampler"), epoch});
    if (shuffle) random.shuffle(out.indices);
    if (drop_last) out.indices.resize(labels.size() / batch_size * batch_size);
    return out;
  }
};

enum class SampleMethod {
  sample_avg_prob,  ///< an identity is drawn with a probability proportional to its images
  id_avg_prob,      ///< all identities alike
};

/// P identities of K = sample_per_id images each: batch_size = P K, the images of an identity side
/// by side. The P identities of a batch are drawn without replacement; so are the K images, unless
/// the identity has fewer than K (then with replacement, see warning()). An epoch has as many
/// batches as BatchSampler's; every batch is full. The probability of the identities id_list[2j] to
/// id_list[2j + 1], both included, in order of first appearance in the list, is multiplied by
/// ratio[j]; the first pair that has an identity counts. Source: PaddleClas's PKSampler.
struct PKSampler {
  std::size_t batch_size = 64;
  std::size_t sample_per_id = 2;
  bool drop_last = true;
  SampleMethod sample_method = SampleMethod::sample_avg_prob;
  std::vector<std::size_t> id_list{};
  std::vector<double> ratio{};

  void check(Labels labels) const {
    const std::size_t identities = detail::group_by_label(labels).size();
    detail::check_identity_batches("PKSampler", batch_size, "sample_per_id", sample_per_id,
                                   identities);
    check_ratios(identities);
    if (drop_last && labels.size() < batch_size)
      throw ConfigError(text("PKSampler: ", labels.size(), " images do not fill one batch of ",
                             batch_size, "; lower batch_size or set drop_last = false"));
  }
  std::string warning(Labels labels) const {
    return detail::few_images_warning("PKSampler", labels, sample_per_id);
  }

  EpochBatches batches(Labels labels, Seed seed, std::uint64_t epoch) const {
    const auto groups = detail::group_by_label(labels);
    std::vector<std::size_t> group_of(labels.size());
    for (std::size_t g = 0; g < groups.size(); ++g)
      for (std::size_t image : groups[g]) group_of[image] = g;

    const std::size_t count = (labels.size() + (drop_last ? 0 : batch_size - 1)) / batch_size;
    RandomSequence random({seed.value, stream_of("PKSampler"), epoch});
    const std::vector<double> share = shares(groups.size());
    EpochBatches out{{}, batch_size};
    out.indices.reserve(count * batch_size);
    std::vector<std::size_t> drawn_in(groups.size(), 0);  // the last batch with this identity
    for (std::size_t batch = 1; batch <= count; ++batch)
      for (std::size_t p = 0; p < batch_size / sample_per_id; ++p) {
        const std::size_t g = draw_identity(groups, group_of, share, drawn_in, batch, random);
        drawn_in[g] = batch;
        draw_images(groups[g], random, out.indices);
      }
    return out;
  }

 private:
  using Groups = std::vector<std::vector<std::size_t>>;

  void check_ratios(std::size_t identities) const {
    if (id_list.size() != 2 * ratio.size())
      throw ConfigError(text("PKSampler: id_list has ", id_list.size(), " numbers; each of the ",
                             ratio.size(), " values of ratio needs a pair"));
    for (std::size_t id : id_list)
      if (id >= identities)
        throw ConfigError(text("PKSampler: id_list has ", id, ", but there are ", identities,
                               " identities, counted from 0"));
    const std::vector<double> share = shares(identities);
    for (double r : ratio)
      if (!(r >= 0 && std::isfinite(r)))
        throw ConfigError(text("PKSampler: ratio ", r, " must be finite and not negative"));
    const auto drawn = std::count_if(share.begin(), share.end(), [](double x) { return x > 0; });
    if (!share.empty() && static_cast<std::size_t>(drawn) < batch_size / sample_per_id)
      throw ConfigError(text("PKSampler: only ", drawn,
                             " identities have a ratio above 0, a batch ", "needs ",
                             batch_size / sample_per_id));
  }
  /// What the probability of each identity is multiplied by, at most 1; empty without ratios.
  std::vector<double> shares(std::size_t identities) const {
    if (ratio.empty()) return {};
    std::vector<double> all(identities, 1);
    for (std::size_t g = 0; g < identities; ++g)
      for (std::size_t j = 0; j < ratio.size(); ++j)
        if (g >= id_list[2 * j] && g <= id_list[2 * j + 1]) {
          all[g] = ratio[j];
          break;
        }
    const double most = *std::max_element(all.begin(), all.end());
    for (double& share : all) share = most > 0 ? share / most : 0;
    return all;
  }

  /// An identity that is not yet in the batch, with a probability proportional to its weight.
  std::size_t draw_identity(const Groups& groups, const std::vector<std::size_t>& group_of,
                            const std::vector<double>& share,
                            const std::vector<std::size_t>& drawn_in, std::size_t batch,
                            RandomSequence& random) const {
    const bool by_images = sample_method == SampleMethod::sample_avg_prob;
    // Drawing until an identity is new has the right distribution and is fast while most are new.
    for (int attempt = 0; attempt < 32; ++attempt) {
      const std::size_t g =
          by_images ? group_of[random.below(group_of.size())] : random.below(groups.size());
      if (!share.empty() && random.uniform() >= share[g]) continue;
      if (drawn_in[g] != batch) return g;
    }
    // Few are left: the same draw among those, in one pass.
    const auto weight = [&](std::size_t g) {
      if (drawn_in[g] == batch) return 0.;
      return (by_images ? static_cast<double>(groups[g].size()) : 1.) *
             (share.empty() ? 1. : share[g]);
    };
    double left = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) left += weight(g);
    double target = random.uniform() * left;
    std::size_t last = groups.size();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (weight(g) == 0) continue;
      last = g;  // rounding may leave a little of the target behind the last one
      if (target < weight(g)) break;
      target -= weight(g);
    }
    return last;
  }

  void draw_images(std::vector<std::size_t> images, RandomSequence& random,
                   std::vector<std::size_t>& out) const {
    const std::size_t n = images.size();
    for (std::size_t k = 0; k < sample_per_id; ++k) {
      if (n < sample_per_id) {
        out.push_back(images[random.below(n)]);
      } else {
        std::swap(images[k], images[k + random.below(n - k)]);
        out.push_back(images[k]);
      }
    }
  }
};

/// Cuts the shuffled images of each identity into groups of num_instances (an identity with fewer
/// images is filled by repeating some; a rest is left out) and fills batches with one group of each
/// of P = batch_size / num_instances different identities until fewer than P identities are left.
/// With max_iters > 0 there are exactly that many batches: identities are drawn with a probability
/// proportional to their remaining groups, and all groups are made anew when fewer than P
/// identities are left. Source: PaddleClas's DistributedRandomIdentitySampler (its drop_last has no
/// effect: every batch is full).
struct DistributedRandomIdentitySampler {
  std::size_t batch_size = 64;
  std::size_t num_instances = 4;
  std::size_t max_iters = 0;

  void check(Labels labels) const {
    detail::check_identity_batches("DistributedRandomIdentitySampler", batch_size, "num_instances",
                                   num_instances, detail::group_by_label(labels).size());
  }
  std::string warning(Labels labels) const {
    return detail::few_images_warning("DistributedRandomIdentitySampler", labels, num_instances);
  }

  EpochBatches batches(Labels labels, Seed seed, std::uint64_t epoch) const {
    const auto identities = detail::group_by_label(labels);
    RandomSequence random({seed.value, stream_of("DistributedRandomIdentitySampler"), epoch});
    EpochBatches out{{}, batch_size};
    const std::size_t p = batch_size / num_instances;
    Remaining left = prepare(identities, random);
    for (std::size_t batch = 0; max_iters == 0 || batch < max_iters; ++batch) {
      if (left.size() < p && max_iters == 0) break;
      if (left.size() < p) left = prepare(identities, random);
      fill_batch(left, p, random, out.indices);
    }
    return out;
  }

 private:
  /// For each identity its images not yet used: whole groups, taken from the back.
  using Remaining = std::vector<std::vector<std::size_t>>;

  Remaining prepare(const Remaining& identities, RandomSequence& random) const {
    Remaining left;
    left.reserve(identities.size());
    for (const auto& all : identities) {
      std::vector<std::size_t> images = all;
      if (all.size() < num_instances) {
        images.resize(num_instances);
        for (std::size_t& image : images) image = all[random.below(all.size())];
      }
      random.shuffle(images);
      images.resize(images.size() / num_instances * num_instances);
      left.push_back(std::move(images));
    }
    return left;
  }

  /// Moves one group of p different identities to `out`; identities without images end.
  void fill_batch(Remaining& left, std::size_t p, RandomSequence& random,
                  std::vector<std::size_t>& out) const {
    // The identities drawn so far wait behind `open`, so that none is drawn twice.
    std::size_t open = left.size();
    for (; p > 0; --p) {
      std::swap(left[draw(left, open, random)], left[open - 1]);
      std::vector<std::size_t>& images = left[--open];
      out.insert(out.end(), images.end() - static_cast<std::ptrdiff_t>(num_instances),
                 images.end());
      images.resize(images.size() - num_instances);
    }
    std::erase_if(left, [](const auto& images) { return images.empty(); });
  }

  std::size_t draw(const Remaining& left, std::size_t open, RandomSequence& random) const {
    if (max_iters == 0) return random.below(open);
    std::size_t total = 0, i = 0;
    for (std::size_t j = 0; j < open; ++j) total += left[j].size();
    for (std::size_t target = random.below(total); target >= left[i].size(); ++i)
      target -= left[i].size();
    return i;
  }
};

/// Batches that mix super-classes, for hierarchical or attribute labels: for every combination of
/// super_classes_per_batch super-classes, batches_per_super_tuple batches of which each has
/// batch_size / super_classes_per_batch images, those of one class samples_per_class at a time
/// (repeated where a class has fewer). The order of batches is random.
/// Source: Cakir et al., "Deep Metric Learning to Rank", CVPR 2019; pytorch-metric-learning
/// HierarchicalSampler, where a super-class with too few classes makes a batch short; here its
/// classes are taken again.
struct HierarchicalSampler {
  std::vector<std::int64_t> super_labels{};  ///< of every image, in the order of the list
  std::size_t batch_size = 64;
  std::size_t samples_per_class = 4;
  std::size_t batches_per_super_tuple = 4;
  std::size_t super_classes_per_batch = 2;

  void check(Labels labels) const {
    detail::check_batch_size("HierarchicalSampler", batch_size);
    if (super_labels.size() != labels.size())
      throw ConfigError(text("HierarchicalSampler: ", super_labels.size(), " super_labels for ",
                             labels.size(), " images"));
    if (samples_per_class == 0 || batches_per_super_tuple == 0 || super_classes_per_batch == 0)
      throw ConfigError(
          "HierarchicalSampler: samples_per_class, batches_per_super_tuple and "
          "super_classes_per_batch must be >= 1");
    if (batch_size % (super_classes_per_batch * samples_per_class) != 0)
      throw ConfigError(text("HierarchicalSampler: batch_size ", batch_size, " is not a multiple ",
                             "of super_classes_per_batch * samples_per_class = ",
                             super_classes_per_batch * samples_per_class));
    const std::size_t all = detail::group_by_label(super_labels).size();
    if (all < super_classes_per_batch)
      throw ConfigError(text("HierarchicalSampler: super_classes_per_batch = ",
                             super_classes_per_batch, ", but there are ", all));
  }

  EpochBatches batches(Labels labels, Seed seed, std::uint64_t epoch) const {
    RandomSequence random({seed.value, stream_of("HierarchicalSampler"), epoch});
    const std::vector<Classes> supers = classes_of_supers(labels);
    std::vector<std::vector<std::size_t>> all;
    std::vector<std::size_t> chosen(super_classes_per_batch);
    std::iota(chosen.begin(), chosen.end(), std::size_t{0});
    do {
      for (std::size_t b = 0; b < batches_per_super_tuple; ++b) {
        std::vector<std::size_t>& batch = all.emplace_back();
        for (const std::size_t super : chosen) add_images(supers[super], random, batch);
        random.shuffle(batch);
      }
    } while (next_combination(chosen, supers.size()));
    random.shuffle(all);
    EpochBatches out{{}, batch_size};
    for (const auto& batch : all) out.indices.insert(out.indices.end(), batch.begin(), batch.end());
    return out;
  }

 private:
  using Classes = std::vector<std::vector<std::size_t>>;  // images of each class

  std::vector<Classes> classes_of_supers(Labels labels) const {
    std::vector<Classes> supers;
    for (const auto& images : detail::group_by_label(super_labels)) {
      std::vector<std::int64_t> of_super;
      for (const std::size_t i : images) of_super.push_back(labels[i]);
      Classes classes = detail::group_by_label(of_super);
      for (auto& one : classes)
        for (std::size_t& i : one) i = images[i];
      supers.push_back(std::move(classes));
    }
    return supers;
  }
  /// The next choice of chosen.size() out of n in lexicographic order; false after the last.
  static bool next_combination(std::vector<std::size_t>& chosen, std::size_t n) {
    const std::size_t k = chosen.size();
    for (std::size_t i = k; i-- > 0;) {
      if (chosen[i] == n - k + i) continue;
      ++chosen[i];
      for (std::size_t j = i + 1; j < k; ++j) chosen[j] = chosen[j - 1] + 1;
      return true;
    }
    return false;
  }
  void add_images(const Classes& classes, RandomSequence& random,
                  std::vector<std::size_t>& batch) const {
    std::vector<std::size_t> order(classes.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    random.shuffle(order);
    const std::size_t groups = batch_size / super_classes_per_batch / samples_per_class;
    for (std::size_t g = 0; g < groups; ++g) {
      std::vector<std::size_t> images = classes[order[g % order.size()]];
      for (std::size_t k = 0; k < samples_per_class; ++k) {
        if (images.size() < samples_per_class) {
          batch.push_back(images[random.below(images.size())]);
        } else {
          std::swap(images[k], images[k + random.below(images.size() - k)]);
          batch.push_back(images[k]);
        }
      }
    }
  }
};

/// What a sampler must offer; `check` (throws ConfigError) and `warning` (text or nothing) may be
/// left out.
template <class S>
concept BatchSource = requires(const S& s, Labels labels, Seed seed, std::uint64_t epoch) {
  { s.batches(labels, seed, epoch) } -> std::same_as<EpochBatches>;
};

/// Any sampler. Made from a description: `Sampler s = PKSampler{.batch_size = 64}`.
class Sampler {
 public:
  template <BatchSource S>
  Sampler(S source)  // NOLINT: a description is a sampler
      : batches_([source](Labels labels, Seed seed, std::uint64_t epoch) {
          if constexpr (requires { source.check(labels); }) source.check(labels);
          return source.batches(labels, seed, epoch);
        }),
        warning_([source](Labels labels) -> std::string {
          if constexpr (requires { source.warning(labels); }) return source.warning(labels);
          return {};
        }) {}

  /// Throws ConfigError if the settings do not fit the labels, or for an index beyond them.
  EpochBatches batches(Labels labels, Seed seed, std::uint64_t epoch) const {
    EpochBatches out = batches_(labels, seed, epoch);
    detail::check_batch_size("Sampler", out.batch_size);
    for (std::size_t i : out.indices)
      if (i >= labels.size())
        throw ConfigError(text("Sampler: index ", i, " in a list of ", labels.size(), " images"));
    return out;
  }
  /// What the user should know about these labels, or nothing.
  std::string warning(Labels labels) const { return warning_(labels); }

 private:
  std::function<EpochBatches(Labels, Seed, std::uint64_t)> batches_;
  std::function<std::string(Labels)> warning_;
};

/// Batches of several data sets that were joined into one list, side by side: each part samples its
/// own images, and its batch is a part of the whole one. A part that ends begins anew; its
/// incomplete last batch is left out. Source: PaddleClas's MixSampler, whose ratios are here the
/// batch sizes of the parts, and whose epoch is longer than iter_per_epoch by sum of images *
/// ratio.
struct MixSampler {
  struct Part {
    Sampler sampler;
    std::size_t images = 0;  ///< of this data set; the parts follow one another in the list
  };
  std::vector<Part> parts;
  std::size_t iter_per_epoch = 0;

  void check(Labels labels) const {
    std::size_t images = 0;
    for (const Part& part : parts) images += part.images;
    if (parts.empty() || iter_per_epoch == 0)
      throw ConfigError("MixSampler: needs parts, and iter_per_epoch >= 1");
    if (images != labels.size())
      throw ConfigError(
          text("MixSampler: the parts have ", images, " images, the list has ", labels.size()));
  }
  std::string warning(Labels labels) const {
    std::string all;
    std::size_t first = 0;
    for (const Part& part : parts) {
      const std::string one = part.sampler.warning(labels.subspan(first, part.images));
      all += (all.empty() || one.empty() ? "" : "; ") + one;
      first += part.images;
    }
    return all;
  }

  EpochBatches batches(Labels labels, Seed seed, std::uint64_t epoch) const {
    std::vector<std::vector<std::size_t>> all(iter_per_epoch);
    std::size_t first = 0;
    for (const Part& part : parts) {
      add_part(part, labels.subspan(first, part.images), first, seed, epoch, all);
      first += part.images;
    }
    EpochBatches out{{}, all[0].size()};
    for (const auto& batch : all) out.indices.insert(out.indices.end(), batch.begin(), batch.end());
    return out;
  }

 private:
  void add_part(const Part& part, Labels labels, std::size_t first, Seed seed, std::uint64_t epoch,
                std::vector<std::vector<std::size_t>>& all) const {
    std::size_t at = 0;
    for (std::uint64_t round = 0; at < iter_per_epoch; ++round) {
      const EpochBatches own = part.sampler.batches(labels, seed, epoch << 20 | round);
      if (own.indices.size() < own.batch_size)
        throw ConfigError(text("MixSampler: a part of ", labels.size(),
                               " images has no full batch ", "of ", own.batch_size));
      for (std::size_t b = 0; b < own.size() && at < iter_per_epoch; ++b) {
        if (own[b].size() < own.batch_size) continue;
        for (const std::size_t i : own[b]) all[at].push_back(first + i);
        ++at;
      }
    }
  }
};

}  // namespace kindred::data
