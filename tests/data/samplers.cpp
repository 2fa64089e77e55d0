#include <kindred/data/samplers.hpp>

#include <map>
#include <numeric>
#include <set>

#include "support/catch.hpp"

using namespace kindred;
using namespace kindred::data;

namespace {

using LabelList = std::vector<std::int64_t>;

/// `images[i]` images of label 10 i, not sorted by label.
LabelList labels_of(const std::vector<int>& images) {
  LabelList labels;
  for (int round = 0; round < 1000; ++round)
    for (std::size_t i = 0; i < images.size(); ++i)
      if (round < images[i]) labels.push_back(10 * static_cast<std::int64_t>(i));
  return labels;
}

/// Checks that a batch is P groups of K images of one label side by side, with P distinct labels,
/// and that images repeat only where the label has fewer than K.
void check_identity_batch(std::span<const std::size_t> batch, const LabelList& labels,
                          std::size_t k) {
  std::set<std::int64_t> seen;
  REQUIRE(batch.size() % k == 0);
  for (std::size_t i = 0; i < batch.size(); i += k) {
    const std::int64_t label = labels[batch[i]];
    CHECK(seen.insert(label).second);
    std::set<std::size_t> images;
    for (std::size_t j = i; j < i + k; ++j) {
      CHECK(labels[batch[j]] == label);
      images.insert(batch[j]);
    }
    const auto all = static_cast<std::size_t>(std::count(labels.begin(), labels.end(), label));
    if (all >= k) CHECK(images.size() == k);
  }
}

/// What every sampler promises: a function of (labels, seed, epoch).
void check_reproducible(const Sampler& sampler, const LabelList& labels) {
  CHECK(sampler.batches(labels, Seed{1}, 3) == sampler.batches(labels, Seed{1}, 3));
  CHECK_FALSE(sampler.batches(labels, Seed{1}, 3) == sampler.batches(labels, Seed{1}, 4));
  CHECK_FALSE(sampler.batches(labels, Seed{1}, 3) == sampler.batches(labels, Seed{2}, 3));
}

std::string config_error(const Sampler& sampler, const LabelList& labels) {
  try {
    sampler.batches(labels, Seed{1}, 0);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no exception";
}

}  // namespace

TEST_CASE("batch sampler: every image once, in order or shuffled") {
  const LabelList labels(10, 0);
  std::vector<std::size_t> all(10);
  std::iota(all.begin(), all.end(), std::size_t{0});

  const auto ordered = BatchSampler{.batch_size = 4, .shuffle = false}.batches(labels, Seed{1}, 0);
  CHECK(ordered.size() == 3);
  CHECK(ordered.indices == all);
  CHECK(ordered[2].size() == 2);
  CHECK(ordered[1][0] == 4);

  auto shuffled = BatchSampler{.batch_size = 4}.batches(labels, Seed{1}, 0);
  CHECK(shuffled.indices != all);
  std::sort(shuffled.indices.begin(), shuffled.indices.end());
  CHECK(shuffled.indices == all);

  CHECK(
      BatchSampler{.batch_size = 4, .drop_last = true}.batches(labels, Seed{1}, 0).indices.size() ==
      8);
  check_reproducible(BatchSampler{.batch_size = 4}, labels);
}

TEST_CASE("batch sampler: bad settings") {
  CHECK_THAT(config_error(BatchSampler{.batch_size = 0}, {0, 1}), ContainsSubstring("batch_size"));
  CHECK_THAT(config_error(BatchSampler{.batch_size = 3, .drop_last = true}, {0, 1}),
             ContainsSubstring("2 images do not fill one batch of 3"));
  CHECK(BatchSampler{.batch_size = 1}.batches(LabelList{7}, Seed{1}, 0).size() == 1);
}

TEST_CASE("PK sampler: P distinct identities of K images side by side") {
  const LabelList labels = labels_of({5, 9, 1, 4, 2, 30, 7, 4});
  for (auto method : {SampleMethod::sample_avg_prob, SampleMethod::id_avg_prob}) {
    const PKSampler sampler{.batch_size = 12, .sample_per_id = 4, .sample_method = method};
    const EpochBatches epoch = sampler.batches(labels, Seed{5}, 0);
    CHECK(epoch.size() == 62 / 12);
    for (std::size_t b = 0; b < epoch.size(); ++b) {
      CHECK(epoch[b].size() == 12);
      check_identity_batch(epoch[b], labels, 4);
    }
    check_reproducible(sampler, labels);
  }
  const PKSampler all{.batch_size = 12, .sample_per_id = 4, .drop_last = false};
  CHECK(all.batches(labels, Seed{5}, 0).size() == 6);
}

TEST_CASE("PK sampler: a batch may need every identity, however rare") {
  std::vector<int> images(20, 1);
  images[7] = 900;  // 1 of 919 draws by images would find another one
  const LabelList labels = labels_of(images);
  const PKSampler sampler{.batch_size = 20, .sample_per_id = 1};
  const EpochBatches epoch = sampler.batches(labels, Seed{3}, 0);
  REQUIRE(epoch.size() == 45);
  for (std::size_t b = 0; b < epoch.size(); ++b) check_identity_batch(epoch[b], labels, 1);
}

TEST_CASE("PK sampler: identities are drawn by images or alike") {
  const LabelList labels = labels_of({300, 100, 100, 100});
  auto share_of_first = [&](SampleMethod method) {
    const PKSampler sampler{.batch_size = 1, .sample_per_id = 1, .sample_method = method};
    double first = 0, total = 0;
    for (std::uint64_t epoch = 0; epoch < 20; ++epoch)
      for (std::size_t i : sampler.batches(labels, Seed{9}, epoch).indices) {
        first += labels[i] == 0;
        total += 1;
      }
    return first / total;
  };
  // 12,000 draws: the standard error is 0.005.
  CHECK(share_of_first(SampleMethod::sample_avg_prob) == Approx(0.50).margin(0.025));
  CHECK(share_of_first(SampleMethod::id_avg_prob) == Approx(0.25).margin(0.025));
}

TEST_CASE("PK sampler: identities with too few images are repeated and reported") {
  const LabelList labels = labels_of({1, 3, 4, 8});
  const Sampler sampler = PKSampler{.batch_size = 16, .sample_per_id = 4};
  check_identity_batch(sampler.batches(labels, Seed{1}, 0)[0], labels, 4);
  CHECK_THAT(sampler.warning(labels),
             ContainsSubstring("2 of 4 identities have fewer than 4 images"));
  CHECK(sampler.warning(labels_of({4, 5, 4, 4})).empty());
}

TEST_CASE("PK sampler: bad settings name the fix") {
  const LabelList labels = labels_of({4, 4, 4});
  CHECK_THAT(config_error(PKSampler{.batch_size = 10, .sample_per_id = 4}, labels),
             ContainsSubstring("batch_size 10 is not a multiple of sample_per_id 4") &&
                 ContainsSubstring("8 and 12"));
  CHECK_THAT(
      config_error(PKSampler{.batch_size = 8, .sample_per_id = 2}, labels),
      ContainsSubstring("= 4 identities, the list has 3") && ContainsSubstring("batch_size <= 6"));
  CHECK_THAT(config_error(PKSampler{.batch_size = 8, .sample_per_id = 0}, labels),
             ContainsSubstring("sample_per_id is 0"));
  CHECK_THAT(config_error(PKSampler{.batch_size = 24, .sample_per_id = 8}, labels),
             ContainsSubstring("12 images do not fill one batch of 24"));
  CHECK(PKSampler{.batch_size = 24, .sample_per_id = 8, .drop_last = false}
            .batches(labels, Seed{1}, 0)
            .size() == 1);
}

TEST_CASE("random identity sampler: every group of an identity once until too few are left") {
  const LabelList labels = labels_of({8, 8, 8, 8, 11, 2});
  const DistributedRandomIdentitySampler sampler{.batch_size = 12, .num_instances = 4};
  const EpochBatches epoch = sampler.batches(labels, Seed{2}, 0);
  // 2 groups of five identities and 1 of the sixth are 11; three different ones make a batch.
  CHECK(epoch.size() == 3);
  std::map<std::size_t, int> uses;
  for (std::size_t b = 0; b < epoch.size(); ++b) {
    CHECK(epoch[b].size() == 12);
    check_identity_batch(epoch[b], labels, 4);
    for (std::size_t i : epoch[b]) ++uses[i];
  }
  for (const auto& [image, n] : uses)
    if (labels[image] != 50) CHECK(n == 1);
  check_reproducible(sampler, labels);
  CHECK_THAT(Sampler(sampler).warning(labels), ContainsSubstring("1 of 6 identities"));
  CHECK_THAT(config_error(DistributedRandomIdentitySampler{.batch_size = 28}, labels),
             ContainsSubstring("7 identities, the list has 6"));
}

TEST_CASE("random identity sampler: max_iters batches, refilled as often as needed") {
  const LabelList labels = labels_of({8, 4, 4, 5});
  const DistributedRandomIdentitySampler sampler{
      .batch_size = 12, .num_instances = 4, .max_iters = 25};
  const EpochBatches epoch = sampler.batches(labels, Seed{2}, 0);
  REQUIRE(epoch.size() == 25);
  for (std::size_t b = 0; b < epoch.size(); ++b) check_identity_batch(epoch[b], labels, 4);
  check_reproducible(sampler, labels);
}

TEST_CASE("PK sampler: ratios multiply the probability of ranges of identities") {
  const LabelList labels = labels_of(std::vector<int>(10, 40));
  PKSampler sampler{
      .batch_size = 4, .sample_per_id = 2, .sample_method = SampleMethod::id_avg_prob};
  sampler.id_list = {0, 1, 1, 4};  // identity 1 is in both: the first pair counts
  sampler.ratio = {3, 0.5};
  std::vector<double> share(10);
  double drawn = 0;
  for (std::uint64_t epoch = 0; epoch < 100; ++epoch) {
    const auto batches = sampler.batches(labels, Seed{1}, epoch);
    for (std::size_t b = 0; b < batches.size(); ++b) {
      check_identity_batch(batches[b], labels, 2);
      share[static_cast<std::size_t>(labels[batches[b][0]] / 10)] += 1;  // the first of a batch
      drawn += 1;
    }
  }
  const double total = 2 * 3 + 3 * 0.5 + 5;
  for (std::size_t id = 0; id < 10; ++id) {
    const double expected = (id < 2 ? 3 : id < 5 ? 0.5 : 1) / total;
    CHECK(share[id] / drawn == Approx(expected).margin(5 * std::sqrt(expected / drawn)));
  }
  sampler.ratio = {3, 0};
  const auto without = sampler.batches(labels, Seed{1}, 0);
  for (const std::size_t i : without.indices) CHECK((labels[i] < 20 || labels[i] >= 50));
  CHECK(sampler.batches(labels, Seed{1}, 0) == without);

  sampler.ratio = {3};
  CHECK_THROWS_WITH(sampler.check(labels), ContainsSubstring("id_list has 4 numbers"));
  sampler.id_list = {0, 10};
  CHECK_THROWS_WITH(sampler.check(labels), ContainsSubstring("id_list has 10"));
  sampler.id_list = {0, 8};
  sampler.ratio = {0};
  CHECK_THROWS_WITH(sampler.check(labels), ContainsSubstring("only 1 identities have a ratio"));
  sampler.ratio = {-1};
  CHECK_THROWS_WITH(sampler.check(labels), ContainsSubstring("not negative"));
}

TEST_CASE("hierarchical sampler: every pair of super-classes, classes in groups") {
  // Super-class s has 3 + s classes of 5 images, but its first class only 2.
  LabelList labels, supers;
  for (std::int64_t s = 0; s < 4; ++s)
    for (std::int64_t c = 0; c < 3 + s; ++c)
      for (int i = 0; i < (c == 0 ? 2 : 5); ++i) {
        labels.push_back(100 * s + c);
        supers.push_back(s);
      }
  const HierarchicalSampler sampler{.super_labels = supers,
                                    .batch_size = 24,
                                    .samples_per_class = 3,
                                    .batches_per_super_tuple = 5,
                                    .super_classes_per_batch = 2};
  sampler.check(labels);
  const auto batches = sampler.batches(labels, Seed{3}, 1);
  REQUIRE(batches.size() == 6 * 5);
  std::map<std::set<std::int64_t>, int> pairs;
  for (std::size_t b = 0; b < batches.size(); ++b) {
    std::map<std::int64_t, int> of_super, of_class;
    for (const std::size_t i : batches[b]) {
      ++of_super[supers[i]];
      ++of_class[labels[i]];
    }
    std::set<std::int64_t> pair;
    for (const auto& [super, images] : of_super) {
      pair.insert(super);
      CHECK(images == 12);
    }
    for (const auto& [label, images] : of_class)  // 4 groups: super-class 0 has 3 classes
      CHECK((images == 3 || (label < 100 && images == 6)));
    ++pairs[pair];
  }
  CHECK(pairs.size() == 6);
  for (const auto& [pair, count] : pairs) CHECK(count == 5);
  CHECK(sampler.batches(labels, Seed{3}, 1) == batches);
  CHECK_FALSE(sampler.batches(labels, Seed{3}, 2) == batches);

  auto refused = [&](auto change) {
    HierarchicalSampler other = sampler;
    change(other);
    try {
      other.check(labels);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  CHECK_THAT(refused([](auto& s) { s.batch_size = 25; }), ContainsSubstring("not a multiple"));
  CHECK_THAT(refused([](auto& s) { s.super_labels.pop_back(); }),
             ContainsSubstring("super_labels for"));
  CHECK_THAT(refused([](auto& s) {
               s.super_classes_per_batch = s.batch_size = 15;
               s.samples_per_class = 1;
             }),
             ContainsSubstring("but there are 4"));
  CHECK_THAT(refused([](auto& s) { s.samples_per_class = 0; }), ContainsSubstring(">= 1"));
}

TEST_CASE("mix sampler: parts side by side, each beginning anew when it ends") {
  LabelList labels = labels_of({4, 4, 4});  // 12 images
  for (int i = 0; i < 10; ++i) labels.push_back(1000 + i);
  const MixSampler mix{.parts = {{PKSampler{.batch_size = 4, .sample_per_id = 2}, 12},
                                 {BatchSampler{.batch_size = 3}, 10}},
                       .iter_per_epoch = 7};
  const Sampler sampler = mix;
  const auto batches = sampler.batches(labels, Seed{5}, 2);
  REQUIRE(batches.size() == 7);
  CHECK(batches.batch_size == 7);
  std::map<std::size_t, int> seen;
  for (std::size_t b = 0; b < 7; ++b) {
    check_identity_batch(batches[b].first(4), labels, 2);
    for (const std::size_t i : batches[b].subspan(4)) {
      CHECK(i >= 12);
      ++seen[i];
    }
  }
  for (const auto& [image, times] : seen) CHECK(times <= 3);  // three shuffles of 9 of 10 images
  CHECK(seen.size() == 10);
  CHECK(sampler.batches(labels, Seed{5}, 2) == batches);
  CHECK_FALSE(sampler.batches(labels, Seed{5}, 3) == batches);

  MixSampler other = mix;
  other.parts[1].images = 9;
  CHECK_THROWS_WITH(Sampler(other).batches(labels, Seed{5}, 0),
                    ContainsSubstring("the parts have 21 images, the list has 22"));
  other = mix;
  other.parts[1].sampler = BatchSampler{.batch_size = 11};
  CHECK_THROWS_WITH(Sampler(other).batches(labels, Seed{5}, 0),
                    ContainsSubstring("a part of 10 images has no full batch of 11"));
  other.iter_per_epoch = 0;
  CHECK_THROWS_AS(Sampler(other).batches(labels, Seed{5}, 0), ConfigError);
}

TEST_CASE("sampler: your own, with its indices checked") {
  struct Twice {
    EpochBatches batches(Labels labels, Seed, std::uint64_t epoch) const {
      return {{0, labels.size() - 1 + epoch}, 2};
    }
  };
  const Sampler sampler = Twice{};
  const LabelList labels{4, 5, 6};
  CHECK(sampler.batches(labels, Seed{1}, 0).indices == std::vector<std::size_t>{0, 2});
  CHECK_THROWS_WITH(sampler.batches(labels, Seed{1}, 1),
                    ContainsSubstring("index 3 in a list of 3 images"));
}
