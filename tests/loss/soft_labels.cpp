// Soft labels in a training session, before a head that trains without logits otherwise.

#include <kindred/head/arc_margin.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/cpu/normalize_images.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#include <kindred/kernels/cpu/pair_rows.hpp>
#include <kindred/kernels/cpu/softmax_cross_entropy.hpp>
#include <kindred/loss/ce_loss.hpp>
#include <kindred/model/rec_model.hpp>
#include <kindred/neck/fc.hpp>

#include "support/mean_colour.hpp"
#include "support/numeric.hpp"
#include "support/parity.hpp"

using namespace kindred;
using namespace kindred::test;

TEST_CASE("CELoss: a margin head trains on soft labels, and builds its logits for them alone") {
  using Model = RecModel<MeanColour, neck::FC, head::ArcMargin, loss::CELoss>;
  const auto make_model = [](loss::CETarget target) {
    return Model({.neck = {.embedding_size = 3, .class_num = 4},
                  .head = {.embedding_size = 4, .class_num = 3, .scale = 8},
                  .loss = {.target = target}},
                 Seed{2});
  };
  CHECK_FALSE(make_model(loss::CETarget::labels).builds_logits());
  Model model = make_model(loss::CETarget::distribution);
  CHECK(model.builds_logits());
  const auto images = random_values<float>(4 * 8 * 8 * 3, 3, 10);
  const View<const float> x{images.data(), {4, 8, 8, 3}};
  const std::vector<std::int64_t> labels{0, 1, 2, 0};
  auto session = model.train_session({.threads = 1});
  CHECK_THROWS_WITH(session.forward_backward(x, labels, 0),
                    ContainsSubstring("CELoss: there are no logits of a teacher"));
  SoftLabels<float> soft(3);
  session.set_teacher(soft);
  CHECK_THROWS_WITH(session.forward_backward(x, labels, 0),
                    ContainsSubstring("call set() before every step"));
  const std::vector<float> onehot{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0};
  soft.set({onehot.data(), {4, 3}});
  session.zero_gradients();
  const double value = session.forward_backward(x, labels, 0)[0].value;
  Model hard = make_model(loss::CETarget::labels);
  auto of_hard = hard.train_session({.threads = 1});
  CHECK(value == Approx(of_hard.forward_backward(x, labels, 0)[0].value).epsilon(1e-5));
  CHECK(relative_difference(
            std::vector<double>(session.gradients().begin(), session.gradients().end()),
            std::vector<double>(of_hard.gradients().begin(), of_hard.gradients().end())) < 1e-4);
  const std::vector<float> narrow(8);
  CHECK_THROWS_AS(soft.set({narrow.data(), {4, 2}}), ShapeError);
}
