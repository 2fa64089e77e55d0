// Trainer: groups of parameters, the moving average, and rates that follow the scores.

#include <cmath>

#include <kindred/head/fc.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/combined.hpp>
#include <kindred/loss/cross_batch_memory.hpp>
#include <kindred/loss/triplet_margin_loss.hpp>
#include <kindred/model/rec_model.hpp>
#include <kindred/neck/bn_neck.hpp>

#include "support/mean_colour.hpp"
#include "train/memory_run.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// A loss with a parameter, and one with a memory that must be in the checkpoint.
using Memory = loss::CrossBatchMemory<loss::TripletMarginLoss>;
using Model = RecModel<MeanColour, neck::BNNeck, head::FC,
                       loss::Combined<loss::CELoss, loss::CenterLoss, Memory>>;
using Groups = std::vector<train::ParameterGroup<>>;

constexpr std::size_t batches = 5;

Model make_model() {
  return Model({.neck = {.num_features = 3},
                .head = {.embedding_size = 3, .class_num = classes},
                .loss = {{.weight = 1},
                         {.weight = 0.5, .num_classes = classes, .feat_dim = 3},
                         {.memory_size = 20, .embedding_size = 3, .loss = {.margin = 0.5}}}},
               Seed{4});
}

std::vector<train::Metric> fingerprint(const Model& model) {
  double sum = 0;
  for (const float v : model.trainable()) sum += std::sin(v);
  for (const float v : model.statistics()) sum += std::sin(v);
  return {{"recall1", sum}};
}

FitOptions<Model> options_for(const TemporaryFolder& folder) {
  return {.epochs = 4,
          .output = folder.path(),
          .print_batch_step = 1,
          .save_every_steps = 2,
          .resume = true,
          .quiet = true,
          .evaluate = fingerprint};
}

Groups center_groups() {
  return {{"RecModel", optim::Adam{}, lr::Cosine{.base = 0.02, .warmup_epochs = 1}},
          {"CenterLoss", optim::SGD{}, lr::Constant{0.5}}};
}

FitResult run_training(const FitOptions<Model>& options, const Groups& groups,
                       MemoryLoader::Hook hook = {}) {
  Model model = make_model();
  MemoryLoader loader(batches, std::move(hook));
  return Trainer(model, groups, {.threads = 1}).fit(loader, options);
}

/// Interrupts a run at many places, resumes it, and compares what it leaves with a whole run.
void check_resume(const Groups& groups, double ema_decay) {
  const auto options = [&](const TemporaryFolder& folder) {
    auto o = options_for(folder);
    o.ema_decay = ema_decay;
    return o;
  };
  TemporaryFolder whole;
  run_training(options(whole), groups);
  const Remains expected(whole.path());
  for (int batches_done : {1, 2, 5, 6, 9, 11, 14, 19}) {
    INFO("interrupted after " << batches_done << " batches");
    TemporaryFolder folder;
    CHECK_THROWS_AS(run_training(options(folder), groups, interrupt_after(batches_done)),
                    Interruption);
    run_training(options(folder), groups);
    CHECK(Remains(folder.path()) == expected);
  }
}

std::vector<double> rates_of(const std::filesystem::path& output, const char* key) {
  std::vector<double> rates;
  std::ifstream in(output / "metrics.jsonl");
  for (std::string row; std::getline(in, row);) {
    const auto json = nlohmann::json::parse(row);
    if (json.at("event") == "step") rates.push_back(json.at(key).get<double>());
  }
  return rates;
}

/// The message of the ConfigError of a trainer with these groups.
std::string refused(const Groups& groups) {
  Model model = make_model();
  try {
    Trainer trainer(model, groups, {.threads = 1});
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("groups: every scope has its own optimizer and rate") {
  Model model = make_model(), by_hand = make_model();
  MemoryLoader loader(batches);
  loader.start(0, 0);
  MemoryLoader::Batch batch;
  REQUIRE(loader.next(batch));
  const Groups groups{{"RecModel", optim::Momentum{}, lr::Constant{0.1}},
                      {"CenterLoss", optim::SGD{}, lr::Constant{0.5}}};
  Trainer(model, groups, {.threads = 1}).step(batch.images, batch.labels, {});
  auto session = by_hand.train_session({.threads = 1});
  session.forward_backward(batch.images, batch.labels, 0);
  std::size_t centers = 0, others = 0;
  for (const ParameterInfo& p : by_hand.parameters().entries()) {
    if (p.kind == ParameterKind::buffer) continue;
    const double rate = p.name == "loss.1.centers" ? 0.5 : 0.1;
    (rate == 0.5 ? centers : others) += 1;
    for (std::int64_t i = p.offset; i < p.offset + p.shape.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      CHECK(model.trainable()[at] ==
            Approx(by_hand.trainable()[at] - rate * p.lr_multiplier * session.gradients()[at]));
    }
  }
  CHECK(centers == 1);
  CHECK(others >= 3);
}

TEST_CASE("groups: an interrupted and resumed run ends with the same bits") {
  check_resume(center_groups(), 0);
  TemporaryFolder folder;
  run_training(options_for(folder), center_groups());
  CHECK(rates_of(folder.path(), "lr").front() == 0);
  CHECK(rates_of(folder.path(), "lr(CenterLoss)") == std::vector<double>(20, 0.5));
  const io::SafetensorsFile latest(folder / "latest.safetensors");
  CHECK(latest.metadata().at("optimizer") == "RecModel Adam, CenterLoss SGD");
  Groups other = center_groups();
  other[1].optimizer = optim::Momentum{};
  CHECK_THROWS_WITH(run_training(options_for(folder), other),
                    ContainsSubstring("this run has RecModel Adam, CenterLoss Momentum"));
}

TEST_CASE("groups: scopes must cover every parameter once") {
  const optim::SGD sgd;
  const lr::Constant rate{0.1};
  CHECK(refused({{"all", sgd, rate}}) == "nothing was thrown");
  CHECK(refused({{"neck", sgd, rate}, {"head", sgd, rate}, {"loss", sgd, rate}}) ==
        "nothing was thrown");
  CHECK(refused({{"RecModel", sgd, rate}, {"loss.1.centers", sgd, rate}}) == "nothing was thrown");
  CHECK_THAT(refused({{"RecModel", sgd, rate}}),
             ContainsSubstring("no scope has loss.1.centers; add one"));
  CHECK_THAT(refused({{"all", sgd, rate}, {"CenterLoss", sgd, rate}}),
             ContainsSubstring("loss.1.centers is in the scope all and in CenterLoss"));
  CHECK_THAT(refused({{"all", sgd, rate}, {"CELoss", sgd, rate}}),
             ContainsSubstring("no parameter is in the scope \"CELoss\""));
  CHECK_THAT(refused({{"all", sgd, rate}, {"hea", sgd, rate}}),
             ContainsSubstring("no parameter is in the scope \"hea\""));
}

TEST_CASE("moving average: of every step, evaluated, saved as best and resumed to the bit") {
  check_resume(center_groups(), 0.8);

  TemporaryFolder folder;
  auto options = options_for(folder);
  options.epochs = 1;
  options.ema_decay = 0.8;
  Model model = make_model();
  std::vector<float> evaluated;
  options.evaluate = [&](const Model& m) {
    evaluated.assign(m.trainable().begin(), m.trainable().end());
    evaluated.insert(evaluated.end(), m.statistics().begin(), m.statistics().end());
    return fingerprint(m);
  };
  const Groups groups{{"all", optim::SGD{}, lr::Constant{0.1}}};
  MemoryLoader loader(batches);
  Trainer trainer(model, groups, {.threads = 1});
  trainer.fit(loader, options);

  Model by_hand = make_model();
  auto values = [&] {
    std::vector<float> all(by_hand.trainable().begin(), by_hand.trainable().end());
    all.insert(all.end(), by_hand.statistics().begin(), by_hand.statistics().end());
    return all;
  };
  std::vector<float> average = values();
  Trainer stepper(by_hand, groups, {.threads = 1});
  loader.start(0, 0);
  MemoryLoader::Batch batch;
  for (std::int64_t i = 0; loader.next(batch); ++i) {
    stepper.step(batch.images, batch.labels, {.step = i, .steps_per_epoch = 5});
    const auto now = values();
    for (std::size_t k = 0; k < now.size(); ++k) average[k] = 0.8f * average[k] + 0.2f * now[k];
  }
  const auto trained = values();
  for (const ParameterInfo& p : by_hand.parameters().entries())  // memories are not averaged
    if (p.kind == ParameterKind::buffer && p.name.starts_with("loss.")) {
      const auto at = static_cast<std::ptrdiff_t>(by_hand.trainable().size()) + p.offset;
      std::copy_n(trained.begin() + at, p.shape.size(), average.begin() + at);
    }
  REQUIRE(evaluated.size() == average.size());
  for (std::size_t k = 0; k < average.size(); ++k)
    CHECK(evaluated[k] == Approx(average[k]).epsilon(1e-5).margin(1e-7));
  CHECK(std::equal(model.trainable().begin(), model.trainable().end(), trained.begin()));
  CHECK_FALSE(std::equal(model.trainable().begin(), model.trainable().end(), evaluated.begin()));

  Model best = make_model();
  io::load_weights(folder / "best_model.safetensors", best.parameters(), best.trainable().data(),
                   best.statistics().data());
  CHECK(std::equal(best.trainable().begin(), best.trainable().end(), evaluated.begin()));
  trainer.swap_average();
  CHECK(std::equal(model.trainable().begin(), model.trainable().end(), evaluated.begin()));
  trainer.swap_average();
  CHECK(std::equal(model.trainable().begin(), model.trainable().end(), trained.begin()));
  CHECK_THROWS_WITH(stepper.swap_average(), ContainsSubstring("no moving average"));

  options.epochs = 2;
  options.ema_decay = 0;
  CHECK_THROWS_WITH(trainer.fit(loader, options),
                    ContainsSubstring("its optimizer is SGD, moving average, this run has SGD"));
  options.ema_decay = 1;
  CHECK_THROWS_WITH(trainer.fit(loader, options), ContainsSubstring("ema_decay = 1 must be in"));
}

TEST_CASE("ReduceOnPlateau: the rate falls with the scores, and after a resumption too") {
  const Groups groups{
      {"all", optim::SGD{},
       lr::ReduceOnPlateau{
           .base = 0.01, .mode = lr::PlateauMode::max, .factor = 0.5, .patience = 0}}};
  const std::vector<double> scores{0.5, 0.4, NAN, 0.6, 0.1, 0.2};
  const auto options = [&](const TemporaryFolder& folder, std::size_t first) {
    auto o = options_for(folder);
    o.epochs = 6;
    o.evaluate = [&scores, next = first](const Model&) mutable {
      return std::vector<train::Metric>{{"recall1", scores.at(next++)}};
    };
    return o;
  };
  TemporaryFolder whole, broken;
  run_training(options(whole, 0), groups);
  const auto rates = rates_of(whole.path(), "lr");
  REQUIRE(rates.size() == 30);
  const std::vector<double> expected{0.01, 0.01, 0.005, 0.005, 0.005, 0.0025};  // of the epochs
  for (std::size_t i = 0; i < rates.size(); ++i) CHECK(rates[i] == expected[i / batches]);
  CHECK_THROWS_AS(run_training(options(broken, 0), groups, interrupt_after(12)), Interruption);
  run_training(options(broken, 2), groups);
  CHECK(Remains(broken.path()) == Remains(whole.path()));
}
