#include <kindred/data/loader.hpp>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "io/files.hpp"

using namespace kindred;
using namespace kindred::data;
using namespace kindred::test;

namespace {

/// A folder of small images, `per_label` of each label: image i of the list is of colour
/// (i, 2 i, 255 - i) with a bright corner.
struct Images {
  TemporaryFolder folder;
  std::vector<Sample> samples;

  explicit Images(int n, int per_label = 4, int side = 24) {
    for (int i = 0; i < n; ++i) {
      cv::Mat image(side, side + 5, CV_8UC3, cv::Scalar(255 - i, 2 * i, i));
      image(cv::Rect(0, 0, side / 2, side / 3)).setTo(cv::Scalar(200, 250, 230));
      const std::string name = std::to_string(i) + ".png";
      REQUIRE(cv::imwrite((folder / name).string(), image));
      samples.push_back({name, i / per_label, 100 + i});
    }
  }
  ImageList list() const { return {folder.path(), samples}; }
  void damage(int i, const std::string& bytes) const {
    write_bytes(folder / samples[static_cast<std::size_t>(i)].path, bytes);
  }
  void remove(int i) const {
    std::filesystem::remove(folder / samples[static_cast<std::size_t>(i)].path);
  }
  void truncate(int i) const {
    const auto path = folder / samples[static_cast<std::size_t>(i)].path;
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 10);
  }
};

/// All that a run of batches delivered.
struct Delivered {
  std::vector<float> images;
  std::vector<std::int64_t> labels, cameras;
  std::vector<std::size_t> indices, batch_sizes, numbers;
  friend bool operator==(const Delivered&, const Delivered&) = default;
};

Delivered drain(Loader& loader, std::size_t most = 1000000) {
  Delivered all;
  Batch batch;
  while (most-- > 0 && loader.next(batch)) {
    REQUIRE(batch.images.shape == Shape{static_cast<std::int64_t>(batch.size()), 16, 16, 3});
    all.images.insert(all.images.end(), batch.images.begin(), batch.images.end());
    all.labels.insert(all.labels.end(), batch.labels.begin(), batch.labels.end());
    all.cameras.insert(all.cameras.end(), batch.cameras.begin(), batch.cameras.end());
    all.indices.insert(all.indices.end(), batch.indices.begin(), batch.indices.end());
    all.batch_sizes.push_back(batch.size());
    all.numbers.push_back(batch.number);
  }
  return all;
}

/// Random transforms of every kind, so that a wrong random number would show.
Pipeline busy_transforms() {
  return {16,
          {RandCropImage{.size = 16}, RandFlipImage{}, NormalizeImage{},
           RandomErasing{.mode = RandomErasing::Mode::pixel}}};
}

Delivered epoch_of(const ImageList& list, const Sampler& sampler, const LoaderConfig& config,
                   std::uint64_t epoch = 0) {
  Loader loader(list, sampler, busy_transforms(), Seed{7}, config);
  loader.start(epoch);
  return drain(loader);
}

/// The message of the E that ends an epoch.
template <class E>
std::string error_of(Loader& loader) {
  loader.start(0);
  try {
    drain(loader);
  } catch (const E& e) {
    return e.what();
  }
  return "no exception";
}
std::string data_error(Loader& loader) { return error_of<DataError>(loader); }

const Sampler in_order = BatchSampler{.batch_size = 4, .shuffle = false};
constexpr LoaderConfig evaluation{.num_workers = 2, .on_unreadable = OnUnreadable::drop};

}  // namespace

TEST_CASE("loader: pixels that the device normalises are the numbers of NormalizeImage") {
  const Images images(10);
  images.remove(2);  // replaced, or dropped
  const Pipeline transforms(16, {RandCropImage{.size = 16}, RandFlipImage{}, NormalizeImage{}});
  for (const OnUnreadable how : {OnUnreadable::replace, OnUnreadable::drop})
    for (const int workers : {0, 2}) {
      LoaderConfig config{.num_workers = workers, .on_unreadable = how};
      Loader numbers(images.list(), in_order, transforms, Seed{3}, config);
      config.pixels = true;
      Loader pixels(images.list(), in_order, transforms, Seed{3}, config);
      numbers.start(1);
      pixels.start(1);
      Batch a, b;
      while (numbers.next(a)) {
        REQUIRE(pixels.next(b));
        CHECK(b.images.data == nullptr);
        REQUIRE(b.pixels.table != nullptr);
        const View<const std::uint8_t>& values = b.pixels.pixels;
        REQUIRE(values.shape == a.images.shape);
        bool same = true;
        for (std::int64_t i = 0; i < values.size(); ++i)
          same =
              same && b.pixels.table->at(values[i], static_cast<std::size_t>(i % 3)) == a.images[i];
        CHECK(same);
        CHECK(std::ranges::equal(a.indices, b.indices));
      }
      CHECK_FALSE(pixels.next(b));
    }
  CHECK_THROWS_WITH(Loader(images.list(), in_order, busy_transforms(), Seed{3}, {.pixels = true}),
                    ContainsSubstring("last transform is not NormalizeImage"));
  Loader twice(images.list(), in_order,
               Pipeline(16, {ResizeImage{.size = 16}, NormalizeImage{}, NormalizeImage{}}), Seed{3},
               {.pixels = true});
  CHECK(error_of<ConfigError>(twice) ==
        "Pipeline: the image is not 8-bit with 3 channels before the last NormalizeImage");
}

TEST_CASE("loader: what peek shows is what next delivers, and stays until then") {
  const Images images(32);
  Loader loader(images.list(), in_order, eval_transforms(16), Seed{1}, {.prefetch = 2});
  Batch ahead, batch;
  CHECK_FALSE(loader.peek(ahead));  // not started
  loader.start(0);
  std::size_t shown = 0;
  for (bool more = loader.next(batch); more;) {
    // The worker may be slow: a while, and then without.
    bool ready = loader.peek(ahead);
    for (int i = 0; i < 200 && !ready && batch.number < 7; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      ready = loader.peek(ahead);
    }
    const View<const float> seen = ready ? ahead.images : View<const float>{nullptr, {0}};
    const std::vector<float> kept(seen.begin(), seen.end());
    more = loader.next(batch);
    if (!ready) continue;
    REQUIRE(more);
    ++shown;
    CHECK(batch.images.data == seen.data);
    CHECK(batch.images.shape == seen.shape);
    CHECK(std::equal(kept.begin(), kept.end(), batch.images.begin()));
  }
  CHECK(shown > 0);
  CHECK_FALSE(loader.peek(ahead));  // the end
  Loader dropping(images.list(), in_order, eval_transforms(16), Seed{1}, evaluation);
  dropping.start(0);
  REQUIRE(dropping.next(batch));
  CHECK_FALSE(dropping.peek(ahead));
}

TEST_CASE("loader: labels, cameras and pixels belong to the sample") {
  const Images images(10);
  Loader loader(images.list(), in_order, eval_transforms(16), Seed{1}, {});
  CHECK(loader.batches_in(0) == 3);
  CHECK(loader.image_shape() == Shape{16, 16, 3});
  loader.start(0);
  Batch batch;
  for (std::size_t b = 0; b < 3; ++b) {
    REQUIRE(loader.next(batch));
    CHECK(batch.number == b);
    CHECK(batch.size() == (b < 2 ? 4 : 2));
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const std::size_t index = 4 * b + i;
      CHECK(batch.indices[i] == index);
      CHECK(batch.labels[i] == static_cast<std::int64_t>(index / 4));
      CHECK(batch.cameras[i] == static_cast<std::int64_t>(100 + index));
      const float* last = batch.images.data + (i + 1) * 16 * 16 * 3 - 3;
      CHECK(last[0] == Approx((static_cast<double>(index) / 255 - 0.485) / 0.229));
      CHECK(last[2] == Approx((static_cast<double>(255 - index) / 255 - 0.406) / 0.225));
    }
  }
  CHECK_FALSE(loader.next(batch));
  CHECK_FALSE(loader.next(batch));
  CHECK(loader.reader_cost() > 0);
  CHECK(loader.unreadable().total() == 0);
}

TEST_CASE("loader: the same bits for any number of workers, prefetch and cache") {
  const Images images(23);
  images.damage(5, "not an image");
  for (const Sampler& sampler : {Sampler(BatchSampler{.batch_size = 4}),
                                 Sampler(PKSampler{.batch_size = 6, .sample_per_id = 2})}) {
    const Delivered expected = epoch_of(images.list(), sampler, {.num_workers = 0}, 3);
    CHECK(expected.images.size() >= 18 * 16 * 16 * 3);
    for (int workers : {1, 3})
      for (std::size_t prefetch : {1, 4})
        for (std::size_t cache : {0, 20000, 1 << 20})
          CHECK(epoch_of(images.list(), sampler,
                         {.num_workers = workers, .prefetch = prefetch, .cache_bytes = cache},
                         3) == expected);
    CHECK_FALSE(epoch_of(images.list(), sampler, {}, 4) == expected);
  }
}

TEST_CASE("loader: cached images are not decoded again and stay as they were") {
  const Images images(8);
  Loader loader(images.list(), in_order,
                Pipeline(16, {[](cv::Mat& image, RandomSequence&) { image *= 0.5; },
                              ResizeImage{.size = 16}, NormalizeImage{}}),
                Seed{1}, {.cache_bytes = 1 << 20});
  loader.start(0);
  const Delivered first = drain(loader);
  for (int i = 0; i < 8; ++i) images.remove(i);
  loader.start(1);
  CHECK(drain(loader) == first);
  CHECK(loader.unreadable().total() == 0);
}

TEST_CASE("loader: an epoch resumed in the middle continues with the same bits") {
  const Images images(23);
  for (int workers : {0, 2}) {
    Loader whole(images.list(), BatchSampler{.batch_size = 4}, busy_transforms(), Seed{7},
                 {.num_workers = workers});
    whole.start(5);
    drain(whole, 2);
    const Delivered expected = drain(whole);
    CHECK(expected.numbers == std::vector<std::size_t>{2, 3, 4, 5});
    Loader resumed(images.list(), BatchSampler{.batch_size = 4}, busy_transforms(), Seed{7},
                   {.num_workers = workers});
    resumed.start(5, 2);
    CHECK(drain(resumed) == expected);
    whole.start(5, 2);  // in a loader that was used before
    CHECK(drain(whole) == expected);
    whole.start(5, 6);
    CHECK(drain(whole) == Delivered{});
    CHECK_THROWS_WITH(whole.start(5, 7), ContainsSubstring("has 6 batches"));
  }
}

TEST_CASE("loader: unreadable images are replaced in training, counted and reported") {
  const Images images(16);
  images.remove(1);      // -> 2 of the same label
  images.damage(4, "");  // -> 7, since 5 and 6 fail as well
  images.damage(5, "a text file");
  images.truncate(6);
  for (int i = 8; i < 12; ++i) images.remove(i);  // a label without images: -> 12
  const Sampler sampler = BatchSampler{.batch_size = 16, .shuffle = false};
  for (int workers : {0, 3}) {
    Loader loader(images.list(), sampler, eval_transforms(16), Seed{1}, {.num_workers = workers});
    loader.start(0);
    const Delivered all = drain(loader);
    CHECK(all.indices ==
          std::vector<std::size_t>{0, 2, 2, 3, 7, 7, 7, 7, 12, 12, 12, 12, 12, 13, 14, 15});
    CHECK(all.labels == std::vector<std::int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3});
    const UnreadableReport& report = loader.unreadable();
    CHECK(report.total() == 8);
    CHECK(report.count(ImageFault::missing) == 5);
    CHECK(report.count(ImageFault::empty) == 1);
    CHECK(report.count(ImageFault::not_an_image) == 1);
    CHECK(report.count(ImageFault::truncated) == 1);
    REQUIRE(report.examples.size() == 8);
    CHECK(report.examples[0].index == 1);
    CHECK_THAT(report.examples[0].message,
               ContainsSubstring("1.png: ") && ContainsSubstring("no such file"));
    CHECK_THAT(text(report),
               ContainsSubstring("8 unreadable images (5 missing, 1 empty, 1 not an image, 1 "
                                 "truncated), such as\n"));
    loader.start(1);
    drain(loader);
    CHECK(loader.unreadable().total() == 8);  // each image once
  }
}

TEST_CASE("loader: unreadable images are dropped in evaluation") {
  const Images images(16);
  images.remove(1);
  images.truncate(3);
  for (int i = 8; i < 12; ++i) images.damage(i, "a text file");  // all of a batch
  for (int workers : {0, 2}) {
    LoaderConfig config = evaluation;
    config.num_workers = workers;
    Loader loader(images.list(), in_order, eval_transforms(16), Seed{1}, config);
    loader.start(0);
    const Delivered all = drain(loader);
    CHECK(all.indices == std::vector<std::size_t>{0, 2, 4, 5, 6, 7, 12, 13, 14, 15});
    CHECK(all.batch_sizes == std::vector<std::size_t>{2, 4, 4});
    CHECK(all.numbers == std::vector<std::size_t>{0, 1, 3});
    for (std::size_t i = 0; i < all.indices.size(); ++i)  // the rows moved with their labels
      CHECK(all.images[(i + 1) * 16 * 16 * 3 - 3] ==
            Approx((static_cast<double>(all.indices[i]) / 255 - 0.485) / 0.229));
    CHECK(loader.unreadable().total() == 6);
  }
}

TEST_CASE("loader: too many unreadable images stop the epoch") {
  const Images images(16);
  for (int i = 0; i < 9; ++i) images.remove(2 * i % 16 + (i == 8));
  Loader half(images.list(), in_order, eval_transforms(16), Seed{1}, {});
  CHECK_THAT(data_error(half), ContainsSubstring("9 of the 16 images of epoch 0 are unreadable") &&
                                   ContainsSubstring("0.png: no such file"));
  Loader lenient(images.list(), in_order, eval_transforms(16), Seed{1}, {.max_unreadable = 0.6});
  lenient.start(0);
  CHECK(drain(lenient).indices.size() == 16);
  Loader strict(images.list(), in_order, eval_transforms(16), Seed{1},
                {.on_unreadable = OnUnreadable::drop, .max_unreadable = 0});
  CHECK_THAT(data_error(strict), ContainsSubstring("max_unreadable = 0"));

  for (int i = 4; i < 8; ++i) images.damage(i, "");
  Loader batch(images.list(), in_order, eval_transforms(16), Seed{1}, {.max_unreadable = 1});
  CHECK_THAT(data_error(batch), ContainsSubstring("all 4 images of batch 1 are unreadable"));

  Loader gone(ImageList(images.folder / "elsewhere", images.samples), in_order, eval_transforms(16),
              Seed{1}, evaluation);
  CHECK_THAT(data_error(gone), ContainsSubstring("are unreadable"));

  // A batch of one has nothing to compare with; that no replacement exists is an error.
  Loader single(ImageList(images.folder.path(), {{"absent.png", 0}}), in_order, eval_transforms(16),
                Seed{1}, {.max_unreadable = 1});
  CHECK_THAT(data_error(single), ContainsSubstring("no readable image was found"));
}

TEST_CASE("loader: images that do not fit the transforms are counted") {
  const Images images(8);
  images.damage(3, "");
  cv::imwrite((images.folder / "3.png").string(), cv::Mat(5, 5, CV_8UC3, cv::Scalar(1, 2, 3)));
  Loader loader(images.list(), in_order, Pipeline(16, {CropImage{.size = 16}, NormalizeImage{}}),
                Seed{1}, evaluation);
  loader.start(0);
  CHECK(drain(loader).indices.size() == 7);
  CHECK(loader.unreadable().count(ImageFault::unfit) == 1);
}

TEST_CASE("loader: an exception in a transform surfaces with its batch") {
  const Images images(16);
  const Pipeline transforms(16, {[](cv::Mat& image, RandomSequence&) {
                                   if (image.at<cv::Vec3b>(23, 28)[0] == 9)
                                     throw std::runtime_error("image nine");
                                 },
                                 ResizeImage{.size = 16}, NormalizeImage{}});
  for (int workers : {0, 1, 3}) {
    Loader loader(images.list(), in_order, transforms, Seed{1}, {.num_workers = workers});
    for (int repeat = 0; repeat < 2; ++repeat) {
      loader.start(0);
      Batch batch;
      CHECK(loader.next(batch));
      CHECK(loader.next(batch));
      CHECK_THROWS_WITH(loader.next(batch), "image nine");
      CHECK_THROWS_WITH(loader.next(batch), ContainsSubstring("call start()"));
    }
    loader.start(0, 3);
    CHECK(drain(loader).indices == std::vector<std::size_t>{12, 13, 14, 15});
  }
  Loader opencv(
      images.list(), in_order,
      Pipeline(16, {[](cv::Mat& image, RandomSequence&) { image = image(cv::Rect(0, 0, 99, 1)); }}),
      Seed{1}, {});
  CHECK_THAT(data_error(opencv), ContainsSubstring("0.png: a transform failed in OpenCV"));
  Loader unfinished(images.list(), in_order, Pipeline(16, {}), Seed{1}, {});
  unfinished.start(0);
  Batch batch;
  CHECK_THROWS_AS(unfinished.next(batch), ConfigError);
}

TEST_CASE("loader: ended or started again at any moment it does not hang") {
  const Images images(40);
  for (std::size_t taken = 0; taken < 6; ++taken) {
    Loader loader(images.list(), in_order, busy_transforms(), Seed{1},
                  {.num_workers = 3, .prefetch = 2});
    if (taken > 0) loader.start(0);
    Batch batch;
    for (std::size_t i = 0; i < taken; ++i) CHECK(loader.next(batch));
    if (taken % 2 == 1) {
      loader.start(1);
      CHECK(drain(loader).indices.size() == 40);
    }
  }
}

TEST_CASE("loader: workers run ahead of the consumer, but not without bound") {
  const Images images(40);
  std::atomic<int> transformed{0};
  const Pipeline counting(16, {[&](cv::Mat&, RandomSequence&) { ++transformed; },
                               ResizeImage{.size = 16}, NormalizeImage{}});
  Loader loader(images.list(), in_order, counting, Seed{1}, {.num_workers = 2, .prefetch = 3});
  loader.start(0);
  Batch batch;
  REQUIRE(loader.next(batch));
  const float* first = batch.images.data;
  const std::vector<float> kept(batch.images.begin(), batch.images.end());
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (transformed < 16 && std::chrono::steady_clock::now() < patience)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(transformed == 16);  // the batch in use and three ahead
  CHECK(std::equal(kept.begin(), kept.end(), first));
  std::set<const float*> buffers;
  do buffers.insert(batch.images.data);
  while (loader.next(batch));
  CHECK(buffers.size() == 4);
}

TEST_CASE("loader: bad settings") {
  const Images images(4);
  auto error = [&](const LoaderConfig& config) {
    try {
      Loader(images.list(), in_order, eval_transforms(16), Seed{1}, config);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("no exception");
  };
  CHECK_THAT(error({.num_workers = -1}), ContainsSubstring("num_workers is -1"));
  CHECK_THAT(error({.prefetch = 0}), ContainsSubstring("prefetch is 0"));
  CHECK_THAT(error({.max_unreadable = 1.5}), ContainsSubstring("max_unreadable is 1.5"));
  Loader pk(images.list(), PKSampler{.batch_size = 8, .sample_per_id = 4}, eval_transforms(16),
            Seed{1});
  CHECK_THROWS_AS(pk.start(0), ConfigError);
  Batch batch;
  CHECK_THROWS_WITH(pk.next(batch), ContainsSubstring("call start()"));
  Loader few(images.list(), PKSampler{.batch_size = 8, .sample_per_id = 8, .drop_last = false},
             eval_transforms(16), Seed{1});
  CHECK_THAT(few.warning(), ContainsSubstring("1 of 1 identities have fewer than 8 images"));
}
