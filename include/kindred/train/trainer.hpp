#pragma once
// Trainer: epochs of steps with logs, evaluation, checkpoints and exact resumption.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kindred/io/weights.hpp>
#include <kindred/kernels/elementwise.hpp>
#include <kindred/kernels/optimizer.hpp>
#include <kindred/model/train_session.hpp>
#include <kindred/train/checkpoint.hpp>
#include <kindred/train/parameter_group.hpp>
#include <kindred/train/progress.hpp>

namespace kindred {

/// Settings of Trainer::fit; names follow PaddleClas' Global section.
template <class Model>
struct FitOptions {
  std::int64_t epochs = 1;
  std::filesystem::path output = "output";  ///< checkpoints, train.log and metrics.jsonl go there
  std::int64_t update_freq = 1;             ///< batches whose gradients are averaged into one step
  std::int64_t print_batch_step = 10;       ///< batches between two log lines
  std::int64_t save_interval = 0;           ///< epochs between two `epoch_k` checkpoints; 0: none
  std::int64_t save_every_steps = 0;  ///< also write `latest` within an epoch; 0: at its end only
  std::int64_t eval_interval = 1;     ///< epochs between two evaluations
  std::int64_t start_eval_epoch = 1;
  /// In (0, 1): keeps a moving average of all weights and statistics, average = ema_decay average +
  /// (1 - ema_decay) value after every step, from their initial values, as PaddleClas' EMA does.
  /// Evaluations and `best_model` are of the average then (PaddleClas evaluates both). 0: none.
  double ema_decay = 0;
  bool resume = false;  ///< continue from `latest` if it is there
  bool quiet = false;   ///< nothing on the terminal; files are written all the same
  /// Metrics of the model; the first one selects `best_model`. Empty: no evaluation.
  std::function<std::vector<train::Metric>(const Model&)> evaluate{};
};

/// What a training run came to.
struct FitResult {
  std::int64_t steps = 0;
  double loss = 0;         ///< mean of the last log interval
  double best_metric = 0;  ///< NaN without evaluation
  std::int64_t best_epoch = 0;
};

/// Trains a model with one optimizer and one schedule, or one of each for groups of parameters:
///   Trainer trainer(model, std::vector<train::ParameterGroup<>>{
///       {"RecModel", optim::Adam{}, lr::Cosine{.base = 1e-3}},
///       {"CenterLoss", optim::SGD{}, lr::Constant{0.5}}});
///
/// Checkpoints in `output`: latest.safetensors (after every epoch), epoch_<k>.safetensors, and
/// best_model.safetensors (weights alone; equal scores replace, as in PaddleClas). Each is written
/// beside and renamed. A run that is killed at any moment and resumed ends with the same bits as
/// one that was not, on the same machine.
template <class Model, optim::Optimizer Optimizer, lr::Schedule Schedule>
class Trainer {
 public:
  using Scalar = typename Model::Scalar;
  using Array = typename Model::Array;
  using ParameterGroup = train::ParameterGroup<Optimizer, Schedule>;

  Trainer(Model& model, const Optimizer& optimizer, const Schedule& schedule,
          const SessionOptions& options = {})
      : Trainer(model, std::vector<ParameterGroup>{{"all", optimizer, schedule}}, options) {}

  /// Throws ConfigError unless every parameter that trains is in exactly one group.
  Trainer(Model& model, std::vector<ParameterGroup> groups, const SessionOptions& options = {})
      : model_(model), groups_(std::move(groups)), session_(model.train_session(options)) {
    std::vector<std::string> scopes;
    for (const ParameterGroup& g : groups_) {
      scopes.push_back(g.scope);
      ranges_.push_back(
          optim::ranges(model.parameters(), g.optimizer.weight_decay, g.optimizer.no_decay,
                        [&g](const ParameterInfo& p) { return train::in_scope(p, g.scope); }));
      moments_ = std::max(moments_, g.optimizer.moments());
    }
    train::check_scopes(model.parameters(), scopes);
    find_group_of_rows();
    state_.assign(moments_, Array(model.trainable().size(), Scalar(0)));
  }

  /// Trains on the batches of `loader` (data::Loader, or anything with its Batch, start, next,
  /// batches_in, describe and reader_cost). An epoch is as long as batches_in(0) says, less if the
  /// loader ends early. Throws NumericError, with the name of the tensor, as soon as an image, a
  /// loss or a gradient is not finite (before parameters are updated; of a head with update_in_tile
  /// see MarginHead), or a parameter or statistic (before anything is saved), so that the
  /// checkpoints on disk stay good.
  template <class Loader>
  FitResult fit(Loader& loader, const FitOptions<Model>& options) {
    check(options);
    std::filesystem::create_directories(options.output);
    const auto latest = options.output / "latest.safetensors";
    const std::int64_t batches = usable_batches(loader, options);
    at_ = {};
    last_loss_ = NAN;
    begin_state(options.ema_decay);
    if (options.resume && std::filesystem::exists(latest))
      at_ = train::load_checkpoint(latest, model_, state_, state_name());
    if (at_.batch > batches || at_.batch % options.update_freq != 0)
      throw ConfigError(text(latest.string(), " was saved after ", at_.batch,
                             " batches of an epoch, ", "now an epoch has ", batches,
                             " and update_freq is ", options.update_freq,
                             "; resume with the settings it was made with"));
    train::Journal journal(options.output, at_.epoch, at_.step, options.quiet);
    if (at_.step > 0)
      journal.line(text("resumed from ", latest.string(), " after step ", at_.step));
    begin_log();
    while (at_.epoch < options.epochs) {
      run_epoch(loader, options, batches, journal);
      check_state();
      ++at_.epoch;
      at_.batch = 0;
      evaluate(options, journal);
      save(latest);
      if (options.save_interval > 0 && at_.epoch % options.save_interval == 0)
        save(options.output / text("epoch_", at_.epoch, ".safetensors"));
    }
    return {at_.step, last_loss_, at_.best_epoch > 0 ? at_.best_metric : NAN, at_.best_epoch};
  }

  /// One optimizer step on one batch, without a loader: returns its losses.
  std::span<const loss::LossReport> step(View<const Scalar> images,
                                         std::span<const std::int64_t> labels,
                                         const lr::Progress& progress) {
    launch(images, labels, static_cast<std::uint64_t>(progress.step), progress, {});
    const auto losses = session_.losses();
    check_finite(losses, images, {});
    if constexpr (!updates_with_pass) update_after_check(progress, 1);
    return losses;
  }

  /// Exchanges the model's weights and statistics with their moving average. Throws ConfigError
  /// unless the last fit() kept one.
  void swap_average() {
    if (ema_decay_ == 0)
      throw ConfigError("Trainer: there is no moving average; fit with FitOptions::ema_decay");
    const auto weights = model_.trainable(), statistics = model_.statistics();
    std::swap_ranges(weights.begin(), weights.end(), state_[moments_].begin());
    std::swap_ranges(statistics.begin(), statistics.end(), state_[moments_ + 1].begin());
  }

  TrainSession<Model>& session() { return session_; }

 private:
  using Seconds = std::chrono::duration<double>;
  using Now = std::chrono::steady_clock;

  /// Times since the last log line; its losses are part of the position.
  struct Clock {
    Now::time_point start = Now::now();   ///< of the run
    Now::time_point window = Now::now();  ///< of the log interval
    std::int64_t images = 0, batches = 0, batches_of_run = 0;
    double reader_cost = 0;  ///< of the epoch, at the begin of the interval
  };

  void check(const FitOptions<Model>& o) const {
    if (o.update_freq > 1 && model_.parameters().updated_in_tile() != nullptr)
      throw ConfigError(text("Trainer: update_freq = ", o.update_freq, " adds up gradients, which ",
                             "the head's update_in_tile does not store; set update_freq to 1 or ",
                             "update_in_tile to false"));
    if (o.epochs < 1 || o.update_freq < 1 || o.print_batch_step < 1 || o.eval_interval < 1)
      throw ConfigError(
          "Trainer: epochs, update_freq, print_batch_step and eval_interval must be "
          ">= 1");
    if (o.save_interval < 0 || o.save_every_steps < 0)
      throw ConfigError("Trainer: save_interval and save_every_steps must be >= 0");
    if (!(o.ema_decay >= 0 && o.ema_decay < 1))
      throw ConfigError(text("Trainer: ema_decay = ", o.ema_decay, " must be in [0, 1)"));
  }

  /// Moments start at zero, the moving average where the model is.
  void begin_state(double ema_decay) {
    ema_decay_ = ema_decay;
    state_.resize(moments_);
    for (auto& m : state_) std::fill(m.begin(), m.end(), Scalar(0));
    if (ema_decay_ == 0) return;
    const auto& model = std::as_const(model_);
    state_.emplace_back(model.trainable().begin(), model.trainable().end());
    state_.emplace_back(model.statistics().begin(), model.statistics().end());
  }
  /// What the arrays of the state are, for the checkpoint: "Momentum", or
  /// "RecModel Adam, CenterLoss SGD, moving average".
  std::string state_name() const {
    std::string name;
    for (const ParameterGroup& g : groups_)
      name += text(name.empty() ? "" : ", ", groups_.size() > 1 ? g.scope + " " : std::string(),
                   g.optimizer.name());
    return name + (ema_decay_ > 0 ? ", moving average" : "");
  }

  /// Batches of an epoch, without the last ones that do not fill an optimizer step.
  template <class Loader>
  std::int64_t usable_batches(Loader& loader, const FitOptions<Model>& options) const {
    // Of epoch 0 whatever the epoch, so that a resumed run has the schedule of the first one.
    const auto all = static_cast<std::int64_t>(loader.batches_in(0));
    const std::int64_t usable = all / options.update_freq * options.update_freq;
    if (usable == 0)
      throw ConfigError(text("Trainer: an epoch has ", all,
                             " batches, fewer than update_freq = ", options.update_freq));
    return usable;
  }

  template <class Loader>
  void run_epoch(Loader& loader, const FitOptions<Model>& options, std::int64_t batches,
                 train::Journal& journal) {
    loader.start(static_cast<std::uint64_t>(at_.epoch), static_cast<std::size_t>(at_.batch));
    session_.context().forget_prefetched();  // of an epoch that an exception has ended
    clock_.reader_cost = 0;
    typename Loader::Batch batch;
    const lr::Progress length{0, batches / options.update_freq, options.epochs, at_.scores};
    while (at_.batch < batches && loader.next(batch)) {
      const StepOfBatch of_batch{at_.batch % options.update_freq, options.update_freq};
      lr::Progress progress = length;
      progress.step = at_.step;
      visit_images(batch, [&](const auto& images) {
        launch(images, batch.labels, static_cast<std::uint64_t>(at_.epoch * batches + at_.batch),
               progress, of_batch);
      });
      if (at_.batch + 1 < batches) prefetch(loader);
      const auto losses = session_.losses();
      check_finite(losses, batch.images, [&](std::size_t i) { return loader.describe(batch, i); });
      ++at_.batch;
      note(losses, static_cast<std::int64_t>(batch.labels.size()));
      if (!of_batch.last()) continue;
      if constexpr (!updates_with_pass) update_after_check(progress, options.update_freq);
      ++at_.step;
      report(options, batches, progress, losses, loader.reader_cost(), journal);
      if (options.save_every_steps > 0 && at_.step % options.save_every_steps == 0) {
        check_state();
        save(options.output / "latest.safetensors");
      }
    }
  }

  /// f(images), or f(pixels) where a loader has them.
  template <class Batch, class F>
  static void visit_images(const Batch& batch, F&& f) {
    if constexpr (requires { batch.visit(f); })
      batch.visit(f);
    else
      f(batch.images);
  }
  /// Brings the next batch to the GPU while it works on this one, if the loader has it already.
  template <class Loader>
  void prefetch(Loader& loader) {
    typename Loader::Batch next;
    if constexpr (requires { loader.peek(next); })
      if (loader.peek(next))
        visit_images(next, [&](const auto& images) { session_.prefetch(images); });
  }

  /// The group that trains the centres of a head with update_in_tile.
  void find_group_of_rows() {
    const ParameterInfo* rows = model_.parameters().updated_in_tile();
    for (std::size_t i = 0; rows != nullptr && i < groups_.size(); ++i)
      if (train::in_scope(*rows, groups_[i].scope)) group_of_rows_ = i;
    if constexpr (!optim::HasRule<Optimizer, Scalar>)
      if (rows != nullptr)
        throw ConfigError(
            text("Trainer: ", groups_[group_of_rows_].optimizer.name(), " has no ",
                 "with_rule, which the head's update_in_tile needs; write it, or set ",
                 "update_in_tile to false"));
  }

  optim::Update<Scalar, Array> update_of(const ParameterGroup& group,
                                         const lr::Progress& progress) {
    return {model_.trainable(),
            session_.gradients(),
            std::span(state_).first(group.optimizer.moments()),
            group.schedule.at(progress),
            progress.step + 1,
            session_.step_allowed()};
  }

  /// Whether the update is launched with the pass, on a GPU as one graph, and checks on the device
  /// what the host checks later; the host updates after its check otherwise.
  static constexpr bool updates_with_pass = optim::HasRule<Optimizer, Scalar>;

  /// Which of the `count` batches whose gradients make one step.
  struct StepOfBatch {
    std::int64_t number = 0, count = 1;
    bool last() const { return number + 1 == count; }
  };

  /// Forward and backward of one batch, the update if it belongs there; a head with update_in_tile
  /// takes its step of `progress`.
  template <class Images>
  void launch(const Images& images, std::span<const std::int64_t> labels, std::uint64_t key,
              const lr::Progress& progress, const StepOfBatch& batch) {
    const auto finish = [&](auto&) { update(progress, batch.count); };
    const typename TrainSession<Model>::Part part{batch.number == 0,
                                                  updates_with_pass && batch.last()};
    if constexpr (updates_with_pass) {
      if (const ParameterInfo* rows = model_.parameters().updated_in_tile()) {
        const ParameterGroup& group = groups_[group_of_rows_];
        const optim::RowStep<typename Model::Context, Scalar, Array, Optimizer> step(
            group.optimizer,
            optim::range_of(*rows, group.optimizer.weight_decay, group.optimizer.no_decay),
            update_of(group, progress));
        return session_.step(images, labels, key, finish, &step, part);
      }
    }
    session_.step(images, labels, key, finish, nullptr, part);
  }

  void update_after_check(const lr::Progress& progress, std::int64_t update_freq) {
    update(progress, update_freq);
    session_.context().synchronize();  // what follows reads the model on the host
  }

  void update(const lr::Progress& progress, std::int64_t update_freq) {
    const auto gradients = session_.gradients();
    if (update_freq > 1) {  // mean of the batches: g += (1/n - 1) g
      const View<Scalar> g{gradients.data(), {static_cast<std::int64_t>(gradients.size())}};
      kernels::scale_add(session_.context(), Scalar(1) / static_cast<Scalar>(update_freq) - 1, g,
                         g);
    }
    for (std::size_t i = 0; i < groups_.size(); ++i)
      groups_[i].optimizer.update(session_.context(), std::span<const optim::Range>(ranges_[i]),
                                  update_of(groups_[i], progress));
    if (ema_decay_ > 0) update_average();
  }

  void update_average() {
    const auto average = [&](Array& to, std::span<const Scalar> from, std::int64_t begin,
                             std::int64_t end, double decay) {
      kernels::moving_average_update(
          session_.context(), View<Scalar>{to.data() + begin, {end - begin}},
          View<const Scalar>{from.data() + begin, {end - begin}}, static_cast<Scalar>(decay));
    };
    const ParameterTable& table = model_.parameters();
    average(state_[moments_], model_.trainable(), 0, table.trainable_size(), ema_decay_);
    std::int64_t of_losses = table.buffer_size();  // memories, not statistics: the last ones count
    for (const ParameterInfo& p : table.entries())
      if (p.kind == ParameterKind::buffer && !p.loss.empty())
        of_losses = std::min(of_losses, p.offset);
    Array& statistics = state_[moments_ + 1];
    average(statistics, model_.statistics(), 0, of_losses, ema_decay_);
    average(statistics, model_.statistics(), of_losses, table.buffer_size(), 0);
  }

  using Describe = std::function<std::string(std::size_t)>;  ///< names an image of the batch

  [[noreturn]] void stop(const std::string& culprit) const {
    throw NumericError(text("step ", at_.step + 1, ": ", culprit,
                            "; training stopped before the update, the last checkpoint is good"));
  }

  static bool finite(const Scalar* values, std::int64_t n) {
    return std::all_of(values, values + n, [](Scalar v) { return std::isfinite(v); });
  }

  void check_finite(std::span<const loss::LossReport> losses, View<const Scalar> images,
                    const Describe& describe) {
    if (!session_.images_finite() && images.data != nullptr) {
      const std::int64_t pixels = images.size() / images.dim(0);
      std::int64_t i = 0;
      while (finite(images.data + i * pixels, pixels)) ++i;
      stop(text("image ", i, " of the batch has values that are not finite",
                describe ? " (" + describe(static_cast<std::size_t>(i)) + ")" : ""));
    }
    bool fine = session_.gradients_finite();
    for (const auto& l : losses) fine = fine && std::isfinite(l.value);
    if (!fine) stop(culprit(losses));
  }

  std::string culprit(std::span<const loss::LossReport> losses) {
    const auto first_bad = [&](const Scalar* values,
                               std::int64_t ParameterInfo::*at) -> const ParameterInfo* {
      for (const ParameterInfo& p : model_.parameters().entries())
        if (p.kind != ParameterKind::buffer && p.*at >= 0 &&
            !finite(values + p.*at, p.shape.size()))
          return &p;
      return nullptr;
    };
    if (const auto* p = first_bad(model_.trainable().data(), &ParameterInfo::offset))
      return text("parameter ", p->name, " has values that are not finite");
    for (const auto& l : losses)
      if (!std::isfinite(l.value))
        return text("the loss ", l.name, " is ", l.value, "; lower the learning rate");
    const auto* p = first_bad(session_.gradients().data(), &ParameterInfo::gradient_offset);
    if (!session_.rows_updated()) p = model_.parameters().updated_in_tile();
    return text("the gradient of ", p != nullptr ? p->name : "a parameter",
                " has values that are not finite; lower the learning rate");
  }

  /// Throws NumericError if the last update left something that must not be saved.
  void check_state() const {
    const auto demand = [&](const Scalar* values, const ParameterInfo& p, const char* what) {
      if (!finite(values + p.offset, p.shape.size()))
        throw NumericError(text("step ", at_.step, ": after the update ", what, p.name,
                                " has values that are not finite; lower the learning rate; nothing "
                                "was saved, the last checkpoint is good"));
    };
    for (const ParameterInfo& p : model_.parameters().entries()) {
      if (p.kind == ParameterKind::buffer) {
        demand(std::as_const(model_).statistics().data(), p, "statistic ");
        continue;
      }
      demand(std::as_const(model_).trainable().data(), p, "parameter ");
      for (std::size_t k = 0; k < moments_; ++k)
        demand(state_[k].data(), p, "the optimizer's state of ");
    }
  }

  void begin_log() {
    clock_ = Clock{};
    at_.log_losses.resize(static_cast<std::size_t>(model_.loss().entries()));
  }

  void note(std::span<const loss::LossReport> losses, std::int64_t images) {
    for (std::size_t i = 0; i < losses.size(); ++i) at_.log_losses[i] += losses[i].value;
    ++at_.log_batches;
    clock_.images += images;
    ++clock_.batches;
    ++clock_.batches_of_run;
  }

  void report(const FitOptions<Model>& options, std::int64_t batches, const lr::Progress& progress,
              std::span<const loss::LossReport> losses, double reader_cost,
              train::Journal& journal) {
    const auto now = Now::now();
    const double seconds = Seconds(now - clock_.window).count();
    const std::int64_t left = options.epochs * batches - at_.epoch * batches - at_.batch;
    const double eta = Seconds(now - clock_.start).count() /
                       static_cast<double>(clock_.batches_of_run) * static_cast<double>(left);
    const double speed = static_cast<double>(clock_.images) / seconds;
    journal.bar(at_.epoch + 1, options.epochs, at_.batch, batches, speed, eta);
    if (at_.log_batches < options.print_batch_step && at_.batch < batches) return;
    std::vector<loss::LossReport> means(losses.begin(), losses.end());
    for (std::size_t i = 0; i < means.size(); ++i)
      means[i].value = at_.log_losses[i] / static_cast<double>(at_.log_batches);
    train::StepReport r{
        .epoch = at_.epoch + 1,
        .epochs = options.epochs,
        .batch = at_.batch,
        .batches = batches,
        .step = at_.step,
        .rates = {},
        .images_per_second = speed,
        .reader_seconds = (reader_cost - clock_.reader_cost) / static_cast<double>(clock_.batches),
        .eta_seconds = eta,
        .losses = std::move(means)};
    for (const ParameterGroup& g : groups_)
      r.rates.push_back({g.scope, g.schedule.name(), g.schedule.at(progress)});
    last_loss_ = r.loss();
    journal.step(r);
    at_.log_losses.assign(at_.log_losses.size(), 0);
    at_.log_batches = 0;
    clock_.images = clock_.batches = 0;
    clock_.reader_cost = reader_cost;
    clock_.window = now;
  }

  void evaluate(const FitOptions<Model>& options, train::Journal& journal) {
    const bool due = at_.epoch >= options.start_eval_epoch &&
                     (at_.epoch % options.eval_interval == 0 || at_.epoch == options.epochs);
    if (!options.evaluate || !due) return;
    const auto begin = Now::now();
    if (ema_decay_ > 0) swap_average();
    const std::vector<train::Metric> metrics = options.evaluate(model_);
    if (metrics.empty()) throw ConfigError("Trainer: evaluate returned no metric");
    if (std::isfinite(metrics[0].value)) at_.scores.push_back(metrics[0].value);
    if (std::isfinite(metrics[0].value) && metrics[0].value >= at_.best_metric) {
      at_.best_metric = metrics[0].value;
      at_.best_epoch = at_.epoch;
      io::save_weights(
          options.output / "best_model.safetensors", model_.parameters(), model_.trainable().data(),
          model_.statistics().data(),
          {{"epoch", std::to_string(at_.epoch)}, {metrics[0].name, text(metrics[0].value)}});
    }
    if (ema_decay_ > 0) swap_average();
    journal.evaluation(at_.epoch, at_.step, metrics, at_.best_metric);
    const auto spent = Now::now() - begin;  // evaluation does not count as training time
    clock_.start += spent;
    clock_.window += spent;
  }

  void save(const std::filesystem::path& path) const {
    train::save_checkpoint(path, model_, state_, state_name(), at_);
  }

  Model& model_;
  std::vector<ParameterGroup> groups_;
  TrainSession<Model> session_;
  std::vector<std::vector<optim::Range>> ranges_;  // of every group
  std::size_t group_of_rows_ = 0;                  // of the centres of a head with update_in_tile
  std::size_t moments_ = 0;                        // the most that a group has
  std::vector<Array> state_;                       // moments; averages of weights and statistics
  double ema_decay_ = 0;
  train::Position at_;
  Clock clock_;
  double last_loss_ = 0;
};

}  // namespace kindred
