#pragma once
// What the losses on own proxies of the classes share: cosines of all rows with all proxies, and
// the way back from their coefficients.

#include <kindred/kernels/check_labels.hpp>
#include <kindred/kernels/gemm.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss::detail {

/// cos [B,P] of the rows of x [B,D] and of the proxies [P,D], both divided by max(norm, 1e-12), as
/// pytorch-metric-learning does; fill(cos, coefficients) writes weight d loss / d cos [B,P]. The
/// gradients are added to dx and to that of the proxies. Memory is O(B P + P D).
template <class Context, class T, class Fill>
void on_proxies(const Run<Context, T>& run, const ParameterRef& proxies, View<const T> x,
                View<T> dx, Fill&& fill) {
  const View<const T> w = run.parameter(proxies);
  const std::int64_t count = w.dim(0);
  check_shape("proxy loss: features", x.shape, {x.dim(0), w.dim(1)});
  on_normalized(run, true, NormRule::max_eps, x, dx, [&](View<const T> unit, View<T> dunit) {
    on_normalized(
        run, true, NormRule::max_eps, w, run.gradient(proxies),
        [&](View<const T> center, View<T> dcenter) {
          auto cosines = run.make({x.dim(0), count}, "proxy loss: cosines");
          auto coefficients = run.make({x.dim(0), count}, "proxy loss: coefficients");
          kernels::gemm(run.ctx, Transpose::no, Transpose::yes, unit, center, View<T>(cosines));
          fill(View<const T>(cosines), View<T>(coefficients));
          kernels::gemm(run.ctx, Transpose::no, Transpose::no, coefficients, center, dunit, true);
          kernels::gemm(run.ctx, Transpose::yes, Transpose::no, coefficients, unit, dcenter, true);
        });
  });
}

/// Throws ConfigError unless the extents of the proxies are positive.
inline void check_proxies(const char* name, std::int64_t classes, std::int64_t embedding_size,
                          std::int64_t per_class = 1) {
  if (classes <= 0 || embedding_size <= 0 || per_class <= 0)
    throw ConfigError(text(name, ": num_classes ", classes, ", embedding_size ", embedding_size,
                           " and the proxies of a class ", per_class, " must be positive"));
}

}  // namespace kindred::loss::detail
