// Your own loss and your own head: a struct each, in the file where you need them. What a component
// must offer is in kindred/core/concepts.hpp; if something is missing the compiler says what.

#include <cstdio>
#include <vector>

#include <kindred/kindred.hpp>

namespace kd = kindred;

/// L = mean_b |f_b|^2: pulls features to zero. A loss adds weight * gradient to what it reads.
struct FeatureNorm {
  struct Config {
    float weight = 1;
  };
  static constexpr const char* name() { return "FeatureNorm"; }
  static constexpr std::int64_t entries() { return 1; }

  FeatureNorm(const Config& c, const kd::Scope&) : config(c) {}
  kd::loss::LogitUse logit_use() const { return kd::loss::LogitUse::none; }
  bool reads(kd::loss::FeatureFrom from) const { return from == kd::loss::FeatureFrom::features; }
  void describe(kd::loss::LossReport* report) const { *report = {name(), config.weight, 0, 0}; }

  template <class Context, class T>
  void evaluate(const kd::Run<Context, T>& run, const kd::loss::LossInput<T>& in,
                const kd::loss::LossGradient<T>& gradient, kd::View<T> report) const {
    const T batch = T(in.features.dim(0));
    kd::kernels::sum_of_squares(run.ctx, in.features, kd::View<T>{report.data, {1}});
    kd::kernels::scale_add(run.ctx, T(1) / batch - 1, kd::View<const T>{report.data, {1}},
                           kd::View<T>{report.data, {1}});  // r += (1/B - 1) r
    kd::kernels::fill(run.ctx, batch, kd::View<T>{report.data + 1, {1}});
    kd::kernels::scale_add(run.ctx, T(config.weight) * 2 / batch, in.features, gradient.features);
  }
  Config config;
};

/// A linear classifier with its temperature: logits = (x W + b) / temperature.
struct TemperedFC {
  struct Config {
    kd::head::FC::Config fc;
    float temperature = 1;
  };
  template <class T>
  using Saved = kd::head::FC::Saved<T>;
  using Labels = kd::View<const std::int64_t>;
  static constexpr const char* name() { return "TemperedFC"; }

  TemperedFC(const Config& c, const kd::Scope& scope) : fc(c.fc, scope), t(c.temperature) {}
  std::int64_t input_size() const { return fc.input_size(); }
  std::int64_t class_num() const { return fc.class_num(); }

  template <class Context, class T>
  kd::Tensor<T> forward(const kd::Run<Context, T>& run, kd::In<T> x, Labels y, Saved<T>& s) const {
    auto logits = fc.forward(run, x, y, s);
    kd::kernels::scale_add(run.ctx, 1 / T(t) - 1, logits, logits);  // z += (1/t - 1) z
    return logits;
  }
  template <class Context, class T>
  kd::Tensor<T> backward(const kd::Run<Context, T>& run, kd::Tensor<T> d, kd::In<T> x, Labels y,
                         Saved<T>& s) const {
    kd::kernels::scale_add(run.ctx, 1 / T(t) - 1, d, d);
    return fc.backward(run, std::move(d), x, y, s);
  }
  kd::head::FC fc;
  float t;
};

using Model = kd::RecModel<kd::backbone::PPLCNet, kd::neck::BNNeck, TemperedFC,
                           kd::loss::Combined<kd::loss::CELoss, FeatureNorm>>;

int main() {
  Model model({.backbone = {.scale = 0.25, .class_expand = 64},
               .neck = {.num_features = 64},
               .head = {.fc = {.embedding_size = 64, .class_num = 4}, .temperature = 0.5f},
               .loss = {{.weight = 1.f, .epsilon = 0.1f}, {.weight = 0.01f}}},
              kd::Seed{7});
  std::vector<float> images(8 * 32 * 32 * 3);
  kd::RandomSequence random({1, 0, 0});
  for (float& v : images) v = float(random.normal());
  auto session = model.train_session();
  for (const auto& loss : session.forward_backward(
           {images.data(), {8, 32, 32, 3}}, std::vector<std::int64_t>{0, 0, 1, 1, 2, 2, 3, 3}, 0))
    std::printf("%s %.4f\n", loss.name, loss.value);
}
