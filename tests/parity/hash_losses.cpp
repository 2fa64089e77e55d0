// HashNet, CSQ and GreedyHash against their formulas in PyTorch.

#include <kindred/kernels/cpu/check_labels.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/csq_loss.hpp>
#include <kindred/loss/greedy_hash_loss.hpp>
#include <kindred/loss/hash_net_loss.hpp>

#include "support/loss_parity.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// Both cases of a loss; make(Settings) -> Config, prepare(bench, Settings) sets its buffers.
template <class Loss, class T, class Make, class Prepare>
void check(const Fixture& fixture, Make&& make, Prepare&& prepare) {
  const double limit = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  std::size_t count = 0;
  for (const std::string& name : fixture.cases()) {
    if (!name.starts_with(std::string(Loss::name()) + ".")) continue;
    ++count;
    INFO(name);
    const Fixture one = fixture.at(name);
    LossBench<Loss, T> bench(make(Settings{one}));
    prepare(bench, Settings{one});
    const LossCase<T> c{one.shape("in.features")[1], one.stored<T>("in.features"), one.labels()};
    const bool owns = one.has("param.weight");
    if (owns) one.read("param", reference_name(bench.table.entries()[0]), bench.parameters.data());
    CHECK(relative_difference(static_cast<double>(bench(c)), one.number("out.loss")) < limit);
    CHECK(relative_difference(bench.dfeatures, one.stored<double>("grad.features")) < limit);
    if (owns)
      CHECK(difference_from(one, "grad_param", reference_name(bench.table.entries()[0]),
                            bench.dparameters.data()) < limit);
  }
  CHECK(count == 2);
}

template <class T>
void check_all() {
  const Fixture f("hash_losses", "papers");
  const auto nothing = [](auto&, Settings) {};
  check<loss::HashNetLoss, T>(
      f,
      [](Settings s) {
        return loss::HashNetLoss::Config{.alpha = s("alpha"), .step_continuation = 10};
      },
      [](auto& bench, Settings s) { bench.statistics[0] = static_cast<T>(s("step")); });
  check<loss::CSQLoss, T>(
      f,
      [](Settings s) {
        return loss::CSQLoss::Config{.num_classes = 6, .embedding_size = 8, .lambda = s("lambda_")};
      },
      nothing);
  check<loss::GreedyHashLoss, T>(
      f,
      [](Settings s) {
        return loss::GreedyHashLoss::Config{
            .num_classes = 6, .embedding_size = 8, .alpha = s("alpha")};
      },
      nothing);
}

}  // namespace

TEST_CASE("parity: hash losses in double") { check_all<double>(); }
TEST_CASE("parity: hash losses in single precision") { check_all<float>(); }

TEST_CASE("parity: hash centres are the rows of the Hadamard matrix and of its negative") {
  const Fixture f("hash_losses", "papers");
  const auto rows = f.stored<double>("hadamard.rows");
  CHECK(loss::hash_centers(32, 16) == rows);
  CHECK(loss::hash_centers(9, 16) == std::vector<double>(rows.begin(), rows.begin() + 9 * 16));
}
