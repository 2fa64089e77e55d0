#pragma once
// A whole experiment from one YAML file: model, data, optimizer, schedule, evaluation.

#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kindred/config/data.hpp>
#include <kindred/config/metrics.hpp>
#include <kindred/config/model.hpp>
#include <kindred/config/optimizer.hpp>
#include <kindred/config/section.hpp>
#include <kindred/data/features.hpp>
#include <kindred/io/weights.hpp>
#include <kindred/model/teacher.hpp>
#include <kindred/train/trainer.hpp>

namespace kindred::config {

/// Model, data and training that a file describes. Sections as in PaddleClas: Global, Arch, Loss,
/// Optimizer, EMA, DataLoader, Metric. The model computes on Device: Cpu, or Cuda in a file that
/// includes kindred.cuh before this header.
template <class Device = Cpu>
class BasicExperiment {
 public:
  using Model = ModelOn<Device>;
  /// Images are normalised by the device, which takes a quarter of the time to reach it.
  static constexpr bool on_gpu = !std::is_same_v<Device, Cpu>;

  /// Reads and checks the whole file. Throws ConfigError that names the key, with the fix.
  BasicExperiment(const std::filesystem::path& file, const std::vector<std::string>& overrides)
      : root_(Section::load(file, overrides)),
        model_config_(config::model<Device>(root_)),
        teacher_(config::teacher<Device>(root_)),
        pretrained_(config::pretrained(root_)) {
    read_global(root_.section("Global"));
    if (root_.has("Optimizer")) groups_ = optimizers(root_);
    if (root_.has("EMA")) {
      const Section s = root_.section("EMA");
      options_.ema_decay = s.get("decay", 0.9999);
      s.finish();
    }
    if (root_.has("Metric")) read_metric(root_.section("Metric"));
    if (root_.has("DataLoader")) {
      const Section s = root_.section("DataLoader");
      for (const char* key : {"Train", "Eval"}) s.accept(key);  // read when they are used
      s.finish();
    }
    if (root_.has("AMP")) read_mixed_precision(root_.section("AMP"));
    root_.accept("Infer");  // of PaddleClas' programs for single images
    root_.finish();
  }

  /// The network with the pretrained backbone, if the file names one; of a DistillationModel the
  /// Student, with the weights that pretrained_list names for it.
  Model make_model() const {
    Model model(model_config_, seed_);
    if (const auto file = detail::architecture(root_).student_weights; !file.empty())
      load(model, file);
    if (!pretrained_.empty()) {
      const auto report = io::load_weights(pretrained_, model.parameters(),
                                           model.trainable().data(), model.statistics().data(),
                                           {.mode = io::LoadMode::matching, .prefix = "backbone."});
      if (report.loaded.empty())
        throw FileError(text(pretrained_, ": none of its names is one of this model's; ",
                             "they must begin with backbone."));
      std::cerr << pretrained_ << ": " << report.loaded.size()
                << " parameters of the backbone loaded\n";
    }
    return model;
  }
  /// Loads Global.pretrained_model or `file` into the whole model.
  static void load(Model& model, const std::filesystem::path& file) {
    io::load_weights(file, model.parameters(), model.trainable().data(), model.statistics().data());
  }

  std::unique_ptr<data::Loader> train_loader() const {
    return loader(root_.section("DataLoader").section("Train"), image_, seed_, Purpose::train,
                  &Device::allocate_results, on_gpu);
  }

  using Metrics = config::Metrics;

  /// The evaluation loaders, made once and used for every evaluation.
  class Evaluation {
   public:
    Evaluation(const BasicExperiment& experiment) : metrics_(experiment.metrics_) {
      const Section eval = experiment.root_.section("DataLoader").section("Eval");
      const auto make = [&](const Section& s) {
        return loader(s, experiment.image_, experiment.seed_, Purpose::evaluate,
                      &Device::allocate_results, on_gpu);
      };
      if (eval.has("Query") && eval.has("Gallery")) {
        query_ = make(eval.section("Query"));
        gallery_ = make(eval.section("Gallery"));
        eval.finish();
      } else if (eval.has("Query")) {
        query_ = make(eval.section("Query"));
        eval.finish();
      } else {
        query_ = make(eval);
      }
    }

    data::Loader& query() { return *query_; }
    data::Loader* gallery() { return gallery_.get(); }
    const std::vector<std::int64_t>& recall_at() const { return metrics_.recall_at; }

    /// Metrics of any function from images [B,H,W,3] to features [B,D].
    template <class F>
    eval::RetrievalResult operator()(F&& features, const data::FeatureProgress& progress = {}) {
      query_features_ = extract(*query_, features, progress);
      if (gallery_) gallery_features_ = extract(*gallery_, features, progress);
      const data::FeatureTable* gallery = gallery_ ? &gallery_features_ : nullptr;
      const auto result = compare_features<Device>(metrics_, query_features_, gallery);
      class_report_.reset();
      if (metrics_.class_report) class_report_ = eval::class_report(result, query_features_.labels);
      further_ = further_metrics(metrics_, query_features_, gallery, class_report_);
      return result;
    }
    /// TopkAcc of the queries for any function from images [B,H,W,3] to logits [B,C]; nothing where
    /// Metric.Eval does not ask for it. Throws DataError for a label that is no class.
    template <class F>
    std::vector<train::Metric> classify(F&& logits) {
      const auto& ranks = metrics_.top_k_accuracy;
      if (ranks.empty()) return {};
      std::vector<double> right(ranks.size(), 0);
      double rows = 0;
      data::Batch batch;
      for (query_->start(0); query_->next(batch);) {
        const auto size = static_cast<double>(batch.size());
        const auto one = eval::topk_accuracy(logits(batch.images), batch.labels, ranks);
        for (std::size_t i = 0; i < ranks.size(); ++i) right[i] += size * one.accuracy[i];
        rows += size;
      }
      std::vector<train::Metric> out;
      for (std::size_t i = 0; i < ranks.size(); ++i)
        out.push_back({text("top", ranks[i]), right[i] / rows});
      return out;
    }
    /// Of the last evaluation: what Metric.Eval asks for beyond retrieval, and its ClassReport.
    const std::vector<train::Metric>& further() const { return further_; }
    const std::optional<eval::ClassReport>& class_report() const { return class_report_; }
    /// Features of the last evaluation.
    const data::FeatureTable& query_features() const { return query_features_; }
    const data::FeatureTable& gallery_features() const { return gallery_features_; }

   private:
    /// Features as they are compared: PaddleClas, too, normalises before it makes codes.
    template <class F>
    data::FeatureTable extract(data::Loader& loader, F&& features,
                               const data::FeatureProgress& progress) const {
      data::FeatureTable table = data::extract_features(loader, features, progress);
      if (!metrics_.binarize) return table;
      if (metrics_.normalize)
        eval::detail::normalize_rows(table.size(), table.width, table.values.data(),
                                     table.values.data());
      table.values = eval::binarize(table.features(), *metrics_.binarize);
      return table;
    }

    Metrics metrics_;
    std::unique_ptr<data::Loader> query_, gallery_;
    data::FeatureTable query_features_, gallery_features_;
    std::vector<train::Metric> further_;
    std::optional<eval::ClassReport> class_report_;
  };
  Evaluation evaluation() const { return Evaluation(*this); }

  /// A loader of one image with the transforms of the evaluation's queries.
  std::unique_ptr<data::Loader> evaluation_loader_for(const std::filesystem::path& image) const {
    Section eval = root_.section("DataLoader").section("Eval");
    if (eval.has("Query")) eval = eval.section("Query");
    const Section dataset = eval.section("dataset");
    return std::make_unique<data::Loader>(
        data::ImageList({}, {{.path = image.string()}}), data::BatchSampler{.batch_size = 1},
        data::Pipeline(image_, detail::transforms(dataset)), seed_,
        data::LoaderConfig{.num_workers = 0, .on_unreadable = data::OnUnreadable::drop});
  }

  /// The metrics as Trainer logs them; the first, recall1, selects the best model.
  static std::vector<train::Metric> metrics(const eval::RetrievalResult& r) {
    return metrics_of(r);
  }

  /// Trains as the file says. Throws ConfigError without sections Optimizer and DataLoader.Train.
  FitResult train(Model& model, bool resume) const {
    if (!root_.has("Optimizer")) throw ConfigError("Optimizer is missing");
    const auto loader = train_loader();
    if (const std::string warning = loader->warning(); !warning.empty())
      std::cerr << "warning: " << warning << '\n';
    if (loader->list().class_num() > model.class_num())
      throw ConfigError(text("Arch.Head.class_num is ", model.class_num(), ", but the labels of ",
                             "DataLoader.Train need ", loader->list().class_num()));
    FitOptions<Model> options = options_;
    options.resume = resume;
    std::unique_ptr<Evaluation> evaluation;
    if (evaluates_) {
      evaluation = std::make_unique<Evaluation>(*this);
      options.evaluate = [this, &evaluation](const Model& m) {
        auto session = m.session({.activations = evaluation_activations_});
        auto all = metrics((*evaluation)([&](const auto& x) { return session.features(x); }));
        all.insert(all.end(), evaluation->further().begin(), evaluation->further().end());
        for (auto& top :
             evaluation->classify([&](View<const float> x) { return session.logits(x); }))
          all.push_back(std::move(top));
        return all;
      };
    }
    Trainer trainer(model, groups_, {.activations = activations_});
    Distillation distillation = make_teacher(model);
    if (distillation.teacher) trainer.session().set_teacher(*distillation.teacher);
    const FitResult result = trainer.fit(*loader, options);
    if (loader->unreadable().total() > 0) std::cerr << loader->unreadable() << '\n';
    return result;
  }

  /// The teacher's network with its weights. Throws ConfigError unless the file has one.
  Model make_teacher_model() const {
    if (!teacher_) throw ConfigError("Arch: there is no Teacher; see DistillationModel");
    Model model(teacher_->model, seed_);
    load(model, teacher_->weights);
    return model;
  }

  /// How training and sessions of inference store their activations: AMP.
  Storage activations() const { return activations_; }
  Storage evaluation_activations() const { return evaluation_activations_; }
  const std::filesystem::path& output() const { return options_.output; }
  std::optional<eval::Binarize> binarization() const { return metrics_.binarize; }
  data::ImageSize image_size() const { return image_; }
  Seed seed() const { return seed_; }

 private:
  /// The teacher in the memory of its session.
  struct Distillation {
    std::unique_ptr<Model> model{};
    std::unique_ptr<ModelTeacher<Model>> teacher{};
  };

  /// Empty where there is none. Throws ConfigError if the losses and the file do not agree on it.
  Distillation make_teacher(const Model& student) const {
    const loss::TeacherUse use = student.loss().teacher_use();
    if (!teacher_ && use.any())
      throw ConfigError(
          "Loss.Train: a loss compares with a teacher, but there is none; set Arch.name to "
          "DistillationModel, with models Teacher and Student");
    if (!teacher_) return {};
    if (!use.any())
      throw ConfigError(
          "Arch has a Teacher, but no loss of Loss.Train compares with it; add one, such as "
          "KLDivLoss");
    Distillation out{std::make_unique<Model>(make_teacher_model())};
    if (use.logits && out.model->class_num() != student.class_num())
      throw ConfigError(text("Arch.models: the Teacher has ", out.model->class_num(),
                             " classes, the Student ", student.class_num(),
                             "; a loss compares their logits"));
    out.teacher = std::make_unique<ModelTeacher<Model>>(*out.model, use);
    return out;
  }

  void read_global(const Section& s) {
    options_.epochs = s.get("epochs", options_.epochs);
    options_.output = s.get<std::string>("output_dir", "output");
    options_.update_freq = s.get("update_freq", options_.update_freq);
    options_.print_batch_step = s.get("print_batch_step", options_.print_batch_step);
    options_.save_interval = s.get("save_interval", options_.save_interval);
    options_.save_every_steps = s.get("save_every_steps", options_.save_every_steps);
    options_.eval_interval = s.get("eval_interval", options_.eval_interval);
    options_.start_eval_epoch = s.get("start_eval_epoch", options_.start_eval_epoch);
    evaluates_ = s.get("eval_during_train", true);
    seed_ = Seed{s.get<std::uint64_t>("seed", 42)};
    detail::read_comparison(s, metrics_);
    metrics_.seed = seed_;
    const auto shape = s.get<std::vector<int>>("image_shape", {3, 224, 224});
    if (shape.size() != 3 || shape[0] != 3 || shape[1] < 1 || shape[2] < 1)
      throw ConfigError("Global.image_shape: expected [3, height, width]");
    image_.height = shape[1];
    image_.width = shape[2];
    for (const char* key : {"device", "use_visualdl", "save_inference_dir", "checkpoints",
                            "pretrained_model", "eval_mode", "retrieval_feature_from"})
      s.accept(key);
    check_device(s);
    for (const auto& [key, only] :
         {std::pair("eval_mode", "retrieval"), std::pair("retrieval_feature_from", "features")})
      if (s.has(key) && s.get<std::string>(key) != only)
        throw ConfigError(text("Global.", key, ": only \"", only, "\" is there"));
    for (const char* key : {"use_dali", "to_static"})
      if (s.get(key, false)) throw ConfigError(text("Global.", key, ": only False is there"));
    s.finish();
  }
  /// The device is a matter of the program; a file that asks for another is not run on this one.
  static void check_device(const Section& s) {
    auto device = s.get<std::string>("device", Device::name);
    if (device == "gpu") device = "cuda";  // PaddleClas' word
    if (device == Device::name) return;
    if (device != "cpu" && device != "cuda")
      throw ConfigError(text("Global.device: \"", device, "\" is neither cpu nor cuda (gpu)"));
    throw ConfigError(text("Global.device is ", device, ", but this program computes on ",
                           Device::name, "; use ",
                           device == "cpu" ? "Experiment (of the examples: rec)"
                                           : "BasicExperiment<Cuda> (of the examples: rec_cuda, "
                                             "which is built where nvcc is found)"));
  }
  /// Of mixed precision there is Storage::bf16, AMP: {use_amp: True, dtype: bfloat16}, which needs
  /// no scale of the loss; use_fp16_test: True is the same for inference. In PaddleClas the section
  /// alone turns mixed precision on, with products in FP16: without dtype it is refused. Level O2
  /// is, too: parameters stay in FP32.
  void read_mixed_precision(const Section& s) {
    for (const char* key : {"scale_loss", "use_dynamic_loss_scaling", "use_promote"}) s.accept(key);
    const auto dtype = s.get<std::string>("dtype", "float16");
    const auto level = s.get<std::string>("level", "O1");
    const bool on = s.get("use_amp", true), fp16_test = s.get("use_fp16_test", false);
    s.finish();
    if (!on) return;
    if (dtype != "bfloat16")
      throw ConfigError(text("AMP.dtype: there is no ", dtype,
                             "; set AMP.dtype to bfloat16, which ",
                             "needs no scale of the loss, or AMP.use_amp to False"));
    if (level != "O1") throw ConfigError("AMP: only level O1 is there: parameters are FP32");
    check_storage<typename Model::Context, typename Model::Scalar>("AMP", Storage::bf16);
    activations_ = Storage::bf16;
    if (fp16_test) evaluation_activations_ = Storage::bf16;
  }
  void read_metric(const Section& s) {
    s.accept("Train");
    s.for_each("Eval", [&](const std::string& name, const Section& m) {
      detail::read_metric(name, m, metrics_);
    });
    s.finish();
  }

  Section root_;
  typename Model::Config model_config_;
  std::optional<TeacherConfig<Device>> teacher_;
  std::string pretrained_;
  FitOptions<Model> options_;
  std::vector<train::ParameterGroup<>> groups_;
  bool evaluates_ = true;
  Storage activations_ = Storage::scalar, evaluation_activations_ = Storage::scalar;
  data::ImageSize image_;
  Seed seed_;
  Metrics metrics_;
};

using Experiment = BasicExperiment<>;

}  // namespace kindred::config
