// update_in_tile: the optimizer's step on the centres within the pass that makes their gradient
// leaves what the step after the pass leaves, to the bit, and refuses what it cannot do.

#include <cmath>
#include <limits>

#include <kindred/head/arc_margin.hpp>
#include <kindred/head/fc.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/l2_normalize.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/pairwise.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/center_loss.hpp>
#include <kindred/loss/combined.hpp>
#include <kindred/model/rec_model.hpp>
#include <kindred/neck/fc.hpp>

#include "support/mean_colour.hpp"
#include "train/memory_run.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

constexpr std::size_t batches = 4;
constexpr std::int64_t width = 9;         // rows that are no whole vectors
constexpr std::int64_t class_num = 1100;  // several tiles

template <class Head, class Loss = loss::Combined<loss::CELoss, loss::CenterLoss>>
using ModelOf = RecModel<MeanColour, neck::FC, Head, Loss>;
using Groups = std::vector<train::ParameterGroup<>>;

/// The loss has a parameter, which lies behind the centres.
template <class Head>
typename ModelOf<Head>::Config config_of(bool in_tile) {
  return {.neck = {.embedding_size = 3, .class_num = width},
          .head = {.embedding_size = width,
                   .class_num = class_num,
                   .scale = 8,
                   .update_in_tile = in_tile},
          .loss = {{.weight = 0.7, .epsilon = 0.1},
                   {.weight = 0.1, .num_classes = classes, .feat_dim = width}}};
}

struct Setting {
  Groups groups;
  double ema_decay = 0;
  int threads = 1;
};

template <class Head>
FitResult run_training(const TemporaryFolder& folder, const Setting& setting, bool in_tile,
                       MemoryLoader::Hook hook = {}) {
  ModelOf<Head> model(config_of<Head>(in_tile), Seed{4});
  MemoryLoader loader(batches, std::move(hook));
  return Trainer(model, setting.groups, {.threads = setting.threads})
      .fit(loader, {.epochs = 2,
                    .output = folder.path(),
                    .print_batch_step = 1,
                    .save_every_steps = 1,
                    .ema_decay = setting.ema_decay,
                    .resume = true,
                    .quiet = true});
}

/// Everything a run leaves: parameters, moments, averages, losses.
template <class Head>
Remains remains_of(const Setting& setting, bool in_tile) {
  TemporaryFolder folder;
  run_training<Head>(folder, setting, in_tile);
  return Remains(folder.path());
}

const lr::Cosine cosine{.base = 0.05, .warmup_epochs = 1};

Groups all(const optim::AnyOptimizer& optimizer, const lr::AnySchedule& schedule = cosine) {
  return {{"all", optimizer, schedule}};
}

template <class Head>
void check_same(const std::string& name, Setting setting) {
  INFO(Head::name() << ", " << name);
  const Remains expected = remains_of<Head>(setting, false);
  const bool same = remains_of<Head>(setting, true) == expected;
  CHECK(same);
  setting.threads = 2;
  const bool same_with_two_threads = remains_of<Head>(setting, true) == expected;
  CHECK(same_with_two_threads);
}

/// The message of the E that `f` throws.
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

TEST_CASE("update_in_tile: every optimizer ends with the bits of a step after the pass") {
  using optim::Kinds;
  const auto check = [](const std::string& name, const Groups& groups) {
    check_same<head::ArcMargin>(name, {groups});
  };
  check("SGD", all(optim::SGD{.weight_decay = 0.01}));
  check("Momentum", all(optim::Momentum{.weight_decay = 0.01}));
  check("Nesterov", all(optim::Momentum{.weight_decay = 0.01, .use_nesterov = true}));
  check("Adam", all(optim::Adam{.weight_decay = 0.01}));
  check("AdamW", all(optim::AdamW{.weight_decay = 0.1}));
  check("RMSProp", all(optim::RMSProp{.momentum = 0.9, .weight_decay = 0.01}));
  check("centred RMSProp", all(optim::RMSProp{.momentum = 0.5, .epsilon = 1e-3, .centered = true}));
  check("centres without decay",
        all(optim::AdamW{.weight_decay = 0.1, .no_decay = Kinds{ParameterKind::center}}));
  const bool optimizers_differ = remains_of<head::ArcMargin>({all(optim::SGD{})}, true) ==
                                 remains_of<head::ArcMargin>({all(optim::Adam{})}, true);
  CHECK_FALSE(optimizers_differ);  // so the comparison can fail
}

TEST_CASE("update_in_tile: the head's own group, and a moving average of weights") {
  const Groups own{{"neck", optim::Momentum{}, cosine},
                   {"head", optim::Adam{.weight_decay = 0.02}, lr::Constant{0.01}},
                   {"loss", optim::SGD{}, lr::Constant{0.5}}};
  check_same<head::ArcMargin>("groups", {own});
  check_same<head::ArcMargin>("groups and average", {own, 0.8});
}

TEST_CASE("update_in_tile: a run resumes to the bit, and changes sides") {
  const Setting setting{all(optim::Momentum{.weight_decay = 0.01}), 0.9};
  const Remains expected = remains_of<head::ArcMargin>(setting, false);
  for (const int batches_done : {1, 4, 6})
    for (const bool before : {false, true})
      for (const bool after : {false, true}) {
        INFO(batches_done << " batches, in tile " << before << ", then " << after);
        TemporaryFolder folder;
        CHECK_THROWS_AS(
            run_training<head::ArcMargin>(folder, setting, before, interrupt_after(batches_done)),
            Interruption);
        run_training<head::ArcMargin>(folder, setting, after);
        const bool same = Remains(folder.path()) == expected;
        CHECK(same);
      }
}

TEST_CASE("update_in_tile: the centres have no gradient in memory") {
  ModelOf<head::ArcMargin> plain(config_of<head::ArcMargin>(false), Seed{4}),
      fused(config_of<head::ArcMargin>(true), Seed{4});
  const std::int64_t centres = (class_num * width + 15) / 16 * 16;
  CHECK(fused.parameters().trainable_size() == plain.parameters().trainable_size());
  CHECK(fused.parameters().gradient_size() == plain.parameters().trainable_size() - centres);
  CHECK(static_cast<std::int64_t>(fused.train_session().gradients().size()) ==
        fused.parameters().gradient_size());
  for (const ParameterInfo& p : fused.parameters().entries())
    CHECK((p.gradient_offset < 0) == (p.name == "head.weight"));
}

TEST_CASE("update_in_tile: what is not finite stops the run before the centres change") {
  using Model = ModelOf<head::ArcMargin>;
  Model model(config_of<head::ArcMargin>(true), Seed{4});
  std::vector<float> before;
  const auto run = [&](auto&& spoil) {
    model = Model(config_of<head::ArcMargin>(true), Seed{4});
    TemporaryFolder folder;
    MemoryLoader loader(batches, [&](const auto& batch, auto& images, auto&) {
      if (batch.number != 2) return;
      spoil(images);
      before.assign(model.trainable().begin(), model.trainable().end());
    });
    const std::string message = message_of<NumericError>([&] {
      Trainer(model, all(optim::Momentum{}, lr::Constant{0.05}), {.threads = 2})
          .fit(loader, {.output = folder.path(), .quiet = true});
    });
    CHECK_THAT(message, ContainsSubstring("step 3: "));
    CHECK_THAT(message, ContainsSubstring("training stopped before the update"));
    const bool unchanged =
        std::equal(before.begin(), before.end(), model.trainable().begin(),
                   [](float a, float b) { return a == b || (a != a && b != b); });
    CHECK(unchanged);
    return message;
  };
  SECTION("an image") {
    CHECK_THAT(run([](auto& images) { images[5] = NAN; }), ContainsSubstring("image 0"));
  }
  SECTION("a centre") {
    CHECK_THAT(run([&](auto&) { model.parameter("head.weight")[1000] = NAN; }),
               ContainsSubstring("parameter head.weight"));
  }
  SECTION("a gradient that overflows, of a loss that does not") {
    CHECK_THAT(run([&](auto&) {
                 const auto centres = model.parameter("head.weight");
                 for (std::int64_t d = 0; d < width; ++d) centres[7 * width + d] = 1e-21f;
               }),
               ContainsSubstring("the gradient of head.weight has values that are not finite"));
  }
}

TEST_CASE("update_in_tile: what it cannot do is refused with the fix") {
  using Two =
      RecModel<MeanColour, neck::FC, head::ArcMargin, loss::Combined<loss::CELoss, loss::CELoss>>;
  using None = RecModel<MeanColour, neck::FC, head::ArcMargin, loss::CenterLoss>;
  const auto head = config_of<head::ArcMargin>(true).head;
  const auto neck = config_of<head::ArcMargin>(true).neck;
  const std::vector<float> images(2 * 4 * 4 * 3, 0.5f);
  const View<const float> x{images.data(), {2, 4, 4, 3}};
  const std::vector<std::int64_t> labels{0, 1};
  SECTION("gradients that are added up") {
    ModelOf<head::ArcMargin> model(config_of<head::ArcMargin>(true), Seed{1});
    MemoryLoader loader(batches);
    TemporaryFolder folder;
    CHECK_THAT(message_of<ConfigError>([&] {
                 Trainer(model, all(optim::SGD{}))
                     .fit(loader, {.output = folder.path(), .update_freq = 2, .quiet = true});
               }),
               ContainsSubstring("set update_freq to 1 or update_in_tile to false"));
  }
  SECTION("a pass that knows no optimizer") {
    ModelOf<head::ArcMargin> model(config_of<head::ArcMargin>(true), Seed{1});
    auto session = model.train_session({.threads = 1});
    CHECK_THAT(message_of<ConfigError>([&] { session.forward_backward(x, labels, 0); }),
               ContainsSubstring("head.ArcMargin: update_in_tile needs the optimizer's step") &&
                   ContainsSubstring("Trainer"));
  }
  SECTION("two losses on the logits") {
    Two model({.neck = neck, .head = head, .loss = {}}, Seed{1});
    CHECK_THAT(
        message_of<ConfigError>([&] {
          Trainer(model, all(optim::SGD{}, lr::Constant{0.1}), {.threads = 1}).step(x, labels, {});
        }),
        ContainsSubstring("two losses are CELoss; keep one of them"));
  }
  SECTION("no loss on the logits") {
    CHECK_THAT(
        message_of<ConfigError>([&] {
          None({.neck = neck, .head = head, .loss = {.num_classes = classes, .feat_dim = width}},
               Seed{1});
        }),
        ContainsSubstring("no loss reads the head; add CELoss, or set update_in_tile"));
  }
  SECTION("the path through logits") {
    ParameterTable table;
    const head::ArcMargin component(head, Scope(table, "head"));
    cpu::Context ctx(1);
    const Run<cpu::Context, float> run{.ctx = ctx, .training = true, .random = {}};
    head::ArcMargin::Saved<float> saved;
    CHECK_THAT(message_of<ConfigError>([&] { component.backward(run, {}, {}, {}, saved); }),
               ContainsSubstring("with update_in_tile there is no gradient of logits"));
  }
  SECTION("an optimizer without a rule") {
    struct Own {
      double weight_decay = 0;
      optim::Kinds no_decay{};
      static constexpr const char* name() { return "Own"; }
      static constexpr std::size_t moments() { return 0; }
      void update(cpu::Context&, std::span<const optim::Range>, const optim::Update<float>&) const {
      }
    };
    ModelOf<head::ArcMargin> model(config_of<head::ArcMargin>(true), Seed{1});
    CHECK_THAT(message_of<ConfigError>([&] { Trainer(model, Own{}, cosine); }),
               ContainsSubstring("Own has no with_rule"));
  }
  SECTION("a second such parameter") {
    ParameterTable table;
    const Scope scope = Scope(table).updated_in_tile();
    const auto declare = [&](const char* name) {
      return scope.declare(name, {4}, ParameterKind::center, Initializer::constant(0));
    };
    declare("a");
    CHECK_THAT(message_of<ConfigError>([&] { declare("b"); }),
               ContainsSubstring("only one parameter can be updated in tiles, not both a and b"));
  }
}
