// HashNet, CSQ and GreedyHash: derivatives, hash centres, degenerate batches.

#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/csq_loss.hpp>
#include <kindred/loss/greedy_hash_loss.hpp>
#include <kindred/loss/hash_net_loss.hpp>

#include "support/loss_check.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

const loss::HashNetLoss::Config hash_net{.weight = 0.7, .alpha = 0.4, .step_continuation = 0};
const loss::CSQLoss::Config csq{
    .weight = 0.7, .num_classes = 10, .embedding_size = 5, .lambda = 0.3};
const loss::GreedyHashLoss::Config greedy{
    .weight = 0.7, .num_classes = 10, .embedding_size = 5, .alpha = 0.3};

template <class F>
void for_each_loss(F&& f) {
  f(hash_net, static_cast<loss::HashNetLoss*>(nullptr));
  f(csq, static_cast<loss::CSQLoss*>(nullptr));
  f(greedy, static_cast<loss::GreedyHashLoss*>(nullptr));
}

std::size_t differences(const std::vector<double>& centers, std::size_t a, std::size_t b,
                        std::size_t bits) {
  std::size_t n = 0;
  for (std::size_t k = 0; k < bits; ++k) n += centers[a * bits + k] != centers[b * bits + k];
  return n;
}

/// GreedyHash with codes b given apart from the features x, which makes it smooth in b.
double greedy_with_codes(const std::vector<double>& b, const std::vector<double>& x,
                         const std::vector<double>& w, const LossCase<double>& c,
                         const loss::GreedyHashLoss::Config& config) {
  double entropy = 0, penalty = 0;
  const auto classes = static_cast<std::size_t>(config.num_classes);
  const auto dim = static_cast<std::size_t>(c.dim);
  for (std::size_t i = 0; i < c.labels.size(); ++i) {
    double sum = 0, own = 0;
    for (std::size_t k = 0; k < classes; ++k) {
      double z = 0;
      for (std::size_t d = 0; d < dim; ++d) z += b[i * dim + d] * w[d * classes + k];
      sum += std::exp(z);
      if (static_cast<std::int64_t>(k) == c.labels[i]) own = z;
    }
    entropy += std::log(sum) - own;
  }
  for (const double v : x) penalty += std::pow(std::abs(std::abs(v) - 1), 3);
  return entropy / double(c.labels.size()) + config.alpha * penalty / double(x.size());
}

}  // namespace

TEST_CASE("HashNet, CSQ: the gradient is the derivative") {
  for (const double scale : {1.0, 0.4, 3.0}) {
    CHECK(gradient_error<loss::HashNetLoss>(hash_net, mixed_batch(1, scale)) < 1e-6);
    CHECK(gradient_error<loss::CSQLoss>(csq, mixed_batch(1, scale)) < 1e-6);
    CHECK(gradient_error<loss::HashNetLoss>(hash_net, grouped_batch(2, 2, scale)) < 1e-6);
  }
  LossCase<double> one_class = mixed_batch(5);
  one_class.labels.assign(9, 3);
  CHECK(gradient_error<loss::HashNetLoss>(hash_net, one_class) < 1e-6);
  CHECK(gradient_error<loss::CSQLoss>(csq, one_class) < 1e-6);
}

TEST_CASE("GreedyHash: the gradient is that of the codes, straight through") {
  LossCase<double> c = mixed_batch(1);
  LossBench<loss::GreedyHashLoss, double> bench(greedy);
  const double value = bench(c, 0.25);
  std::vector<double> codes, x = c.features, w = bench.parameters;
  for (const double v : x) codes.push_back(v > 0 ? 1.0 : -1.0);
  const auto f = [&] { return greedy_with_codes(codes, x, w, c, greedy); };
  CHECK(value == Approx(f()).epsilon(1e-12));
  std::vector<double> wanted(c.features.size(), 0.25);
  for (std::vector<double>* of : {&codes, &x}) {
    const auto slope = central_differences(*of, f);
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += greedy.weight * slope[i];
  }
  CHECK(difference(bench.dfeatures, wanted) < 1e-6);
  std::vector<double> dw = central_differences(w, f);
  for (double& v : dw) v = 0.25 + greedy.weight * v;
  CHECK(difference(bench.dparameters, dw) < 1e-6);
}

TEST_CASE("HashNet: the slope of tanh grows with the steps of the training, and with them alone") {
  LossBench<loss::HashNetLoss, double> bench({.alpha = 0.4, .step_continuation = 2});
  const LossCase<double> c = mixed_batch(1);
  const double first = bench(c);
  CHECK(bench.statistics[0] == 1);
  CHECK(bench(c) == first);
  const double third = bench(c);
  CHECK(third != first);
  LossCase<double> wider = c;
  for (double& v : wider.features) v *= std::sqrt(2.0);  // beta of steps 2 and 3
  CHECK(third == Approx(LossBench<loss::HashNetLoss, double>(hash_net)(wider)).epsilon(1e-12));
  CHECK_THROWS_AS((LossBench<loss::HashNetLoss, double>({.step_continuation = -1})), ConfigError);
}

TEST_CASE("hash centres: balanced and far from each other, the same at every call") {
  const auto regular = loss::hash_centers(32, 16);
  for (std::size_t a = 0; a < 32; ++a)
    for (std::size_t b = 0; b < a; ++b) REQUIRE(differences(regular, a, b, 16) >= 8);
  // 48 is no power of two, and 16 bits have only 32 regular centres.
  for (const auto& [classes, bits] : {std::pair<std::size_t, std::size_t>{100, 48}, {60, 16}}) {
    const auto centers = loss::hash_centers(std::int64_t(classes), std::int64_t(bits), 5);
    CHECK(centers == loss::hash_centers(std::int64_t(classes), std::int64_t(bits), 5));
    CHECK(centers != loss::hash_centers(std::int64_t(classes), std::int64_t(bits), 6));
    for (std::size_t a = bits == 16 ? 32 : 0; a < classes; ++a) {
      double sum = 0;
      for (std::size_t k = 0; k < bits; ++k) sum += centers[a * bits + k];
      REQUIRE(sum == 0);
      for (std::size_t b = 0; b < a; ++b)
        REQUIRE(differences(centers, a, b, bits) > (bits == 16 ? 0 : bits / 4));
    }
  }
  CHECK_THROWS_AS(loss::hash_centers(0, 16), ConfigError);
  CHECK_THROWS_AS(loss::hash_centers(4, 0), ConfigError);
  // More classes than codes: some are equal, and it ends.
  CHECK(loss::hash_centers(9, 1).size() == 9);
}

TEST_CASE("HashNet, CSQ, GreedyHash: one row, duplicates, zeros and huge rows; a NaN shows") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossBench<Loss, double> bench(config);
    const auto finite = [&](const LossCase<double>& c) {
      CHECK(std::isfinite(bench(c)));
      for (const double d : bench.dfeatures) CHECK(std::isfinite(d));
    };
    finite({5, random_values<double>(5, 3), {9}});
    LossCase<double> c = mixed_batch(4);
    std::copy_n(c.features.begin(), 5, c.features.begin() + 10);
    std::fill_n(c.features.begin() + 20, 5, 0.0);
    finite(c);
    for (double& v : c.features) v *= 1e3;
    finite(c);
    c.features[7] = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(bench(c)));
    CHECK_THROWS_AS(bench({5, {}, {}}), ShapeError);
  });
}

TEST_CASE("CSQ, GreedyHash: labels without a class and features of another width are refused") {
  const auto check = []<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossBench<Loss, double> bench(config);
    LossCase<double> c = mixed_batch(1);
    for (const std::int64_t label : {-1, 10}) {
      c.labels[3] = label;
      CHECK_THROWS_AS(bench(c), DataError);
    }
    CHECK_THROWS_AS(bench({6, random_values<double>(12, 3), {0, 1}}), ShapeError);
    typename Loss::Config none = config;
    none.num_classes = 0;
    CHECK_THROWS_AS((LossBench<Loss, double>(none)), ConfigError);
    none = config;
    none.embedding_size = 0;
    CHECK_THROWS_AS((LossBench<Loss, double>(none)), ConfigError);
  };
  check(csq, static_cast<loss::CSQLoss*>(nullptr));
  check(greedy, static_cast<loss::GreedyHashLoss*>(nullptr));
}

TEST_CASE("HashNet, CSQ, GreedyHash: the bits do not depend on the number of threads") {
  for_each_loss([]<class Loss>(const typename Loss::Config& config, Loss*) {
    INFO(Loss::name());
    LossCase<double> c{.dim = 5, .features = random_values<double>(90 * 5, 6), .labels = {}};
    for (std::int64_t i = 0; i < 90; ++i) c.labels.push_back(i * 7 % 10);
    LossBench<Loss, double> one(config, 1), three(config, 3);
    CHECK(one(c) == three(c));
    CHECK(one.dfeatures == three.dfeatures);
    CHECK(one.dparameters == three.dparameters);
  });
}
