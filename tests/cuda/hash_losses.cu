// The losses of codes with parameters or buffers, and MagFace's regulariser, CPU against CUDA.

#include <kindred/loss/csq_loss.hpp>
#include <kindred/loss/greedy_hash_loss.hpp>
#include <kindred/loss/hash_net_loss.hpp>
#include <kindred/loss/mag_regularizer.hpp>

#include "cuda/loss_side.hpp"

using namespace kindred;
using test::compare_loss;
using test::loss_classes;
using test::loss_dim;
using test::random_values;

namespace {

constexpr loss::CSQLoss::Config csq{
    .weight = 0.7, .num_classes = loss_classes, .embedding_size = loss_dim, .lambda = 0.3};
constexpr loss::GreedyHashLoss::Config greedy{
    .weight = 0.7, .num_classes = loss_classes, .embedding_size = loss_dim, .alpha = 0.3};

KINDRED_PARITY(losses_of_rows) {
  compare_loss<loss::CSQLoss, T>(side, csq);
  compare_loss<loss::GreedyHashLoss, T>(side, greedy);
  // Norms of five normal numbers lie on both sides of both bounds.
  compare_loss<loss::MagRegularizer, T>(side, {.weight = 0.7, .l_a = 1.5, .u_a = 2.5});
}

/// Three steps, after each of which the codes are harder.
KINDRED_PARITY(continuation) {
  compare_loss<loss::HashNetLoss, T>(side, {.weight = 0.7, .alpha = 0.6});
  test::run_loss<T, loss::HashNetLoss>(
      side, "HashNetLoss, step by step:", {.weight = 0.7, .alpha = 0.6, .step_continuation = 1},
      random_values<T>(3 * 33 * loss_dim, 6), test::random_labels(33, loss_classes, 7),
      test::Side::tolerance<T>(1e-4));
}

/// A label beyond the classes is reported, and nothing is read or written out of bounds before.
template <class Loss, class T>
void check_bad_label(test::Side& side, const typename Loss::Config& config) {
  for (const std::int64_t bad : {std::int64_t{-1}, loss_classes, std::int64_t{1} << 60})
    side.template check_throws<DataError>(
        [&] {
          test::run_loss<T, Loss>(side, "bad label", config, random_values<T>(3 * loss_dim, 9),
                                  {0, bad, 1}, 0);
        },
        "[0, ");
}

KINDRED_PARITY(bad_labels_of_codes) {
  check_bad_label<loss::CSQLoss, T>(side, csq);
  check_bad_label<loss::GreedyHashLoss, T>(side, greedy);
}

}  // namespace
