// Trainer, CPU against CUDA: a step is one graph that the host waits for once, at its end, and has
// the bits of the same work launched kernel by kernel and updated after a look at it.

#include <unistd.h>

#include <kindred/train/trainer.hpp>

#include "cuda/library.hpp"
#include "cuda/support.hpp"

using namespace kindred;
using test::random_values;
using test::Side;

namespace {

using Device = test::TestedDevice;
using Model = RecModel<backbone::PPLCNet, neck::FC, head::ArcMargin, loss::CELoss, Device>;
using Array = Model::Array;
using Numbers = std::vector<float>;

constexpr std::int64_t batches = 4, classes = 3, pixels = 32, batch_size = 6;

/// Removed with all that is in it.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() /
              text("kindred_trainer_", Side::on_cuda, '_', getpid())) {
    std::filesystem::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Batches that are functions of (epoch, number): noise around an image of each class.
class MemoryLoader {
 public:
  struct Batch {
    View<const float> images;
    std::span<const std::int64_t> labels;
    std::size_t number = 0;
  };
  /// Called before a batch is handed out; may change its images.
  using Hook = std::function<void(const Batch&, std::vector<float>&)>;

  explicit MemoryLoader(Hook hook = {}) : hook_(std::move(hook)) {}

  std::size_t batches_in(std::uint64_t) const { return batches; }
  void start(std::uint64_t epoch, std::size_t first) {
    epoch_ = epoch;
    next_ = first;
  }
  bool next(Batch& batch) {
    if (next_ == batches) return false;
    const std::int64_t image = pixels * pixels * 3;
    images_ = random_values<float>(batch_size * image, 10 * epoch_ + next_ + 10);
    for (std::int64_t b = 0; b < batch_size; ++b) {
      labels_[b] = b / 2;
      const auto common = random_values<float>(image, static_cast<std::uint64_t>(b / 2));
      for (std::int64_t i = 0; i < image; ++i)
        images_[static_cast<std::size_t>(b * image + i)] += common[static_cast<std::size_t>(i)];
    }
    batch.number = next_++;
    if (hook_) hook_(batch, images_);
    batch.images = {images_.data(), {batch_size, pixels, pixels, 3}};
    batch.labels = labels_;
    return true;
  }
  std::string describe(const Batch&, std::size_t i) const { return text("image ", i); }
  double reader_cost() const { return 0; }
  std::string warning() const { return {}; }

 private:
  Hook hook_;
  std::uint64_t epoch_ = 0;
  std::size_t next_ = 0;
  std::vector<float> images_;
  std::int64_t labels_[batch_size] = {};
};

// So small that the sides, whose gradients are near, are on the same path.
const lr::Cosine schedule{.base = 2e-6, .eta_min = 1e-6};
const optim::Momentum momentum{.momentum = 0.9, .weight_decay = 1e-4};

struct Variant {
  const char* name;
  std::int64_t update_freq = 1;
  double ema_decay = 0;
  bool in_tile = false;
  Storage storage = Storage::scalar;
};
const Variant variants[] = {
    {.name = "plain"},
    {.name = "sums of two", .update_freq = 2},
    {.name = "sums of three of four", .update_freq = 3},
    {.name = "moving average", .ema_decay = 0.9},
    {.name = "in tiles", .in_tile = true},
    {.name = "BF16", .storage = Storage::bf16},
    {.name = "all at once", .ema_decay = 0.9, .in_tile = true, .storage = Storage::bf16}};

Model make_model(const Variant& v) {
  return Model(
      {.backbone = {.scale = 0.25, .dropout_prob = 0.2, .class_expand = 24},
       .neck = {.embedding_size = 24, .class_num = 8},
       .head = {.embedding_size = 8, .class_num = classes, .scale = 8, .update_in_tile = v.in_tile},
       .loss = {.weight = 1}},
      Seed{4});
}

/// momentum as somebody else's optimizer, which does not say what it does to an element.
struct Own {
  double weight_decay = 1e-4;
  optim::Kinds no_decay{};
  static constexpr const char* name() { return "Own"; }
  static constexpr std::size_t moments() { return 1; }
  template <class Context>
  void update(Context& ctx, std::span<const optim::Range> all,
              const optim::Update<float, Array>& u) const {
    auto unasked = u;
    unasked.allowed = nullptr;
    momentum.update(ctx, all, unasked);
  }
};

/// What the host asks of the device; all 0 where that is not emulated.
struct Asked {
  int launches = 0, captures = 0, instantiations = 0, graph_launches = 0, waits = 0;
  static Asked so_far() {
#ifdef KINDRED_CUDA_EMULATION
    const auto& c = emulation::counts;
    return {c.launches, c.captures, c.instantiations, c.graph_launches, c.waits};
#else
    return {};
#endif
  }
  friend Asked operator-(const Asked& a, const Asked& b) {
    return {a.launches - b.launches, a.captures - b.captures, a.instantiations - b.instantiations,
            a.graph_launches - b.graph_launches, a.waits - b.waits};
  }
  friend bool operator==(const Asked&, const Asked&) = default;
};

/// Weights and statistics at the end of a run.
struct Result {
  Numbers weights, statistics;
  Asked asked;
  explicit Result(const Model& model)
      : weights(model.trainable().begin(), model.trainable().end()),
        statistics(model.statistics().begin(), model.statistics().end()) {}
};

View<const float> all(const Numbers& values) {
  return {values.data(), {static_cast<std::int64_t>(values.size())}};
}

template <class Optimizer>
Result fit(const Variant& v, const Optimizer& optimizer) {
  const Folder folder;
  Model model = make_model(v);
  MemoryLoader loader;
  Trainer trainer(model, optimizer, schedule, {.activations = v.storage});
  trainer.session().context().synchronize();
  const Asked before = Asked::so_far();
  trainer.fit(loader, {.epochs = 2,
                       .output = folder.path(),
                       .update_freq = v.update_freq,
                       .ema_decay = v.ema_decay,
                       .quiet = true});
  const Asked asked = Asked::so_far() - before;
  if (v.ema_decay > 0) trainer.swap_average();
  Result result(model);
  result.asked = asked;
  return result;
}

/// The same kernel by kernel, with centres that are updated after the pass.
Result by_hand(const Variant& v) {
  Model model = make_model({});
  auto session = model.train_session({.activations = v.storage});
  auto& ctx = session.context();
  const auto ranges = optim::ranges(model.parameters(), momentum.weight_decay, {});
  std::vector<Array> moments(1, Array(model.trainable().size()));
  Array weights(model.trainable().begin(), model.trainable().end()),
      statistics(model.statistics().begin(), model.statistics().end());
  const auto flat = [](auto&& values) {
    return View<float>{values.data(), {static_cast<std::int64_t>(values.size())}};
  };
  const std::int64_t usable = batches / v.update_freq * v.update_freq;
  lr::Progress progress{0, usable / v.update_freq, 2, {}};
  for (std::uint64_t key = 0; key < static_cast<std::uint64_t>(2 * usable); ++key) {
    const auto number = static_cast<std::int64_t>(key) % usable;
    MemoryLoader loader;
    loader.start(key / static_cast<std::uint64_t>(usable), static_cast<std::size_t>(number));
    MemoryLoader::Batch batch;
    loader.next(batch);
    if (number % v.update_freq == 0) session.zero_gradients();
    session.forward_backward(batch.images, batch.labels, key);
    if ((number + 1) % v.update_freq != 0) continue;
    if (v.update_freq > 1)
      kernels::scale_add(ctx, 1.f / static_cast<float>(v.update_freq) - 1,
                         flat(session.gradients()), flat(session.gradients()));
    momentum.update(ctx, std::span<const optim::Range>(ranges),
                    optim::Update<float, Array>{model.trainable(), session.gradients(), moments,
                                                schedule.at(progress), progress.step + 1});
    if (v.ema_decay > 0) {
      const auto decay = static_cast<float>(v.ema_decay);
      kernels::moving_average_update(ctx, flat(weights), flat(model.trainable()), decay);
      kernels::moving_average_update(ctx, flat(statistics), flat(model.statistics()), decay);
    }
    ctx.synchronize();
    ++progress.step;
  }
  if (v.ema_decay > 0) {
    std::copy(weights.begin(), weights.end(), model.trainable().begin());
    std::copy(statistics.begin(), statistics.end(), model.statistics().begin());
  }
  return Result(model);
}

KINDRED_PARITY(steps_are_graphs) {
  if constexpr (std::is_same_v<T, float>)
    for (const Variant& v : variants) {
      const Result trained = fit(v, momentum), expected = by_hand(v);
      side.check(trained.weights == expected.weights, text(v.name, ": the same weights"));
      side.check(trained.statistics == expected.statistics, text(v.name, ": the same statistics"));
      const auto passes = static_cast<int>(2 * (batches / v.update_freq * v.update_freq));
      const auto kinds = static_cast<int>(std::min<std::int64_t>(v.update_freq, 3));
#ifdef KINDRED_CUDA_EMULATION
      const Asked& a = trained.asked;
      side.check(
          a == Asked{0, passes, kinds, passes, passes},
          text(v.name, ": ", passes, " batches of ", kinds, " kinds took ", a.launches,
               " launches, ", a.captures, " captures, ", a.instantiations, " instantiations, ",
               a.graph_launches, " launches of graphs, ", a.waits, " waits"));
#endif
      static_cast<void>(passes + kinds);
      if (v.storage == Storage::bf16) continue;  // the sides differ by roundings, see bf16_model
      Numbers moved = trained.weights;
      const Model start = make_model(v);
      for (std::size_t i = 0; i < moved.size(); ++i)
        moved[i] = (moved[i] - start.trainable()[i]) / 2e-6f;
      side.record(text(v.name, " moves by rates"), all(moved), 2e-2);
    }
}

using Student = RecModel<backbone::PPLCNet, neck::FC, head::FC,
                         loss::Combined<loss::CELoss, loss::KLDivLoss, loss::DistanceLoss>, Device>;
Student make_student() {
  return Student({.backbone = {.scale = 0.25, .dropout_prob = 0.2, .class_expand = 24},
                  .neck = {.embedding_size = 24, .class_num = 8},
                  .head = {.embedding_size = 8, .class_num = classes},
                  .loss = {{.weight = 1}, {.weight = 0.5, .temperature = 2}, {.weight = 2}}},
                 Seed{5});
}

// The teacher's pass, too, is part of the graph: it is neither launched nor waited for by itself.
KINDRED_PARITY(distillation) {
  if constexpr (std::is_same_v<T, float>) {
    Model big = make_model({});
    ModelTeacher<Model> teacher(big, {.features = true, .logits = true});
    const Folder folder;
    MemoryLoader loader;
    Student student = make_student();
    Trainer trainer(student, momentum, schedule);
    trainer.session().set_teacher(teacher);
    trainer.session().context().synchronize();
    [[maybe_unused]] const Asked before = Asked::so_far();
    trainer.fit(loader, {.epochs = 2, .output = folder.path(), .quiet = true});
#ifdef KINDRED_CUDA_EMULATION
    side.check(Asked::so_far() - before == Asked{0, 2 * batches, 1, 2 * batches, 2 * batches},
               "a step is one graph and one wait");
#endif

    // It reads what the device has normalised as it reads numbers.
    PixelTable table;
    for (std::size_t i = 0; i < 256 * 3; ++i)
      table.value[i] = 0.01f * static_cast<float>(i / 3) - 1;
    const Shape shape{batch_size, pixels, pixels, 3};
    const std::shared_ptr<void> memory =
        Device::allocate_results(static_cast<std::size_t>(shape.size()));
    auto* const bytes = static_cast<std::uint8_t*>(memory.get());
    Numbers images;
    RandomSequence random({9, 1, 0});
    for (std::int64_t i = 0; i < shape.size(); ++i) {
      bytes[i] = static_cast<std::uint8_t>(random.below(256));
      images.push_back(table.at(bytes[i], static_cast<std::size_t>(i) % 3));
    }
    const View<const float> x{images.data(), shape};
    const std::vector<std::int64_t> labels{0, 0, 1, 1, 2, 2};
    Student again = make_student();
    auto session = again.train_session();
    session.set_teacher(teacher);
    const PixelImages of_pixels{{bytes, shape}, table};
    std::vector<double> values[2];
    Numbers gradients[2];
    for (const bool numbers : {true, false}) {
      session.zero_gradients();
      const auto reports = numbers ? session.forward_backward(x, labels, 0)
                                   : session.forward_backward(of_pixels, labels, 0);
      for (const auto& r : reports) values[numbers].push_back(r.value);
      gradients[numbers].assign(session.gradients().begin(), session.gradients().end());
    }
    side.check(values[0] == values[1] && gradients[0] == gradients[1], "pixels: the same bits");
    side.record("losses", View<const double>{values[1].data(), {3}}, 1e-2);

    // A teacher that has changed is read anew.
    for (float& v : big.trainable()) v *= 1.5f;
    const double seen = session.forward_backward(x, labels, 0)[2].value;
    ModelTeacher<Model> fresh(big, {.features = true, .logits = true});
    session.set_teacher(fresh);
    side.check(seen == session.forward_backward(x, labels, 0)[2].value && seen != values[1][2],
               "a changed teacher");
  }
}

// An optimizer that does not promise to ask the device first is called after the host has looked.
KINDRED_PARITY(own_optimizer) {
  if constexpr (std::is_same_v<T, float>) {
    const Result own = fit(variants[0], Own{}), expected = fit(variants[0], momentum);
    side.check(own.weights == expected.weights, "the same weights");
#ifdef KINDRED_CUDA_EMULATION
    side.check(own.asked.graph_launches == 2 * batches && own.asked.waits == 4 * batches &&
                   own.asked.launches > 0,
               "passes are graphs, updates are launched after a wait");
#endif
  }
}

// What is not finite is found before any parameter is changed, though nobody waits for the check.
KINDRED_PARITY(not_finite) {
  if constexpr (std::is_same_v<T, float>)
    for (const Variant& v : {variants[0], variants[4], variants[5]}) {
      const Folder folder;
      Model model = make_model(v);
      Numbers before;
      MemoryLoader loader([&](const auto& batch, auto& images) {
        if (batch.number != 2) return;
        images[4 * pixels * pixels * 3 + 17] = NAN;
        before.assign(std::as_const(model).trainable().begin(),
                      std::as_const(model).trainable().end());
      });
      Trainer trainer(model, momentum, schedule, {.activations = v.storage});
      side.template check_throws<NumericError>(
          [&] { trainer.fit(loader, {.epochs = 1, .output = folder.path(), .quiet = true}); },
          "step 3: image 4 of the batch has values that are not finite");
      const auto after = std::as_const(model).trainable();
      side.check(before == Numbers(after.begin(), after.end()), text(v.name, ": nothing changed"));
    }
}

}  // namespace
