// Distillation losses: numbers of PaddleClas, gradients, and a student that learns from a teacher.

#include <cmath>

#include <kindred/head/fc.hpp>
#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/loss/combined.hpp>
#include <kindred/loss/distance_loss.hpp>
#include <kindred/loss/dkd_loss.hpp>
#include <kindred/loss/dml_loss.hpp>
#include <kindred/loss/kl_div_loss.hpp>
#include <kindred/loss/rkd_loss.hpp>
#include <kindred/model/rec_model.hpp>
#include <kindred/neck/fc.hpp>

#include "support/loss_parity.hpp"
#include "support/mean_colour.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// A distillation loss outside of a model.
template <class Loss, class T>
struct Distillation {
  Loss loss;
  std::vector<T> student, teacher;
  std::vector<std::int64_t> labels;
  Shape shape, teacher_shape;
  std::vector<T> gradient{}, report{};

  T operator()(T start = T(0)) {
    gradient.assign(student.size(), start);
    report = poisoned<T>(loss::report_size);
    cpu::Context ctx(2);
    loss::LossInput<T> in;
    loss::LossGradient<T> out;
    in.features = in.backbone = in.logits = view(student, shape);
    in.teacher = {view(teacher, teacher_shape), view(teacher, teacher_shape)};
    in.labels = view(labels, {shape[0]});
    out.features = out.logits = view(gradient, shape);
    const Run<cpu::Context, T> run{.ctx = ctx, .training = true, .random = {}};
    run_planned(ctx, [&] { loss.evaluate(run, in, out, view(report, {loss::report_size})); });
    return report[0];
  }
};

template <class Loss>
Loss make(const typename Loss::Config& config) {
  ParameterTable table;
  return Loss(config, Scope(table));
}

template <class Loss, class Make>
void check_cases(const char* prefix, std::size_t cases, Make&& config) {
  const Fixture f("distillation");
  std::size_t count = 0;
  for (const std::string& name : f.cases()) {
    if (!name.starts_with(prefix)) continue;
    ++count;
    INFO(name);
    const Fixture one = f.at(name);
    Distillation<Loss, double> d{
        make<Loss>(config(Settings{one})), one.stored<double>("in.student"),
        one.stored<double>("in.teacher"),  one.labels(),
        one.shape("in.student"),           one.shape("in.teacher")};
    CHECK(relative_difference(d(), one.number("out.loss")) < 2e-7);  // eps is single precision
    CHECK(relative_difference(d.gradient, one.stored<double>("grad.student")) < 2e-7);
    CHECK(d.report[1] == static_cast<double>(one.shape("in.student")[0]));
  }
  CHECK(count == cases);
}

template <class Loss>
double error(typename Loss::Config config, std::int64_t teacher_width = 5) {
  config.weight = 0.7;
  Distillation<Loss, double> d{make<Loss>(config),
                               random_values<double>(6 * 5, 1, 2),
                               random_values<double>(6 * teacher_width, 2, 2),
                               {0, 4, 2, 2, 1, 3},
                               {6, 5},
                               {6, teacher_width}};
  d(0.25);
  const auto got = d.gradient;
  auto wanted = central_differences(d.student, [&] { return d(); });
  for (double& x : wanted) x = 0.25 + config.weight * x;
  return difference(got, wanted);
}

}  // namespace

TEST_CASE("parity: distillation losses of PaddleClas") {
  using namespace loss;
  check_cases<KLDivLoss>("KLDivLoss.", 2, [](Settings s) {
    return KLDivLoss::Config{.temperature = s("temperature")};
  });
  check_cases<DMLLoss>("DMLLoss.", 3, [](Settings s) {
    DMLLoss::Config c{.act = static_cast<DMLActivation>(s.whole("act")),
                      .sum_across_class_dim = s.flag("across")};
    if (s.one.has("attr.eps")) c.eps = single(s("eps"));
    return c;
  });
  check_cases<DistanceLoss>("DistanceLoss.", 3, [](Settings s) {
    return DistanceLoss::Config{.mode = static_cast<DistanceMode>(s.whole("mode"))};
  });
  check_cases<DKDLoss>("DKDLoss.", 3, [](Settings s) {
    return DKDLoss::Config{.temperature = s("temperature"),
                           .alpha = s("alpha"),
                           .beta = s("beta"),
                           .use_target_as_gt = s.flag("by_teacher")};
  });
  check_cases<RKDLoss>("RKDLoss.", 2, [](Settings s) {
    return RKDLoss::Config{.distance = s("distance"), .angle = s("angle")};
  });
}

TEST_CASE("distillation losses: gradients against central differences") {
  using namespace loss;
  CHECK(error<KLDivLoss>({.temperature = 3}) < 1e-6);
  CHECK(error<KLDivLoss>({.key = DistillationKey::features}) < 1e-6);
  CHECK(error<DMLLoss>({}) < 1e-6);
  CHECK(error<DMLLoss>({.act = DMLActivation::sigmoid, .sum_across_class_dim = true}) < 1e-6);
  for (const auto mode : {DistanceMode::l2, DistanceMode::l1, DistanceMode::smooth_l1})
    CHECK(error<DistanceLoss>({.mode = mode}) < 1e-6);
  CHECK(error<DKDLoss>({.temperature = 2, .alpha = 0.5, .beta = 3}) < 1e-6);
  CHECK(error<RKDLoss>({}, 3) < 1e-6);
  for (const auto target : {CETarget::teacher, CETarget::distribution})
    for (const double epsilon : {0., 0.2})
      CHECK(error<CELoss>({.epsilon = epsilon, .target = target}) < 1e-6);
  CHECK(error<RKDLoss>({.distance = 0.3, .angle = 2}, 8) < 1e-6);
}

TEST_CASE("distillation losses: equal outputs, duplicates, and what does not fit") {
  using namespace loss;
  const auto x = random_values<double>(4 * 3, 5);
  Distillation<RKDLoss, double> same{make<RKDLoss>({}), x, x, {0, 1, 2, 0}, {4, 3}, {4, 3}};
  std::copy_n(same.student.begin(), 3, same.student.begin() + 3);  // two rows coincide
  same.teacher = same.student;
  CHECK(same() == Approx(0).margin(1e-15));
  for (const double d : same.gradient) CHECK(d == Approx(0).margin(1e-12));
  same.teacher = x;
  CHECK(std::isfinite(same()));
  for (const double d : same.gradient) CHECK(std::isfinite(d));
  std::fill(same.student.begin(), same.student.end(), 1.);  // a network that gives one point
  CHECK(std::isfinite(same()));
  for (const double d : same.gradient) CHECK(std::isfinite(d));

  Distillation<KLDivLoss, double> kl{make<KLDivLoss>({}), x, x, {0, 1, 2, 0}, {4, 3}, {4, 3}};
  CHECK(kl() == Approx(0).margin(1e-15));
  kl.teacher_shape = {3, 4};
  CHECK_THROWS_WITH(kl(), ContainsSubstring("KLDivLoss: the teacher gives [3, 4], the student"));
  kl.teacher_shape = {4, 3};
  for (double& v : kl.student) v *= 1e4;  // softmax of one class
  CHECK(std::isfinite(kl()));
  Distillation<DKDLoss, double> dkd{make<DKDLoss>({}), x, x, {0, 1, 2, 3}, {4, 3}, {4, 3}};
  CHECK_THROWS_AS(dkd(), DataError);
  CHECK_THROWS_AS(make<KLDivLoss>({.temperature = 0}), ConfigError);
  CHECK_THROWS_AS(make<DKDLoss>({.temperature = -1}), ConfigError);
  CHECK_THROWS_AS(make<DMLLoss>({.eps = -1}), ConfigError);
}

TEST_CASE("CELoss with soft targets follows its definition") {
  using namespace loss;
  constexpr std::size_t rows = 6, classes = 5;
  const auto student = random_values<double>(rows * classes, 1, 3);
  const auto teacher = random_values<double>(rows * classes, 2, 2);
  const auto softmax = [](std::vector<double> x) {
    for (std::size_t i = 0; i < rows; ++i) {
      double sum = 0;
      for (std::size_t c = 0; c < classes; ++c) sum += std::exp(x[i * classes + c]);
      for (std::size_t c = 0; c < classes; ++c)
        x[i * classes + c] = std::exp(x[i * classes + c]) / sum;
    }
    return x;
  };
  const auto p = softmax(student), q = softmax(teacher);
  for (const double epsilon : {0., 0.3, 1.}) {  // 1 means none
    double expected = 0;
    for (std::size_t i = 0; i < rows * classes; ++i) {
      const double t = epsilon < 1 ? (1 - epsilon) * q[i] + epsilon / classes : q[i];
      expected -= t * std::log(p[i]) / rows;
    }
    const std::vector<std::int64_t> labels{0, 4, 2, 2, 1, 3};
    const auto of = [&](const std::vector<double>& given, CETarget target) {
      Distillation<CELoss, double> d{make<CELoss>({.epsilon = epsilon, .target = target}),
                                     student,
                                     given,
                                     labels,
                                     {rows, classes},
                                     {rows, classes}};
      const double value = d();
      CHECK(d.report[1] == rows);
      return value;
    };
    CHECK(of(teacher, CETarget::teacher) == Approx(expected).epsilon(1e-12));
    CHECK(of(q, CETarget::distribution) == Approx(expected).epsilon(1e-12));
    std::vector<double> onehot(rows * classes);
    for (std::size_t i = 0; i < rows; ++i)
      onehot[i * classes + static_cast<std::size_t>(labels[i])] = 1;
    CHECK(of(onehot, CETarget::distribution) ==
          Approx(of(onehot, CETarget::labels)).epsilon(1e-12));  // hard labels are a special case
    CHECK(of(onehot, CETarget::teacher) > of(onehot, CETarget::distribution));
  }
  Distillation<CELoss, double> wide{make<CELoss>({.target = CETarget::teacher}),
                                    student,
                                    teacher,
                                    {0, 1, 2, 0, 1, 2},
                                    {rows, classes},
                                    {classes, rows}};
  CHECK_THROWS_WITH(wide(), ContainsSubstring("CELoss: the teacher gives [5, 6], the student"));
}

TEST_CASE("distillation: a student learns its teacher's outputs in a training session") {
  using Big = RecModel<MeanColour, neck::FC, head::FC, loss::CELoss>;
  using Small = RecModel<MeanColour, neck::FC, head::FC,
                         loss::Combined<loss::KLDivLoss, loss::DistanceLoss, loss::RKDLoss>>;
  const Big big({.neck = {.embedding_size = 3, .class_num = 4},
                 .head = {.embedding_size = 4, .class_num = 3}},
                Seed{1});
  Small small({.neck = {.embedding_size = 3, .class_num = 4},
               .head = {.embedding_size = 4, .class_num = 3},
               .loss = {{.weight = 0.5, .temperature = 2}, {.weight = 2}, {.weight = 1}}},
              Seed{2});
  const auto images = random_values<float>(6 * 8 * 8 * 3, 3, 10);
  const View<const float> x{images.data(), {6, 8, 8, 3}};
  const std::vector<std::int64_t> labels{0, 1, 2, 0, 1, 2};
  auto session = small.train_session({.threads = 1});
  CHECK_THROWS_WITH(session.forward_backward(x, labels, 0),
                    ContainsSubstring("KLDivLoss: there are no logits of a teacher"));
  ModelTeacher<Big> teacher(big, {.features = true, .logits = true});
  session.set_teacher(teacher);

  // The losses see what the teacher gives for these images.
  const auto losses = session.forward_backward(x, labels, 0);
  auto of_big = big.session({.threads = 1});
  auto of_small = small.session({.threads = 1});
  const auto s = of_small.features(x), t = of_big.features(x);
  double square = 0;
  for (std::int64_t i = 0; i < s.size(); ++i) square += std::pow(s[i] - t[i], 2);
  CHECK(losses[1].value == Approx(2 * square / static_cast<double>(s.size())).epsilon(1e-4));

  std::vector<double> total;
  for (std::uint64_t step = 0; step < 400; ++step) {
    session.zero_gradients();
    total.push_back(0);
    for (const auto& l : session.forward_backward(x, labels, step)) total.back() += l.value;
    for (std::size_t i = 0; i < small.trainable().size(); ++i)
      small.trainable()[i] -= 0.02f * session.gradients()[i];
  }
  CHECK(total.back() < 0.05 * total.front());
}
