// Promise 4: a step allocates nothing. Every allocation of the process is counted, whoever makes
// it: malloc and its family are replaced here, and operator new of the standard library calls them.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <kindred/kindred.hpp>
#include <kindred/model/any.hpp>

#include "support/numeric.hpp"

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define KINDRED_COUNTS_ALLOCATIONS 1
#endif

namespace {
std::atomic<std::int64_t> allocations{0};
}

#ifdef KINDRED_COUNTS_ALLOCATIONS
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t n, std::size_t bytes) {
  ++allocations;
  return __libc_calloc(n, bytes);
}
void* realloc(void* old, std::size_t bytes) {
  ++allocations;
  return __libc_realloc(old, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) {
  ++allocations;
  *out = __libc_memalign(alignment, bytes);
  return *out == nullptr ? 12 : 0;  // ENOMEM
}
}
#endif

namespace kd = kindred;
using namespace kindred::test;

namespace {

constexpr std::int64_t classes = 7, side = 40;
const std::vector<std::int64_t> labels{0, 0, 1, 1, 6, 6};
const kd::Shape image_shape{6, side, side, 3};
const kd::Shape small_shape{4, side, side, 3};  // the last batch of an epoch

/// Allocations of `f`.
template <class F>
std::int64_t count(F&& f) {
  const std::int64_t before = allocations;
  f();
  return allocations - before;
}

/// Trains and infers: the first step of every shape may allocate, the others may not.
template <class Model, class Optimizer>
void expect_no_allocation(Model& model, const Optimizer& optimizer, int threads,
                          kd::Storage activations = kd::Storage::scalar) {
  const auto images = random_values<float>(image_shape.size(), 1);
  const kd::View<const float> whole{images.data(), image_shape}, part{images.data(), small_shape};
  const std::span<const std::int64_t> all(labels), some = all.first(4);
  auto session = model.train_session({.threads = threads, .activations = activations});
  const auto ranges =
      kd::optim::ranges(model.parameters(), optimizer.weight_decay, optimizer.no_decay);
  std::vector<std::vector<float>> moments(optimizer.moments(),
                                          std::vector<float>(model.trainable().size()));
  const kd::lr::Cosine cosine{.base = 0.01};
  std::int64_t step = 0;
  const auto train = [&](kd::View<const float> x, std::span<const std::int64_t> y) {
    session.zero_gradients();
    const kd::optim::Update<float> update{model.trainable(), session.gradients(), moments,
                                          cosine.at({step, 100, 1}), step + 1};
    if (const kd::ParameterInfo* rows = model.parameters().updated_in_tile()) {
      const auto range = kd::optim::range_of(*rows, optimizer.weight_decay, optimizer.no_decay);
      const kd::optim::RowStep<kd::cpu::Context, float, std::vector<float>, Optimizer> in_tile(
          optimizer, range, update);
      session.forward_backward(x, y, static_cast<std::uint64_t>(step), &in_tile);
    } else {
      session.forward_backward(x, y, static_cast<std::uint64_t>(step));
    }
    optimizer.update(session.context(), std::span<const kd::optim::Range>(ranges), update);
    ++step;
  };
  CHECK(count([&] { train(whole, all); }) > 0);  // so the counter works
  train(part, some);
  CHECK(count([&] {
          for (int i = 0; i < 5; ++i) {
            train(whole, all);
            train(part, some);
          }
        }) == 0);

  auto inference = model.session({.threads = threads, .activations = activations});
  const auto infer = [&](kd::View<const float> x) {
    inference.features(x);
    inference.backbone(x);
    inference.logits(x);
  };
  infer(whole);
  infer(part);
  CHECK(count([&] {
          for (int i = 0; i < 5; ++i) {
            infer(whole);
            infer(part);
          }
        }) == 0);
}

}  // namespace

#ifdef KINDRED_COUNTS_ALLOCATIONS

TEST_CASE("a step of a margin head without logits allocates nothing, with its update or without") {
  for (int i = 0; i < 4; ++i) {
    const int threads = 1 + i % 2;
    const bool in_tile = i / 2 != 0;
    INFO(threads << " threads, update_in_tile " << in_tile);
    kd::RecModel<kd::backbone::PPLCNet, kd::neck::FC, kd::head::ArcMargin,
                 kd::loss::Combined<kd::loss::CELoss, kd::loss::TripletLossV2>>
        model({.backbone = {.scale = 0.25},
               .neck = {.embedding_size = 1280, .class_num = 16},
               .head = {.embedding_size = 16, .class_num = classes, .update_in_tile = in_tile},
               .loss = {{.weight = 1}, {.weight = 1, .margin = 0.5}}},
              kd::Seed{1});
    CHECK_FALSE(model.builds_logits());
    expect_no_allocation(model, kd::optim::Momentum{.weight_decay = 1e-4, .use_nesterov = true},
                         threads);
    expect_no_allocation(model, kd::optim::Momentum{}, threads, kd::Storage::bf16);
  }
}

TEST_CASE("a step of a type-erased composition with logits allocates nothing") {
  using Layer = kd::any::Layer<kd::cpu::Context, float>;
  using Head = kd::any::Head<kd::cpu::Context, float>;
  using Losses = kd::any::Losses<kd::cpu::Context, float>;
  Losses::Config losses;
  Losses::add<kd::loss::CELoss>(losses, {.weight = 1, .epsilon = 0.1});
  Losses::add<kd::loss::TripletLossV2>(
      losses, {.weight = 1, .margin = 0.3, .feature_from = kd::loss::FeatureFrom::backbone});
  for (int threads : {1, 2}) {
    kd::RecModel<Layer, Layer, Head, Losses> model(
        {Layer::component<kd::backbone::PPLCNet>({.scale = 0.25, .class_expand = 32}),
         Layer::component<kd::neck::BNNeck>({.num_features = 32}),
         Head::component<kd::head::FC>({.embedding_size = 32, .class_num = classes}), losses},
        kd::Seed{1});
    CHECK(model.builds_logits());
    expect_no_allocation(model, kd::optim::AdamW{}, threads);
  }
}

#else

TEST_CASE("allocations are counted with glibc alone, and not under a sanitizer") {
  WARN("nothing was counted");
}

#endif
