// Feature pyramids: gradients over a small trunk, settings.

#include <kindred/backbone/fpn.hpp>
#include <kindred/kernels/cpu/batch_norm.hpp>
#include <kindred/kernels/cpu/conv2d.hpp>
#include <kindred/kernels/cpu/elementwise.hpp>
#include <kindred/kernels/cpu/gemm.hpp>
#include <kindred/kernels/cpu/upsample_add.hpp>

#include "support/necks.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

/// Three stages of one strided convolution each, with 4, 5 and 6 channels.
class Steps {
 public:
  struct Config {};
  template <class T>
  struct Saved {
    std::vector<Tensor<T>> inputs;
    std::vector<layers::ConvBNAct::Saved<T>> convs;
  };
  static constexpr int stages = 3;

  Steps(const Config&, const Scope& scope) {
    for (int i = 0; i < stages; ++i)
      convs_.emplace_back(layers::ConvBNAct::Config{.in_channels = i == 0 ? 3 : stage_size(i - 1),
                                                    .out_channels = stage_size(i),
                                                    .kernel = 3,
                                                    .stride = 2,
                                                    .act = Activation::swish},
                          scope / ("conv" + std::to_string(i)));
  }
  std::int64_t stage_size(int stage) const { return 4 + stage; }

  template <class Context, class T, class Visit>
  Tensor<T> forward(const Run<Context, T>& run, In<T> images, Saved<T>& saved,
                    Visit&& visit) const {
    saved.inputs.resize(convs_.size());
    saved.convs.resize(convs_.size());
    Tensor<T> x;
    for (std::size_t i = 0; i < convs_.size(); ++i) {
      auto y = convs_[i].forward(run, i == 0 ? images : View<const T>(x), saved.convs[i]);
      if (run.training) saved.inputs[i] = std::move(x);
      x = std::move(y);
      visit(static_cast<int>(i), View<const T>(x));
    }
    return x;
  }
  template <class Context, class T, class Visit>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> d, In<T> images, Saved<T>& saved,
                     Visit&& visit) const {
    for (std::size_t i = convs_.size(); i-- > 0;) {
      d = convs_[i].backward(run, std::move(d), i == 0 ? images : View<const T>(saved.inputs[i]),
                             saved.convs[i]);
      if (i > 0) visit(static_cast<int>(i) - 1, View<const T>(saved.inputs[i]), View<T>(d));
      saved.inputs[i].reset();
    }
    return d;
  }

 private:
  std::vector<layers::ConvBNAct> convs_;
};

}  // namespace

TEST_CASE("FPN: the backward is the derivative of the forward, from every first stage") {
  using Neck = backbone::FPN<Steps>;
  check_neck<Neck>({.out_channels = 3, .first_stage = 0, .act = Activation::swish}, {2, 14, 10, 3},
                   {2, 7, 5, 3});
  check_neck<Neck>({.out_channels = 3, .first_stage = 1, .act = Activation::swish}, {2, 14, 10, 3},
                   {2, 4, 3, 3});
  check_neck<Neck>({.out_channels = 3, .first_stage = 2, .act = Activation::swish}, {3, 14, 10, 3},
                   {3, 2, 2, 3});
}

TEST_CASE("FPN names the setting that is wrong") {
  using Backbone = backbone::FPN<Steps>;
  CHECK(neck_error<Backbone>({.out_channels = 0}) ==
        "backbone.FPN: out_channels must be >= 1, got 0");
  CHECK(neck_error<Backbone>({.first_stage = 3}) ==
        "backbone.FPN: first_stage must be in [0, 3), got 3");
}
