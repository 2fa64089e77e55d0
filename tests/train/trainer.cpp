// Trainer: interruption and resumption to the bit, accumulation, selection, faults.

#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>

#include "support/numeric.hpp"
#include "train/small_run.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

constexpr std::size_t batches = 5;
const optim::Momentum momentum{.momentum = 0.9, .weight_decay = 1e-4};
const optim::AdamW adamw{.weight_decay = 0.01};
const lr::Cosine cosine{.base = 0.05, .warmup_epochs = 1};

/// The same rate at every step.
lr::Cosine constant(double rate) { return {.base = rate, .eta_min = rate}; }

FitOptions<SmallModel> options_for(const TemporaryFolder& folder) {
  return {.epochs = 3,
          .output = folder.path(),
          .print_batch_step = 3,
          .save_every_steps = 2,
          .resume = true,
          .quiet = true,
          .evaluate = fingerprint};
}

/// A fresh process, as it were: new model, new trainer, the output folder of the last one.
template <class Optimizer>
FitResult run_training(const FitOptions<SmallModel>& options, const Optimizer& optimizer,
                       MemoryLoader::Hook hook = {}, int threads = 1,
                       Storage activations = Storage::scalar) {
  SmallModel model(small_config(), Seed{4});
  MemoryLoader loader(batches, std::move(hook));
  return Trainer(model, optimizer, cosine, {.threads = threads, .activations = activations})
      .fit(loader, options);
}

template <class Optimizer>
Remains uninterrupted(const Optimizer& optimizer, int threads = 1) {
  TemporaryFolder folder;
  run_training(options_for(folder), optimizer, {}, threads);
  return Remains(folder.path());
}

/// The message of the exception of type E that `f` throws.
template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEMPLATE_TEST_CASE("Trainer: an interrupted and resumed run ends with the same bits", "",
                   optim::Momentum, optim::AdamW) {
  const TestType optimizer{.weight_decay = 1e-4};
  const Remains expected = uninterrupted(optimizer);
  for (int batches_done : {0, 1, 2, 3, 4, 5, 7, 10, 13, 14}) {
    INFO("interrupted after " << batches_done << " batches");
    TemporaryFolder folder;
    CHECK_THROWS_AS(run_training(options_for(folder), optimizer, interrupt_after(batches_done)),
                    Interruption);
    run_training(options_for(folder), optimizer);
    const Remains remains(folder.path());
    CHECK(remains.journal == expected.journal);
    CHECK(remains == expected);
  }
}

TEST_CASE("Trainer: with activations in BF16, too, an interrupted run ends with the same bits") {
  TemporaryFolder whole, broken;
  run_training(options_for(whole), momentum, {}, 1, Storage::bf16);
  CHECK_THROWS_AS(run_training(options_for(broken), momentum, interrupt_after(7), 1, Storage::bf16),
                  Interruption);
  run_training(options_for(broken), momentum, {}, 2, Storage::bf16);
  CHECK(Remains(broken.path()) == Remains(whole.path()));
  CHECK_FALSE(Remains(whole.path()) == uninterrupted(momentum));  // the option has an effect
}

TEST_CASE("Trainer: a run interrupted again and again ends with the same bits") {
  const Remains expected = uninterrupted(momentum);
  TemporaryFolder folder;
  int interruptions = 0;
  for (; interruptions < 50; ++interruptions) {
    try {
      run_training(options_for(folder), momentum, interrupt_after(3));
      break;
    } catch (const Interruption&) {
    }
  }
  CHECK(interruptions > 3);
  CHECK(Remains(folder.path()) == expected);
}

TEST_CASE("Trainer: a run that dies between an evaluation and its checkpoint repeats it") {
  auto with_step_saves = [](const TemporaryFolder& folder) {
    auto options = options_for(folder);
    options.save_every_steps =
        batches;  // the last step of an epoch is saved before it is evaluated
    return options;
  };
  TemporaryFolder whole, broken;
  run_training(with_step_saves(whole), momentum);
  auto options = with_step_saves(broken);
  const auto obstacle = broken / "latest.safetensors.tmp";
  options.evaluate = [&](const SmallModel& model) {
    std::filesystem::create_directory(obstacle);
    return fingerprint(model);
  };
  CHECK_THROWS_AS(run_training(options, momentum), FileError);
  CHECK_THAT(journal_of(broken.path()), ContainsSubstring("eval"));
  std::filesystem::remove(obstacle);
  run_training(with_step_saves(broken), momentum);
  CHECK(Remains(broken.path()) == Remains(whole.path()));
}

TEST_CASE("Trainer: one and two threads, and a repeat, give the same bits") {
  const Remains one = uninterrupted(adamw);
  CHECK(uninterrupted(adamw, 2) == one);
  CHECK(uninterrupted(adamw) == one);
  CHECK_FALSE(uninterrupted(momentum) == one);  // so the comparison can fail
}

TEST_CASE("Trainer: more epochs continue a finished run, and a finished run does nothing") {
  TemporaryFolder folder;
  auto options = options_for(folder);
  const FitResult first = run_training(options, momentum);
  CHECK(first.steps == 15);
  CHECK(std::isfinite(first.loss));
  const Remains before(folder.path());
  const FitResult again = run_training(options, momentum);
  CHECK(again.steps == 15);
  CHECK(again.best_metric == first.best_metric);
  CHECK(Remains(folder.path()) == before);
  options.epochs = 4;
  CHECK(run_training(options, momentum).steps == 20);
}

TEST_CASE("Trainer: without resume a run starts anew, with fresh moments and a fresh journal") {
  const auto anew = [](const TemporaryFolder& folder) {
    auto options = options_for(folder);
    options.resume = false;
    return options;
  };
  TemporaryFolder once, twice;
  run_training(anew(once), momentum);
  run_training(anew(twice), momentum);
  run_training(anew(twice), momentum);
  CHECK(Remains(once.path()) == Remains(twice.path()));
  // One trainer, two runs: the second starts from the weights alone.
  const auto second_run = [&](bool same_trainer) {
    TemporaryFolder folder;
    SmallModel model(small_config(), Seed{4});
    MemoryLoader loader(batches);
    Trainer trainer(model, momentum, cosine, {.threads = 1});
    trainer.fit(loader, anew(folder));
    if (same_trainer)
      trainer.fit(loader, anew(folder));
    else
      Trainer(model, momentum, cosine, {.threads = 1}).fit(loader, anew(folder));
    return Remains(folder.path());
  };
  CHECK(second_run(true) == second_run(false));
}

TEST_CASE("Trainer: update_freq averages gradients and leaves out what fills no step") {
  TemporaryFolder folder;
  auto options = options_for(folder);
  options.epochs = 1;
  options.update_freq = 2;
  SmallModel model(small_config(), Seed{4});
  MemoryLoader loader(batches);
  const lr::Cosine rate = constant(0.05);
  CHECK(Trainer(model, momentum, rate, {.threads = 1}).fit(loader, options).steps == 2);

  SmallModel by_hand(small_config(), Seed{4});
  auto session = by_hand.train_session({.threads = 1});
  const auto ranges = optim::ranges(by_hand.parameters(), momentum.weight_decay, {});
  std::vector<std::vector<float>> moments(1, std::vector<float>(by_hand.trainable().size()));
  loader.start(0, 0);
  MemoryLoader::Batch batch;
  for (std::uint64_t i = 0; i < 4; ++i) {
    REQUIRE(loader.next(batch));
    session.forward_backward(batch.images, batch.labels, i);
    if (i % 2 == 0) continue;
    for (float& g : session.gradients()) g /= 2;
    momentum.update(session.context(), std::span<const optim::Range>(ranges),
                    optim::Update<float>{by_hand.trainable(), session.gradients(), moments, 0.05,
                                         static_cast<std::int64_t>(i / 2 + 1)});
    session.zero_gradients();
  }
  CHECK(
      std::equal(model.trainable().begin(), model.trainable().end(), by_hand.trainable().begin()));
}

TEST_CASE("Trainer: resuming with update_freq or epochs of another length is refused") {
  TemporaryFolder folder;
  auto options = options_for(folder);
  options.save_every_steps = 3;
  CHECK_THROWS_AS(run_training(options, momentum, interrupt_after(4)),
                  Interruption);  // saved after 3
  options.update_freq = 2;
  CHECK_THAT(message_of<ConfigError>([&] { run_training(options, momentum); }),
             ContainsSubstring("saved after 3 batches of an epoch, now an epoch has 4 and "
                               "update_freq is 2"));
}

TEST_CASE("Trainer: the best model is the last of the best, and NaN is never best") {
  const std::vector<double> scores{0.5, NAN, 0.7, 0.7, 0.6};
  TemporaryFolder folder;
  auto options = options_for(folder);
  options.epochs = 5;
  options.save_interval = 2;
  std::size_t evaluations = 0;
  options.evaluate = [&](const SmallModel&) {
    return std::vector<train::Metric>{{"recall1", scores.at(evaluations++)}};
  };
  const FitResult result = run_training(options, momentum);
  CHECK(evaluations == 5);
  CHECK(result.best_metric == 0.7);
  CHECK(result.best_epoch == 4);
  const io::SafetensorsFile best(folder / "best_model.safetensors");
  CHECK(best.metadata().at("epoch") == "4");
  CHECK(best.find("optimizer.0") == nullptr);
  CHECK(std::filesystem::exists(folder / "epoch_2.safetensors"));
  CHECK(std::filesystem::exists(folder / "epoch_4.safetensors"));
  CHECK_FALSE(std::filesystem::exists(folder / "epoch_3.safetensors"));
  options.evaluate = {};
  TemporaryFolder other;
  options.output = other.path();
  CHECK(std::isnan(run_training(options, momentum).best_metric));
}

TEST_CASE("Trainer: evaluations at their intervals, and always after the last epoch") {
  TemporaryFolder folder;
  auto options = options_for(folder);
  options.epochs = 7;
  options.eval_interval = 3;
  options.start_eval_epoch = 4;
  int evaluations = 0;
  options.evaluate = [&](const SmallModel& model) {
    ++evaluations;
    return fingerprint(model);
  };
  run_training(options, momentum);
  CHECK(evaluations == 2);  // epochs 6 and 7
}

TEST_CASE("Trainer: what is not finite stops the run with its name and spares the checkpoint") {
  TemporaryFolder folder;
  auto options = options_for(folder);
  options.save_every_steps = 1;
  SmallModel model(small_config(), Seed{4});
  std::string saved;
  const auto run = [&](MemoryLoader::Hook spoil, double rate = 0.05) {
    std::filesystem::remove(folder / "latest.safetensors");
    model = SmallModel(small_config(), Seed{4});
    MemoryLoader loader(batches, [&](const auto& batch, auto& images, auto& labels) {
      if (batch.number != 2) return;  // two good steps first
      saved = read_bytes(folder / "latest.safetensors");
      if (spoil) spoil(batch, images, labels);
    });
    const auto schedule = constant(rate);
    return message_of<NumericError>(
        [&] { Trainer(model, momentum, schedule, {.threads = 1}).fit(loader, options); });
  };
  const auto intact_and_loadable = [&] {
    REQUIRE(!saved.empty());
    CHECK(read_bytes(folder / "latest.safetensors") == saved);
    SmallModel other(small_config(), Seed{4});
    std::vector<std::vector<float>> moments(1, std::vector<float>(other.trainable().size()));
    CHECK(train::load_checkpoint(folder / "latest.safetensors", other, moments, "Momentum").step ==
          2);
  };

  SECTION("an image") {
    CHECK_THAT(
        run([](const auto&, auto& images, auto&) { images[4 * side * side * 3 + 17] = NAN; }),
        ContainsSubstring("step 3: image 4 of the batch has values that are not finite "
                          "(image 2/4 in memory)"));
    intact_and_loadable();
  }
  SECTION("a weight") {
    CHECK_THAT(run([&](const auto&, auto&, auto&) {
                 model.parameter("backbone.blocks3.1.dw_conv.conv.weight")[3] = NAN;
               }),
               ContainsSubstring("step 3: parameter backbone.blocks3.1.dw_conv.conv.weight has "
                                 "values that are not finite"));
    intact_and_loadable();
  }
  SECTION("a loss") {
    CHECK_THAT(run([&](const auto&, auto&, auto&) {
                 for (float& w : model.parameter("neck.fc.weight")) w = 3e38f;
               }),
               ContainsSubstring("step 3: the loss "));
    intact_and_loadable();
  }
  SECTION("an update") {
    CHECK_THAT(run({}, 1e38), ContainsSubstring("not finite; lower the learning rate"));
    CHECK_FALSE(std::filesystem::exists(folder / "latest.safetensors"));  // not even once
  }
  SECTION("an image so large that its variance overflows") {
    CHECK_THAT(run([](const auto&, auto& images, auto&) {
                 for (float& v : images) v *= 1e25f;
               }),
               ContainsSubstring("step 3: the loss CELoss is "));
    intact_and_loadable();
  }
  SECTION("a statistic, which training does not read") {
    CHECK_THAT(run([&](const auto&, auto&, auto&) {
                 model.parameter("backbone.conv1.bn._variance")[1] = INFINITY;
               }),
               ContainsSubstring("step 3: after the update statistic backbone.conv1.bn._variance "
                                 "has values that are not finite"));
    intact_and_loadable();
  }
}

TEST_CASE("Trainer: labels too large and batches of one are one clear error") {
  TemporaryFolder folder;
  CHECK_THAT(message_of<DataError>([&] {
               run_training(options_for(folder), momentum,
                            [](const auto&, auto&, auto& labels) { labels[3] = classes; });
             }),
             ContainsSubstring("label 3 of image 3 in the batch is not in [0, 3)"));
  CHECK_THAT(message_of<DataError>([&] {
               run_training(options_for(folder), momentum,
                            [](const auto&, auto& images, auto& labels) {
                              labels.resize(1);
                              images.resize(side * side * 3);
                            });
             }),
             ContainsSubstring("a training batch needs at least 2 images"));
}

TEST_CASE("Trainer: settings that cannot be are refused") {
  const auto refused = [](auto change) {
    TemporaryFolder folder;
    auto options = options_for(folder);
    change(options);
    return message_of<ConfigError>([&] { run_training(options, momentum); });
  };
  CHECK_THAT(refused([](auto& o) { o.epochs = 0; }), ContainsSubstring("must be >= 1"));
  CHECK_THAT(refused([](auto& o) { o.save_interval = -1; }), ContainsSubstring("must be >= 0"));
  CHECK_THAT(refused([](auto& o) { o.update_freq = 6; }),
             ContainsSubstring("an epoch has 5 batches, fewer than update_freq = 6"));
  CHECK_THAT(refused([](auto& o) { o.epochs = 1; }),  // one epoch of warmup leaves none
             ContainsSubstring("warmup_epochs = 1 must be in [0, epochs)"));
  CHECK_THAT(refused([](auto& o) {
               o.evaluate = [](const SmallModel&) { return std::vector<train::Metric>{}; };
             }),
             ContainsSubstring("evaluate returned no metric"));
}

TEST_CASE("Trainer: a full disk keeps the last checkpoint and names the file") {
  TemporaryFolder folder;
  auto options = options_for(folder);
  CHECK_THROWS_AS(run_training(options, momentum, interrupt_after(6)), Interruption);
  const std::string saved = read_bytes(folder / "latest.safetensors");
  REQUIRE(!saved.empty());

  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 16384;  // room for the journal, none for a checkpoint
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string message = message_of<FileError>([&] { run_training(options, momentum); });
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);

  CHECK_THAT(message, ContainsSubstring("latest.safetensors: writing failed"));
  CHECK(read_bytes(folder / "latest.safetensors") == saved);
  CHECK_FALSE(std::filesystem::exists(folder / "latest.safetensors.tmp"));
  run_training(options, momentum);
  CHECK(Remains(folder.path()) == uninterrupted(momentum));
}

TEST_CASE("Trainer: a journal that cannot be written is an error") {
  TemporaryFolder folder;
  auto options = options_for(folder);
  options.output = folder / "run";
  std::filesystem::create_directories(options.output / "metrics.jsonl");
  CHECK_THROWS_AS(run_training(options, momentum), FileError);
  if (!std::filesystem::exists("/dev/full")) return;
  std::filesystem::remove_all(options.output);
  std::filesystem::create_directories(options.output);
  std::filesystem::create_symlink("/dev/full", options.output / "train.log");
  CHECK_THAT(message_of<FileError>([&] { run_training(options, momentum); }),
             ContainsSubstring("cannot write train.log; is the disk full?"));
}
