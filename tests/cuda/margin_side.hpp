#pragma once
// Margin softmax on both sides of a parity test: the fused form and the one through logits.

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <type_traits>

#include <kindred/kernels/margin_softmax.hpp>
#include <kindred/kernels/optimizer.hpp>
#ifdef KINDRED_CPU_SIDE
#include <kindred/kernels/cpu/margin_softmax.hpp>
#include <kindred/kernels/cpu/optimizer.hpp>
#else
#include <kindred/kernels/cuda/margin_softmax.cuh>
#include <kindred/kernels/cuda/optimizer.cuh>
#endif

#include "cuda/support.hpp"

namespace kindred::test {
inline namespace
#ifdef KINDRED_CPU_SIDE
    cpu_side
#else
    cuda_side
#endif
{

/// How the classes are worked on where CUDA can choose.
enum class Cut { by_size, small_tiles, small_tiles_stored };

template <class T>
struct Problem {
  std::int64_t batch, dim, classes, sub_centers = 1;
  T epsilon = T(0.1), weight = T(0.7);
  Cut cut = Cut::by_size;
  bool features = true, centers = true;  ///< which gradients are asked for

  Shape x_shape() const { return {batch, dim}; }
  Shape w_shape() const { return {classes * sub_centers, dim}; }
};

/// Random features, centres and labels; the first feature and the first centre are zero.
template <class T>
struct Inputs {
  View<T> x, w;
  View<std::int64_t> labels;

  Inputs(Side& side, const Problem<T>& p) {
    auto features = random_values<T>(p.batch * p.dim, 1, 2);
    auto centres = random_values<T>(p.classes * p.sub_centers * p.dim, 2);
    auto y = random_labels(p.batch, p.classes, 3);
    y.back() = p.classes - 1;
    if (p.batch > 2) std::fill_n(features.begin(), p.dim, T(0));
    if (p.classes > 2) std::fill_n(centres.begin(), p.dim, T(0));
    x = side.input(features, p.x_shape());
    w = side.input(centres, p.w_shape());
    labels = side.input(y, {p.batch});
  }
};

template <class T, class Policy>
void margin_softmax(Side& side, const Problem<T>& p, const Policy& policy, const Inputs<T>& in,
                    View<T> loss, View<T> dx, View<T> dw) {
#ifndef KINDRED_CPU_SIDE
  if (p.cut != Cut::by_size) {
    const cuda::MarginTiles tiles(p.batch, p.dim, p.classes, p.sub_centers, sizeof(T), 1);
    side.check(tiles.tiles > 1, "the case has only one tile");
    cuda::margin_softmax_tiled(side.ctx, tiles, p.cut == Cut::small_tiles_stored, policy,
                               static_cast<const T*>(in.x.data), static_cast<const T*>(in.w.data),
                               in.labels.data, p.epsilon, p.weight, loss.data, dx.data,
                               kernels::CenterGradient<cuda::Context, T>{dw.data});
    return;
  }
#endif
  kernels::margin_softmax(side.ctx, policy, in.x, in.w, in.labels.data, p.epsilon, p.weight, loss,
                          dx, dw);
}

template <class T, class Policy>
void margin_logits_backward(Side& side, [[maybe_unused]] const Problem<T>& p, const Policy& policy,
                            View<T> dlogits, const Inputs<T>& in, View<T> dx, View<T> dw) {
#ifndef KINDRED_CPU_SIDE
  if (p.cut != Cut::by_size) {
    const cuda::MarginTiles tiles(p.batch, p.dim, p.classes, p.sub_centers, sizeof(T), 1);
    cuda::margin_logits_backward_tiled(side.ctx, tiles, policy, static_cast<const T*>(dlogits.data),
                                       static_cast<const T*>(in.x.data),
                                       static_cast<const T*>(in.w.data), in.labels.data, dx.data,
                                       dw.data);
    return;
  }
#endif
  kernels::margin_logits_backward(side.ctx, policy, dlogits, in.x, in.w, in.labels.data, dx, dw);
}

/// What a scale of up to 64 makes of a rounding.
template <class T>
inline constexpr double margin_limit = Side::tolerance<T>(1e-4);

/// Loss and gradients; both accumulate.
template <class T, class Policy>
void check_fused(Side& side, const std::string& name, const Problem<T>& p, const Policy& policy) {
  const Inputs<T> in(side, p);
  const auto loss = side.template output<T>({1});
  const auto dx = side.input(random_values<T>(p.batch * p.dim, 4), p.x_shape());
  const auto dw = side.input(random_values<T>(p.w_shape().size(), 5), p.w_shape());
  side.run([&] {
    margin_softmax(side, p, policy, in, loss, p.features ? dx : View<T>{},
                   p.centers ? dw : View<T>{});
  });
  side.record(name + " loss", loss, margin_limit<T>);
  side.record(name + " dx", dx, margin_limit<T>);
  side.record(name + " dw", dw, margin_limit<T>);
}

/// The step of an optimizer on the centres, within the pass.
template <class T, class Context>
struct MomentumStep final : RowUpdate<Context, T> {
  T *w, *v;
  MomentumStep(T* parameters, T* velocities) : w(parameters), v(velocities) {}
  void operator()(Context& ctx, std::int64_t begin, std::int64_t n, const T* g,
                  const T* allowed) const override {
    apply_rule_in_chunk(ctx, MomentumRule<T>{T(0.1), T(0.9), T(0.01), false}, n, w + begin, g,
                        std::array<T*, 1>{v + begin}, allowed);
  }
};

/// Two steps that update the centres, and whether they were taken. The second is one of a NaN in
/// the features if `spoilt`.
template <class T, class Policy>
void check_update(Side& side, const std::string& name, const Problem<T>& p, const Policy& policy,
                  bool spoilt = false) {
  const Inputs<T> in(side, p);
  const auto loss = side.template output<T>({1}), taken = side.template output<T>({2});
  const auto dx = side.input(random_values<T>(p.batch * p.dim, 4), p.x_shape());
  const auto velocity =
      side.input(std::vector<T>(static_cast<std::size_t>(p.w_shape().size())), p.w_shape());
  auto bad = random_values<T>(p.batch * p.dim, 1, 2);
  if (spoilt) bad[1] = std::numeric_limits<T>::quiet_NaN();
  const auto second = side.input(bad, p.x_shape());
  using Context = std::remove_reference_t<decltype(side.ctx)>;
  const MomentumStep<T, Context> step(in.w.data, velocity.data);
  side.run([&] {
    for (std::int64_t i = 0; i < 2; ++i) {
      const View<T> x = i == 0 ? in.x : second, own{taken.data + i, {1}};
#ifndef KINDRED_CPU_SIDE
      if (p.cut != Cut::by_size) {
        const cuda::MarginTiles tiles(p.batch, p.dim, p.classes, p.sub_centers, sizeof(T), 1);
        side.check(tiles.tiles > 1, "the case has only one tile");
        cuda::margin_softmax_tiled(
            side.ctx, tiles, p.cut == Cut::small_tiles_stored, policy,
            static_cast<const T*>(x.data), static_cast<const T*>(in.w.data), in.labels.data,
            p.epsilon, p.weight, loss.data, spoilt ? nullptr : dx.data,
            kernels::CenterGradient<cuda::Context, T>{nullptr, &step, own.data});
        continue;
      }
#endif
      kernels::margin_softmax_update(side.ctx, policy, x, in.w, in.labels.data, p.epsilon, p.weight,
                                     loss, spoilt ? View<T>{} : dx, step, own);
    }
  });
  if (!spoilt) side.record(name + " loss", loss, margin_limit<T>);
  side.record(name + " taken", taken);
  side.record(name + " dx", dx, margin_limit<T>);
  side.record(name + " w", in.w, margin_limit<T>);
  side.record(name + " velocity", velocity, margin_limit<T>);
}

/// The same head through its logits.
template <class T, class Policy>
void check_logits(Side& side, const std::string& name, const Problem<T>& p, const Policy& policy) {
  const Inputs<T> in(side, p);
  const Shape square{p.batch, p.classes};
  const auto cosines = side.template output<T>(square), logits = side.template output<T>(square);
  const auto dlogits = side.input(random_values<T>(square.size(), 6), square);
  const auto dx = side.template output<T>(p.x_shape()),
             dx_alone = side.template output<T>(p.x_shape());
  const auto dw = side.input(random_values<T>(p.w_shape().size(), 7), p.w_shape());
  side.run([&] {
    kernels::margin_logits(side.ctx, in.x, in.w, cosines, p.sub_centers);
    kernels::margin_logits_forward(side.ctx, policy, in.x, in.w, in.labels.data, logits);
    margin_logits_backward(side, p, policy, dlogits, in, dx, dw);
    margin_logits_backward(side, p, policy, dlogits, in, dx_alone, View<T>{});
  });
  side.record(name + " cosines", cosines);
  side.record(name + " logits", logits, margin_limit<T>);
  side.record(name + " dx of logits", dx, margin_limit<T>);
  side.record(name + " dx of logits alone", dx_alone, margin_limit<T>);
  side.record(name + " dw of logits", dw, margin_limit<T>);
}

}  // namespace cpu_side
}  // namespace kindred::test
