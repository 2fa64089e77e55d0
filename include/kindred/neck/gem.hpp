#pragma once
// GeM neck: generalised-mean pooling of a feature map, with a learnt exponent.

#include <kindred/core/run.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/generalized_mean_pool.hpp>

namespace kindred::neck {

/// y[b,c] = (mean over h, w of max(x[b,h,w,c], eps)^p)^(1/p). x [B,H,W,num_features] from a
/// backbone that gives a map (PPLCNetMap), y [B,num_features]; parameter p [1], one for all
/// channels, which has to stay positive. freeze_p keeps it where it starts.
/// Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation" (TPAMI
/// 2018); GeneralizedMeanPoolingP of FastReID, which has these defaults; not in PaddleClas.
class GeM {
 public:
  struct Config {
    std::int64_t num_features = 0;
    double p = 3;
    double eps = 1e-6;
    bool freeze_p = false;
  };
  template <class T>
  struct Saved {
    Tensor<T> y;
  };

  static constexpr const char* name() { return "GeM"; }
  static constexpr int input_rank = 4;

  GeM(const Config& config, const Scope& scope) : config_(config) {
    if (config.num_features < 1)
      throw ConfigError(text("neck.GeM: num_features must be >= 1, got ", config.num_features));
    if (!(config.p > 0)) throw ConfigError(text("neck.GeM: p must be > 0, got ", config.p));
    if (!(config.eps > 0)) throw ConfigError(text("neck.GeM: eps must be > 0, got ", config.eps));
    p_ = scope.with_lr(config.freeze_p ? 0 : 1)
             .declare("p", {1}, ParameterKind::norm, Initializer::constant(config.p));
  }

  std::int64_t input_size() const { return config_.num_features; }
  std::int64_t output_size() const { return config_.num_features; }

  template <class Context, class T>
  Tensor<T> forward(const Run<Context, T>& run, In<T> x, Saved<T>& saved) const {
    auto y = run.make({x.dim(0), x.dim(3)}, "GeM.y");
    if (!run.training) {
      kernels::generalized_mean_pool_forward(run.ctx, x, run.parameter(p_), T(config_.eps), y);
      return y;
    }
    saved.y = run.make(y.shape, "GeM.saved y");
    kernels::generalized_mean_pool_forward(run.ctx, x, run.parameter(p_), T(config_.eps), saved.y);
    kernels::copy(run.ctx, saved.y, y);
    return y;
  }

  template <class Context, class T>
  Tensor<T> backward(const Run<Context, T>& run, Tensor<T> dy, In<T> x, Saved<T>& saved) const {
    auto dx = run.make(x.shape, "GeM.dx");
    kernels::generalized_mean_pool_backward(run.ctx, dy, x, saved.y, run.parameter(p_),
                                            T(config_.eps), dx, run.gradient(p_));
    saved = {};
    return dx;
  }

 private:
  Config config_;
  ParameterRef p_;
};

}  // namespace kindred::neck
