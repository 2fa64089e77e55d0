// Ten training steps against PaddleClas.

#include <kindred/kindred.hpp>

#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

using Model = RecModel<backbone::PPLCNet, neck::FC, head::ArcMargin,
                       loss::Combined<loss::CELoss, loss::TripletLossV2>, Cpu, double>;

bool feeds_hardsigmoid(const ParameterInfo& p) {
  return p.name.find(".se.conv2.") != std::string::npos;
}

/// The training of trajectory.safetensors, with Paddle's constants: w' = ratio w in front of the
/// hardsigmoid (see hardsigmoid_slope_ratio), running statistics with 0.9f.
class Trajectory {
 public:
  Trajectory()
      : fixture_("trajectory"),
        model_({.backbone = {.scale = 0.25, .dropout_prob = 0},
                .neck = {.embedding_size = 1280, .class_num = 32},
                .head = {.embedding_size = 32,
                         .class_num = 10,
                         .margin = fixture_.attribute("margin"),
                         .scale = fixture_.attribute("scale")},
                .loss = {{.weight = 1},
                         {.weight = 1, .margin = fixture_.attribute("triplet_margin")}}},
               Seed{1}),
        session_(model_.train_session({.threads = 2})),
        optimizer_{.momentum = single(fixture_.attribute("momentum")),
                   .weight_decay = single(fixture_.attribute("weight_decay"))},
        ranges_(optim::ranges(model_.parameters(), optimizer_.weight_decay, optimizer_.no_decay)),
        moments_(1, std::vector<double>(model_.trainable().size())) {
    const Fixture start("pplcnet_x0_25");
    for (const ParameterInfo& p : model_.parameters().entries())
      (p.name.starts_with("backbone.") ? start : fixture_)
          .read("param", p, model_.parameter(p.name).data);
    scale_gate(model_.trainable(), hardsigmoid_slope_ratio());
    read_batches();
  }

  /// Losses and gradients of a step; the gradients are those of Paddle's parameters.
  std::vector<double> forward_backward(int step) {
    const std::vector<double> before(model_.statistics().begin(), model_.statistics().end());
    session_.zero_gradients();
    const auto reports = session_.forward_backward(view(images(step), shape_), labels(step),
                                                   static_cast<std::uint64_t>(step));
    REQUIRE(reports.size() == 2);
    scale_gate(session_.gradients(), hardsigmoid_slope_ratio());
    std::vector<double> after(model_.statistics().begin(), model_.statistics().end());
    use_single_momentum(before, after);
    std::copy(after.begin(), after.end(), model_.statistics().begin());
    return {reports[0].value, reports[1].value};
  }
  void update(int step) {
    scale_gate(model_.trainable(), 1 / hardsigmoid_slope_ratio());
    optimizer_.update(session_.context(), ranges_,
                      optim::Update<double>{model_.trainable(), session_.gradients(), moments_,
                                            fixture_.attribute("learning_rate"), step + 1});
    scale_gate(model_.trainable(), hardsigmoid_slope_ratio());
  }
  /// Largest difference of all parameters and statistics, or of all gradients, and its name.
  std::pair<double, std::string> worst(const std::string& group) {
    const bool gradients = group == "grad_param";
    if (!gradients) scale_gate(model_.trainable(), 1 / hardsigmoid_slope_ratio());
    std::pair<double, std::string> worst{0, ""};
    std::size_t count = 0;
    for (const ParameterInfo& p : model_.parameters().entries()) {
      if (gradients && p.kind == ParameterKind::buffer) continue;
      const double* values =
          gradients ? session_.gradients().data() + p.offset : model_.parameter(p.name).data;
      const double d = difference_from(fixture_, group, p, values);
      if (!(d <= worst.first)) worst = {d, p.name};
      ++count;
    }
    REQUIRE(count == fixture_.names(group).size() + fixture_.names(group + "_sample").size());
    if (!gradients) scale_gate(model_.trainable(), hardsigmoid_slope_ratio());
    return worst;
  }

  const std::vector<double>& images(int step) const {
    return images_[static_cast<std::size_t>(step % 2)];
  }
  const std::vector<std::int64_t>& labels(int step) const {
    return labels_[static_cast<std::size_t>(step % 2)];
  }
  const Fixture& fixture() const { return fixture_; }
  Model& model() { return model_; }
  const Shape& shape() const { return shape_; }

 private:
  void scale_gate(std::span<double> values, double factor) {
    for (const ParameterInfo& p : model_.parameters().entries())
      if (feeds_hardsigmoid(p))
        for (double& v : values.subspan(static_cast<std::size_t>(p.offset),
                                        static_cast<std::size_t>(p.shape.size())))
          v *= factor;
  }
  void read_batches() {
    const auto pixels = fixture_.bytes("in.image");
    const auto all = fixture_.labels();
    const std::vector<std::int64_t>& e = fixture_.extents("in.image");
    REQUIRE(e == std::vector<std::int64_t>{2, 8, 3, 64, 64});
    const std::size_t half = pixels.size() / 2, rows = all.size() / 2;
    for (std::size_t batch = 0; batch < 2; ++batch) {
      std::vector<double> x;
      for (std::size_t i = 0; i < half; ++i) x.push_back(pixels[batch * half + i] / 64.0 - 2);
      images_.push_back(nhwc(x, {e[1], e[2], e[3], e[4]}));
      const auto begin = all.begin() + static_cast<std::ptrdiff_t>(batch * rows);
      labels_.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(rows));
    }
  }

  Fixture fixture_;
  Model model_;
  TrainSession<Model> session_;
  optim::Momentum optimizer_;
  std::vector<optim::Range> ranges_;
  std::vector<std::vector<double>> moments_;
  std::vector<std::vector<double>> images_;
  std::vector<std::vector<std::int64_t>> labels_;
  Shape shape_{8, 64, 64, 3};
};

/// Features and logits as training sees them, without a trace in the model.
std::pair<std::vector<double>, std::vector<double>> training_outputs(Trajectory& t) {
  Model& model = t.model();
  std::vector<double> statistics(model.statistics().begin(), model.statistics().end());
  std::vector<double> features, logits;
  const auto labels = t.labels(0);
  cpu::Context ctx(2);
  Model::Saved saved;
  run_planned(ctx, [&] {
    const Model::RunType run{.ctx = ctx,
                             .parameters = model.trainable().data(),
                             .statistics = statistics.data(),
                             .new_statistics = statistics.data(),
                             .training = true,
                             .random = {}};
    auto x = model.backbone().forward(run, view(t.images(0), t.shape()), saved.backbone);
    x = model.neck().forward(run, x, saved.neck);
    const auto z = model.head().forward(run, x, view(labels, {8}), saved.head);
    if (!ctx.planning()) {
      features.assign(x.begin(), x.end());
      logits.assign(z.begin(), z.end());
    }
    saved = {};
  });
  return {features, logits};
}

}  // namespace

TEST_CASE("parity: ten training steps of PPLCNet, FC, ArcMargin with CELoss and TripletLossV2") {
  Trajectory t;
  const Fixture& fixture = t.fixture();
  CHECK_FALSE(t.model().builds_logits());
  const auto ce = fixture.stored<double>("out.CELoss"), all = fixture.stored<double>("out.loss");
  const auto triplet = fixture.stored<double>("out.TripletLossV2");
  REQUIRE(ce.size() == 10);
  REQUIRE(all.front() > 1.5 * all.back());  // it learns

  const auto [features, logits] = training_outputs(t);
  CHECK(relative_difference(features, fixture.stored<double>("out.features_of_step_0")) < 1e-9);
  CHECK(relative_difference(logits, fixture.stored<double>("out.logits_of_step_0")) < 1e-9);

  for (int step = 0; step < 10; ++step) {
    INFO("step " << step);
    const auto losses = t.forward_backward(step);
    const auto i = static_cast<std::size_t>(step);
    // Training amplifies rounding: a change of 1e-12 at the start moves the last loss by 9e-8.
    const double limit = step == 0 ? 1e-9 : 5e-7;
    CHECK(relative_difference(losses[0], ce[i]) < limit);
    CHECK(relative_difference(losses[1], triplet[i]) < limit);
    CHECK(relative_difference(losses[0] + losses[1], all[i]) < limit);
    if (step == 0) {
      const auto [difference, name] = t.worst("grad_param");
      INFO(name);
      CHECK(difference < 1e-9);
    }
    t.update(step);
  }
  const auto [difference, name] = t.worst("after");
  INFO(name);
  CHECK(difference < 5e-7);
  auto session = t.model().session({.threads = 2});
  const auto after = session.features(view(t.images(0), t.shape()));
  CHECK(relative_difference(std::vector<double>(after.begin(), after.end()),
                            fixture.stored<double>("out.features_after")) < 5e-7);
}
