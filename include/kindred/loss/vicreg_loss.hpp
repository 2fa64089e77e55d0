#pragma once
// Variance-invariance-covariance regularisation.

#include <kindred/kernels/gemm.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// Rows (0,1), (2,3), ... of the features [B,D] are two views z, z' of N = B/2 things:
///   L = invariance_lambda mean (z - z')^2 + variance_mu/2 sum over both views of mean_d max(0, 1 -
///   sqrt(var_d + eps)) + covariance_v sum over both views of 1/D sum_{d != e} cov_de^2,
/// variance and covariance over the N rows, unbiased; for N = 1 they are left out. Labels are not
/// read. Active are the pairs. The last row of an odd batch takes no part.
/// Source: Bardes et al., "VICReg", ICLR 2022; pytorch-metric-learning VICRegLoss, whose embeddings
/// and reference embeddings are the two views. Throws ConfigError unless eps > 0, ShapeError for an
/// empty batch.
class VICRegLoss : public FeatureLoss<VICRegLoss> {
 public:
  struct Config {
    double weight = 1;
    double invariance_lambda = 25;
    double variance_mu = 25;
    double covariance_v = 1;
    double eps = 1e-4;
    FeatureFrom feature_from = FeatureFrom::features;
  };

  static constexpr const char* name() { return "VICRegLoss"; }

  explicit VICRegLoss(const Config& config, const Scope&) : config_(config) {
    if (!(config.eps > 0))
      throw ConfigError(text(name(), ": eps must be positive, got ", config.eps));
  }
  const Config& config() const { return config_; }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const View<const T> x = in.at(config_.feature_from);
    const std::int64_t count = x.dim(0) / 2, dim = x.dim(1), width = 2 * dim;
    if (x.size() == 0) throw ShapeError(text(name(), " was given an empty batch"));
    // Each pair of rows is one row (z | z') of a [N,2D] matrix.
    auto centred = run.make({count, width}, "VICRegLoss.centred");
    auto covariance = run.make({width, width}, "VICRegLoss.covariance");
    auto product = run.make({count, width}, "VICRegLoss.product");
    auto terms = run.make({2, width}, "VICRegLoss.terms");
    Columns<T> c{count,
                 dim,
                 x.data,
                 gradient.at(config_.feature_from).data,
                 centred.data,
                 covariance.data,
                 product.data,
                 terms.data,
                 T(config_.invariance_lambda),
                 T(config_.variance_mu),
                 T(config_.covariance_v),
                 T(config_.eps),
                 T(config_.weight)};
    if (count > 1) {
      kernels::pair_rows(run.ctx, width, count, Center<T>{c});
      kernels::gemm(run.ctx, Transpose::yes, Transpose::no, centred, centred, View<T>(covariance));
      kernels::pair_rows(run.ctx, width, width, Covariance<T>{c});
      kernels::gemm(run.ctx, Transpose::no, Transpose::no, centred, covariance, View<T>(product));
    }
    kernels::pair_rows(run.ctx, width, count, Column<T>{c});
    kernels::pair_rows(run.ctx, 1, width, Sum<T>{c, report.data});
  }

  template <class T>
  struct Columns {
    std::int64_t count, dim;
    const T* x;
    T *dx, *centred, *covariance, *product;
    T* terms;  // [2,2D]: the loss of each column, and its sum of squared covariances
    T lambda, mu, nu, eps, weight;
    KINDRED_HD std::int64_t width() const { return 2 * dim; }
  };

  template <class T>
  struct Center {
    Columns<T> c;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t d) const {
      const std::int64_t w = c.width();
      const T mean =
          group.sum(c.count, [&](std::int64_t k) { return c.x[k * w + d]; }) / T(c.count);
      group.for_each(c.count,
                     [&](std::int64_t k) { c.centred[k * w + d] = c.x[k * w + d] - mean; });
    }
  };

  /// Row d of the covariances: its squares summed, then replaced by the matrix that takes the
  /// centred rows to their gradient.
  template <class T>
  struct Covariance {
    Columns<T> c;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t d) const {
      const std::int64_t w = c.width();
      T* row = c.covariance + d * w;
      const T unbias = T(1) / T(c.count - 1);
      const auto other = [&](std::int64_t e) { return e != d && e / c.dim == d / c.dim; };
      const T squares = group.sum(w, [&](std::int64_t e) {
        const T v = row[e] * unbias;
        return other(e) ? v * v : T(0);
      });
      const T deviation = std::sqrt(row[d] * unbias + c.eps);
      const bool low = !(deviation >= T(1));  // true for NaN
      const T variance = low ? -c.mu / (T(2) * T(c.dim) * deviation) * unbias : T(0);
      group.once([&] {
        c.terms[d] = low ? c.mu / T(2) * (T(1) - deviation) : T(0);
        c.terms[w + d] = squares;
      });
      const T scale = T(4) * c.nu / T(c.dim) * unbias * unbias;
      group.for_each(w, [&](std::int64_t e) {
        row[e] = e == d ? variance : other(e) ? scale * row[e] : T(0);
      });
    }
  };

  /// The loss of column d and the gradient of its entries.
  template <class T>
  struct Column {
    Columns<T> c;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t d) const {
      const std::int64_t w = c.width(), twin = (d + c.dim) % w;
      const auto gap = [&](std::int64_t k) { return c.x[k * w + d] - c.x[k * w + twin]; };
      const T squares = group.sum(c.count, [&](std::int64_t k) { return gap(k) * gap(k); });
      const bool spread = c.count > 1;
      const T term = spread ? c.terms[d] + c.nu * c.terms[w + d] : T(0);
      // Both columns of a pair count the same gap, hence the half.
      const T share = c.count > 0 ? c.lambda / T(c.count) : T(0);
      group.once([&] { c.terms[d] = term + share / T(2) * squares; });
      group.for_each(c.count, [&](std::int64_t k) {
        const T pull = T(2) * share / T(c.dim) * gap(k);
        c.dx[k * w + d] += c.weight * (pull + (spread ? c.product[k * w + d] : T(0)));
      });
    }
  };

  template <class T>
  struct Sum {
    Columns<T> c;
    T* report;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      const T sum = group.sum(c.width(), [&](std::int64_t d) { return c.terms[d]; });
      group.once([&] {
        report[0] = sum / T(c.dim);
        report[1] = T(c.count);
      });
    }
  };

 private:
  Config config_;
};

}  // namespace kindred::loss
