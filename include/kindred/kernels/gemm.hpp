#pragma once
// Matrix products, and the linear layer made of them. Matrices are row-major.

#include <cstdint>

#include <kindred/core/shape.hpp>
#include <kindred/kernels/transpose.hpp>

namespace kindred::kernels {

/// c = op(a) op(b), or c += op(a) op(b) if `accumulate`; op(a) [M,K], op(b) [K,N], c [M,N].
/// Throws ShapeError if the inner extents differ or c has another shape.
template <class Context, class T>
void gemm(Context& ctx, Transpose ta, Transpose tb, In<T> a, In<T> b, View<T> c,
          bool accumulate = false) {
  if (a.shape.rank() != 2 || b.shape.rank() != 2)
    throw ShapeError(text("gemm: a and b must be matrices, got ", a.shape, " and ", b.shape));
  const std::int64_t m = a.dim(ta == Transpose::no ? 0 : 1);
  const std::int64_t k = a.dim(ta == Transpose::no ? 1 : 0);
  const std::int64_t n = b.dim(tb == Transpose::no ? 1 : 0);
  check_shape("gemm: b", b.shape, tb == Transpose::no ? Shape{k, n} : Shape{n, k});
  check_shape("gemm: c", c.shape, {m, n});
  gemm(ctx, ta, tb, m, n, k, a.data, a.dim(1), b.data, b.dim(1), c.data, n, accumulate);
}

/// y = x w + bias: x [B,I], w [I,O], bias [O] or empty (data null), y [B,O].
template <class Context, class T>
void linear_forward(Context& ctx, In<T> x, In<T> w, In<T> bias, View<T> y) {
  check_shape("linear_forward: w", w.shape, {x.dim(1), y.dim(1)});
  check_shape("linear_forward: y", y.shape, {x.dim(0), w.dim(1)});
  if (bias.data != nullptr) check_shape("linear_forward: bias", bias.shape, {w.dim(1)});
  linear_forward(ctx, x.dim(0), x.dim(1), w.dim(1), x.data, w.data, bias.data, y.data);
}

/// dx = dy w^T: assigns dx [B,I] from dy [B,O] and w [I,O].
template <class Context, class T>
void linear_backward_input(Context& ctx, In<T> dy, In<T> w, View<T> dx) {
  check_shape("linear_backward_input: w", w.shape, {dx.dim(1), dy.dim(1)});
  check_shape("linear_backward_input: dy", dy.shape, {dx.dim(0), w.dim(1)});
  gemm(ctx, Transpose::no, Transpose::yes, dx.dim(0), dx.dim(1), dy.dim(1), dy.data, dy.dim(1),
       w.data, w.dim(1), dx.data, dx.dim(1), false);
}

/// dw += x^T dy, dbias += sum over b of dy[b]: x [B,I], dy [B,O], dw [I,O], dbias [O] or empty.
template <class Context, class T>
void linear_backward_parameters(Context& ctx, In<T> x, In<T> dy, View<T> dw, View<T> dbias) {
  check_shape("linear_backward_parameters: dw", dw.shape, {x.dim(1), dy.dim(1)});
  check_shape("linear_backward_parameters: dy", dy.shape, {x.dim(0), dw.dim(1)});
  gemm(ctx, Transpose::yes, Transpose::no, x.dim(1), dy.dim(1), x.dim(0), x.data, x.dim(1), dy.data,
       dy.dim(1), dw.data, dw.dim(1), true);
  if (dbias.data == nullptr) return;
  check_shape("linear_backward_parameters: dbias", dbias.shape, {dy.dim(1)});
  add_rows(ctx, dy.dim(0), dy.dim(1), dy.data, dbias.data);
}

}  // namespace kindred::kernels
