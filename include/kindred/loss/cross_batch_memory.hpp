#pragma once
// Cross-batch memory (XBM): a pair loss between a batch and the features of the last batches.

#include <algorithm>
#include <cstdint>

#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/gemm.hpp>
#include <kindred/loss/pair_loss.hpp>

namespace kindred::loss {

/// `Loss` on the pairs of a row x_i of the batch [B,D] and a row of a memory that holds the last
/// memory_size features, the batch itself among them (but not x_i with itself). The memory has no
/// gradient. It is filled from step start_iter on; before that the loss is what Loss gives without
/// pairs. The memory is a ring of the buffers "features" [memory_size, embedding_size], "labels"
/// and "state", so a checkpoint has it.
/// Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020;
/// pytorch-metric-learning CrossBatchMemory. ContrastiveLoss_XBM of PaddleClas is the sum of
/// ContrastiveLoss and xbm_weight times this around it; there a batch that does not fit overwrites
/// the last rows, the memory is taken for empty behind its end while the last label is 0, and its
/// position is not in the checkpoint.
/// Throws ConfigError for extents that are not positive, ShapeError for features of another width
/// or a batch larger than the memory. In float labels must be below 2^24.
template <class Loss>
class CrossBatchMemory : public FeatureLoss<CrossBatchMemory<Loss>> {
  static_assert(
      requires { requires Loss::mineable; },
      "loss::CrossBatchMemory needs a loss of pairs that a miner could choose, see "
      "loss/mined.hpp");

 public:
  struct Config {
    std::int64_t memory_size = 1024;
    std::int64_t embedding_size = 0;
    std::int64_t start_iter = 0;
    typename Loss::Config loss{};
  };

  static constexpr const char* name() { return "CrossBatchMemory"; }

  CrossBatchMemory(const Config& config, const Scope& scope)
      : config_(config), loss_(config.loss, scope) {
    if (config.memory_size < 1 || config.embedding_size < 1 || config.start_iter < 0)
      throw ConfigError(text(name(), ": memory_size ", config.memory_size, " and embedding_size ",
                             config.embedding_size, " must be positive, start_iter ",
                             config.start_iter, " not negative"));
    const auto zero = Initializer::constant(0);
    // Shape by name: the front end of nvcc 13 garbles braces alone here.
    features_ = scope.declare("features", Shape{config.memory_size, config.embedding_size},
                              ParameterKind::buffer, zero);
    labels_ = scope.declare("labels", Shape{config.memory_size}, ParameterKind::buffer, zero);
    state_ = scope.declare("state", Shape{State<double>::size}, ParameterKind::buffer, zero);
  }
  const typename Loss::Config& config() const { return loss_.config(); }

  template <class Context, class T>
  void evaluate(const Run<Context, T>& run, const LossInput<T>& in, const LossGradient<T>& gradient,
                View<T> report) const {
    const FeatureFrom from = config().feature_from;
    const Shape& shape = in.at(from).shape;
    check_shape("CrossBatchMemory: features", shape, {shape[0], config_.embedding_size});
    check_shape("CrossBatchMemory: labels", in.labels.shape, {shape[0]});
    if (shape[0] > config_.memory_size)
      throw ShapeError(text("CrossBatchMemory: a batch of ", shape[0], " rows, but memory_size is ",
                            config_.memory_size));
    detail::on_normalized(run, loss_.normalizes(), Loss::norm, in.at(from), gradient.at(from),
                          [&](View<const T> x, View<T> dx) {
                            remember(run, x, in.labels);
                            compare(run, x, dx, report);
                          });
  }

  /// The ring, as numbers in a buffer.
  template <class T>
  struct State {
    static constexpr std::int64_t size = 4;
    T* values;
    KINDRED_HD T& steps() const { return values[0]; }   // not counted beyond start_iter + 1
    KINDRED_HD T& filled() const { return values[1]; }  // rows that were ever written
    KINDRED_HD T& next() const { return values[2]; }    // the row to be written next
    KINDRED_HD T& first() const { return values[3]; }   // the row of the batch's first
    KINDRED_HD bool started(std::int64_t start_iter) const { return steps() > T(start_iter); }
  };

  template <class T>
  struct Advance {
    State<T> state;
    std::int64_t batch, memory, start_iter;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t) const {
      group.once([&] {
        if (!state.started(start_iter)) state.steps() += T(1);
        if (!state.started(start_iter)) return;
        state.first() = state.next();
        const auto end = static_cast<std::int64_t>(state.next()) + batch;
        state.next() = T(end % memory);
        const T filled = state.filled() + T(batch);
        state.filled() = filled < T(memory) ? filled : T(memory);
      });
    }
  };

  template <class T>
  struct Enqueue {
    State<T> state;
    std::int64_t dim, memory, start_iter;
    const T* x;
    const std::int64_t* labels;
    T *kept_features, *kept_labels;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      if (!state.started(start_iter)) return;
      const std::int64_t at = (static_cast<std::int64_t>(state.first()) + i) % memory;
      group.for_each(dim, [&](std::int64_t d) { kept_features[at * dim + d] = x[i * dim + d]; });
      group.once([&] { kept_labels[at] = T(labels[i]); });
    }
  };

  /// Which rows of the memory a row of the batch may see.
  template <class T>
  struct Visible {
    State<T> state;
    std::int64_t memory, start_iter;
    T* selected;
    std::int64_t* own;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const std::int64_t self = (static_cast<std::int64_t>(state.first()) + i) % memory;
      const bool on = state.started(start_iter);
      const auto filled = static_cast<std::int64_t>(state.filled());
      group.for_each(memory, [&](std::int64_t j) {
        selected[i * memory + j] = T(on && j < filled && j != self);
      });
      group.once([&] { own[i] = self; });
    }
  };

  /// From products x_i . q_j to the matrix that the loss wants; labels to whole numbers.
  template <class T>
  struct Quantity {
    PairMatrix kind;
    std::int64_t dim, memory;
    const T *x, *squares;
    T *matrix, floor;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      const T* row = x + i * dim;
      const T own = group.sum(dim, [&](std::int64_t d) { return row[d] * row[d]; });
      T* m = matrix + i * memory;
      group.for_each(memory, [&](std::int64_t j) {
        T d2 = own + squares[j] - T(2) * m[j];
        d2 = d2 < floor ? floor : d2;
        m[j] = kind == PairMatrix::distance ? std::sqrt(d2) : d2;
      });
    }
  };
  template <class T>
  struct Memory {
    std::int64_t dim;
    const T *features, *labels;
    T* squares;
    std::int64_t* whole;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t j) const {
      const T* q = features + j * dim;
      const T square = group.sum(dim, [&](std::int64_t d) { return q[d] * q[d]; });
      group.once([&] {
        squares[j] = square;
        whole[j] = static_cast<std::int64_t>(labels[j]);
      });
    }
  };
  /// d sum_j C_ij |x_i - q_j|^2 = 2 sum_j C_ij x_i - 2 sum_j C_ij q_j: the first term, and -2 C.
  template <class T>
  struct Pull {
    std::int64_t dim, memory;
    const T* x;
    T *coefficients, *dx;
    template <class Group>
    KINDRED_HD void operator()(const Group& group, std::int64_t i) const {
      T* c = coefficients + i * memory;
      const T sum = group.sum(memory, [&](std::int64_t j) { return c[j]; });
      group.for_each(dim, [&](std::int64_t d) { dx[i * dim + d] += T(2) * sum * x[i * dim + d]; });
      group.for_each(memory, [&](std::int64_t j) { c[j] *= T(-2); });
    }
  };

 private:
  template <class Context, class T>
  void remember(const Run<Context, T>& run, View<const T> x,
                View<const std::int64_t> labels) const {
    const State<T> state{run.new_buffer(state_).data};
    const std::int64_t memory = config_.memory_size, start = config_.start_iter;
    kernels::pair_rows(run.ctx, 1, 1, Advance<T>{state, x.dim(0), memory, start});
    kernels::pair_rows(run.ctx, x.dim(0), x.dim(1),
                       Enqueue<T>{state, x.dim(1), memory, start, x.data, labels.data,
                                  run.new_buffer(features_).data, run.new_buffer(labels_).data});
  }

  template <class Context, class T>
  void compare(const Run<Context, T>& run, View<const T> x, View<T> dx, View<T> report) const {
    const std::int64_t batch = x.dim(0), dim = x.dim(1), memory = config_.memory_size;
    const View<T> kept = run.new_buffer(features_);
    const T floor = T(detail::squared_distance_floor);
    auto matrix = run.make({batch, memory}, "CrossBatchMemory.matrix");
    auto coefficients = run.make({batch, memory}, "CrossBatchMemory.coefficients");
    auto selected = run.make({batch, memory}, "CrossBatchMemory.selected");
    auto squares = run.make({memory}, "CrossBatchMemory.squares");
    auto labels = run.ctx.template make<std::int64_t>({memory}, "CrossBatchMemory.labels");
    auto own = run.ctx.template make<std::int64_t>({batch}, "CrossBatchMemory.own");
    auto losses = run.make({batch}, "CrossBatchMemory.losses");
    auto active = run.make({batch}, "CrossBatchMemory.active");
    auto factor = run.make({1}, "CrossBatchMemory.factor");
    const auto rows = [&](const auto& row) { kernels::pair_rows(run.ctx, batch, memory, row); };

    kernels::gemm(run.ctx, Transpose::no, Transpose::yes, x, kept, View<T>(matrix));
    kernels::pair_rows(
        run.ctx, memory, dim,
        Memory<T>{dim, kept.data, run.new_buffer(labels_).data, squares.data, labels.data});
    rows(Visible<T>{
        {run.new_buffer(state_).data}, memory, config_.start_iter, selected.data, own.data});
    if (Loss::matrix != PairMatrix::similarity)
      rows(Quantity<T>{Loss::matrix, dim, memory, x.data, squares.data, matrix.data, floor});
    Pairs<T> pairs{memory,      labels.data, matrix.data,  coefficients.data,
                   losses.data, active.data, selected.data};
    pairs.own = own.data;
    rows(detail::row_of(run, loss_, pairs));
    kernels::pair_rows(run.ctx, 1, batch,
                       detail::MeanOfRows<T>{batch, Loss::divisor, losses.data, active.data,
                                             T(config().weight), report.data, factor.data});
    detail::add_own_gradient(run, loss_, pairs, batch, static_cast<const T*>(factor.data));
    rows(detail::ScaleRow<T>{memory, Loss::matrix, matrix.data, factor.data, coefficients.data,
                             floor});
    if (Loss::matrix != PairMatrix::similarity)
      rows(Pull<T>{dim, memory, x.data, coefficients.data, dx.data});
    kernels::gemm(run.ctx, Transpose::no, Transpose::no, coefficients, kept, dx, true);
  }

  Config config_;
  Loss loss_;
  ParameterRef features_, labels_, state_;
};

}  // namespace kindred::loss
