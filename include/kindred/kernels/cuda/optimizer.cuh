#pragma once
// Bound by memory: every array is read once and written once.

#include <cmath>
#include <cstdint>

#include <kindred/kernels/cuda/launch.cuh>
#include <kindred/kernels/cuda/sum.cuh>

namespace kindred::cuda {

template <class T>
struct SgdUpdate {
  T lr, l2;
  __device__ void operator()(T& p, T g) const { p -= lr * (g + l2 * p); }
};

template <class T>
void sgd_update(Context& ctx, std::int64_t n, T* p, const T* g, T lr, T l2) {
  transform(ctx, "sgd_update", n, SgdUpdate<T>{lr, l2}, p, g);
}

template <class T>
struct MomentumUpdate {
  T lr, momentum, l2;
  bool nesterov;
  __device__ void operator()(T& p, T& v, T g) const {
    const T gradient = g + l2 * p;
    v = momentum * v + gradient;
    p -= lr * (nesterov ? gradient + momentum * v : v);
  }
};

template <class T>
void momentum_update(Context& ctx, std::int64_t n, T* p, const T* g, T* v, T lr, T momentum, T l2,
                     bool nesterov) {
  transform(ctx, "momentum_update", n, MomentumUpdate<T>{lr, momentum, l2, nesterov}, p, v, g);
}

template <class T>
struct AdamWUpdate {
  T rate, beta1, beta2, eps, shrink;
  __device__ void operator()(T& p, T& m, T& v, T g) const {
    m = beta1 * m + (T(1) - beta1) * g;
    v = beta2 * v + (T(1) - beta2) * g * g;
    p = shrink * p - rate * m / (std::sqrt(v) + eps);
  }
};

/// rate and eps with the bias corrections already in them; shrink = 1 - lr decay.
template <class T>
void adamw_update(Context& ctx, std::int64_t n, T* p, const T* g, T* m, T* v, T rate, T beta1,
                  T beta2, T eps, T shrink) {
  transform(ctx, "adamw_update", n, AdamWUpdate<T>{rate, beta1, beta2, eps, shrink}, p, m, v, g);
}

template <class T>
struct AdamUpdate {
  T rate, beta1, beta2, eps, l2;
  __device__ void operator()(T& p, T& m, T& v, T g) const {
    const T gradient = g + l2 * p;
    m = beta1 * m + (T(1) - beta1) * gradient;
    v = beta2 * v + (T(1) - beta2) * gradient * gradient;
    p -= rate * m / (std::sqrt(v) + eps);
  }
};

/// rate and eps with the bias corrections already in them.
template <class T>
void adam_update(Context& ctx, std::int64_t n, T* p, const T* g, T* m, T* v, T rate, T beta1,
                 T beta2, T eps, T l2) {
  transform(ctx, "adam_update", n, AdamUpdate<T>{rate, beta1, beta2, eps, l2}, p, m, v, g);
}

template <class T>
struct RmspropUpdate {
  T lr, rho, momentum, eps, l2;
  __device__ void operator()(T& p, T& s, T& v, T g) const {
    const T gradient = g + l2 * p;
    s = rho * s + (T(1) - rho) * gradient * gradient;
    v = momentum * v + lr * gradient / std::sqrt(s + eps);
    p -= v;
  }
};

template <class T>
void rmsprop_update(Context& ctx, std::int64_t n, T* p, const T* g, T* s, T* v, T lr, T rho,
                    T momentum, T eps, T l2) {
  transform(ctx, "rmsprop_update", n, RmspropUpdate<T>{lr, rho, momentum, eps, l2}, p, s, v, g);
}

template <class T>
struct CenteredRmspropUpdate {
  T lr, rho, momentum, eps, l2;
  __device__ void operator()(T& p, T& s, T& v, T& a, T g) const {
    const T gradient = g + l2 * p;
    s = rho * s + (T(1) - rho) * gradient * gradient;
    a = rho * a + (T(1) - rho) * gradient;
    v = momentum * v + lr * gradient / std::sqrt(s - a * a + eps);
    p -= v;
  }
};

template <class T>
void centered_rmsprop_update(Context& ctx, std::int64_t n, T* p, const T* g, T* s, T* v, T* a, T lr,
                             T rho, T momentum, T eps, T l2) {
  transform(ctx, "centered_rmsprop_update", n, CenteredRmspropUpdate<T>{lr, rho, momentum, eps, l2},
            p, s, v, a, g);
}

template <class T>
struct MovingAverageUpdate {
  T decay, rest;
  __device__ void operator()(T& average, T value) const {
    average = decay * average + rest * value;
  }
};

/// rest = 1 - decay.
template <class T>
void moving_average_update(Context& ctx, std::int64_t n, T* average, const T* value, T decay,
                           T rest) {
  transform(ctx, "moving_average_update", n, MovingAverageUpdate<T>{decay, rest}, average, value);
}

template <class T>
struct NotFinite {
  /// 0 for a finite v and NaN for every other.
  __device__ T operator()(T v) const { return v - v; }
};
template <class T>
struct IsZero {
  __device__ T operator()(double sum) const { return sum == 0 ? T(1) : T(0); }
};

template <class T>
void all_finite(Context& ctx, std::int64_t n, const T* x, T* finite) {
  sum_of_terms(ctx, "all_finite", n, x, NotFinite<T>{}, IsZero<T>{}, finite);
}

template <class T>
struct Square {
  __device__ T operator()(T v) const { return v * v; }
};
template <class T>
struct Round {
  __device__ T operator()(double sum) const { return static_cast<T>(sum); }
};

template <class T>
void sum_of_squares(Context& ctx, std::int64_t n, const T* x, T* sum) {
  sum_of_terms(ctx, "sum_of_squares", n, x, Square<T>{}, Round<T>{}, sum);
}

}  // namespace kindred::cuda
