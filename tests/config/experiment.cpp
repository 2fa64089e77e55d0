// Whole experiments from YAML: PaddleClas' published layout, data sections, and a short training.

#include <opencv2/imgcodecs.hpp>

#include "io/files.hpp"
#include "rec/experiment.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

// GeneralRecognition_PPLCNet_x2_5.yaml of PaddleClas, in its own layout and with its own values.
const std::string general_recognition = R"(
# global configs
Global:
  checkpoints: null
  pretrained_model: null
  output_dir: ./output/
  device: gpu
  save_interval: 1
  eval_during_train: True
  eval_interval: 1
  epochs: 100
  print_batch_step: 10
  use_visualdl: False
  # used for static mode and model export
  image_shape: [3, 224, 224]
  save_inference_dir: ./inference
  eval_mode: retrieval
  use_dali: False
  to_static: False

AMP:
  use_amp: False
  scale_loss: 128.0
  use_dynamic_loss_scaling: True
  level: O1

Arch:
  name: RecModel
  infer_output_key: features
  infer_add_softmax: False
  Backbone:
    name: PPLCNet_x2_5
    pretrained: True
    use_ssld: True
  BackboneStopLayer:
    name: flatten
  Neck:
    name: FC
    embedding_size: 1280
    class_num: 512
  Head:
    name: ArcMargin
    embedding_size: 512
    class_num: 185341
    margin: 0.2
    scale: 30

# loss function config for training/eval process
Loss:
  Train:
    - CELoss:
        weight: 1.0
  Eval:
    - CELoss:
        weight: 1.0

Optimizer:
  name: Momentum
  momentum: 0.9
  lr:
    name: Cosine
    learning_rate: 0.04
    warmup_epoch: 5
  regularizer:
    name: 'L2'
    coeff: 0.00001

# data loader for train and eval
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: ./dataset/
      cls_label_path: ./dataset/train_reg_all_data.txt
      transform_ops:
        - DecodeImage:
            to_rgb: True
            channel_first: False
        - RandCropImage:
            size: 224
        - RandFlipImage:
            flip_code: 1
        - NormalizeImage:
            scale: 1.0/255.0
            mean: [0.485, 0.456, 0.406]
            std: [0.229, 0.224, 0.225]
            order: ''
    sampler:
      name: DistributedBatchSampler
      batch_size: 256
      drop_last: False
      shuffle: True
    loader:
      num_workers: 4
      use_shared_memory: True
  Eval:
    Query:
      dataset:
        name: VeriWild
        image_root: ./dataset/Aliproduct/
        cls_label_path: ./dataset/Aliproduct/val_list.txt
        transform_ops:
          - DecodeImage:
              to_rgb: True
              channel_first: False
          - ResizeImage:
              size: 224
          - NormalizeImage:
              scale: 0.00392157
              mean: [0.485, 0.456, 0.406]
              std: [0.229, 0.224, 0.225]
              order: ''
      sampler:
        name: DistributedBatchSampler
        batch_size: 64
        drop_last: False
        shuffle: False
      loader:
        num_workers: 4
        use_shared_memory: True
    Gallery:
      dataset:
        name: VeriWild
        image_root: ./dataset/Aliproduct/
        cls_label_path: ./dataset/Aliproduct/val_list.txt
        transform_ops:
          - DecodeImage:
              to_rgb: True
              channel_first: False
          - ResizeImage:
              size: 224
          - NormalizeImage:
              scale: 0.00392157
              mean: [0.485, 0.456, 0.406]
              std: [0.229, 0.224, 0.225]
              order: ''
      sampler:
        name: DistributedBatchSampler
        batch_size: 64
        drop_last: False
        shuffle: False
      loader:
        num_workers: 4
        use_shared_memory: True

Metric:
  Eval:
    - Recallk:
        topk: [1, 5]
    - mAP: {}

Infer:
  infer_imgs: docs/images/recognition/drink_data_demo/test_images/
  batch_size: 10
)";

/// What must be said differently here: the machine, and weights that are not downloaded.
const std::vector<std::string> here{"Global.device=cpu", "Arch.Backbone.pretrained=False"};

/// The files of a small data set: 4 classes of 4 images, of 24 x 24 pixels.
struct Images {
  TemporaryFolder folder;
  Images() {
    std::string list;
    RandomSequence random({3, 0, 0});
    for (int i = 0; i < 16; ++i) {
      cv::Mat image(24, 24, CV_8UC3, cv::Scalar(60 * (i / 4), 255 - 60 * (i / 4), 20 * (i % 4)));
      image.at<cv::Vec3b>(static_cast<int>(random.below(24)), 5) = {255, 255, 255};
      REQUIRE(cv::imwrite((folder / (std::to_string(i) + ".png")).string(), image));
      list += text(i, ".png ", i / 4, "\n");
    }
    write_bytes(folder / "list.txt", list);
  }
};

/// The published file cut down to those images.
std::vector<std::string> small(const Images& images) {
  std::vector<std::string> o = here;
  const std::string folder = images.folder.path().string();
  for (const char* part : {"Train", "Eval.Query", "Eval.Gallery"}) {
    const std::string at = text("DataLoader.", part);
    o.push_back(at + ".dataset.name=ImageNetDataset");
    o.push_back(at + ".dataset.image_root=" + folder);
    o.push_back(at + ".dataset.cls_label_path=" + folder + "/list.txt");
    o.push_back(at + ".dataset.transform_ops.1={ResizeImage: {size: 32}}");
    o.push_back(at + ".sampler.batch_size=8");
    o.push_back(at + ".loader.num_workers=1");
  }
  for (const char* word :
       {"Global.image_shape=[3, 32, 32]", "Global.epochs=2", "Arch.Backbone.name=PPLCNet_x0_25",
        "Arch.Backbone.class_expand=32", "Arch.Neck.embedding_size=32", "Arch.Neck.class_num=16",
        "Arch.Head.embedding_size=16", "Arch.Head.class_num=4", "Optimizer.lr.warmup_epoch=0"})
    o.push_back(word);
  o.push_back("Global.output_dir=" + folder + "/output");
  return o;
}

config::Experiment experiment(const std::vector<std::string>& overrides,
                              const std::string& yaml = general_recognition) {
  TemporaryFolder folder;
  write_bytes(folder / "config.yaml", yaml);
  return config::Experiment(folder / "config.yaml", overrides);
}

std::vector<std::string> with(std::vector<std::string> all, const std::string& more) {
  all.push_back(more);
  return all;
}

/// The ConfigError of reading the published file with one more override.
std::string refused(const std::string& override_) {
  try {
    experiment(with(here, override_));
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("experiment: PaddleClas' GeneralRecognition_PPLCNet_x2_5 is read as it is published") {
  const auto e = experiment(here);
  CHECK(e.image_size().width == 224);
  CHECK(e.output() == "./output/");
  const config::Model model = e.make_model();
  CHECK(model.feature_size() == 512);
  CHECK(model.class_num() == 185341);
  CHECK_FALSE(model.builds_logits());
}

TEST_CASE("experiment: what is not here is refused with the key's name") {
  CHECK_THROWS_WITH(experiment({}),  // the file as it is: it wants a GPU and a download
                    ContainsSubstring("Arch.Backbone.pretrained: nothing is downloaded"));
  CHECK_THAT(refused("Global.device=gpu"),
             ContainsSubstring("Global.device is cuda, but this program computes on cpu"));
  CHECK_THAT(refused("Global.device=cud"), ContainsSubstring("neither cpu nor cuda"));
  CHECK_THAT(refused("AMP.use_amp=True"),
             ContainsSubstring("AMP.dtype: there is no float16; set AMP.dtype to bfloat16"));
  CHECK_THAT(refused("AMP={use_amp: True, dtype: bfloat16, level: O2}"),
             ContainsSubstring("AMP: only level O1"));
  CHECK_THAT(refused("Global.use_dali=True"), ContainsSubstring("Global.use_dali: only False"));
  CHECK_THAT(refused("Global.epoch=7"),
             ContainsSubstring("Global.epoch: unknown key (did you mean epochs?)"));
  CHECK_THAT(refused("Optimiser={}"),
             ContainsSubstring("Optimiser: unknown key (did you mean Optimizer?)"));
  CHECK_THAT(refused("Optimizer.name=Momentun"), ContainsSubstring("did you mean Momentum?"));
  CHECK_THAT(refused("Optimizer.regularizer.name=L1"),
             ContainsSubstring("Optimizer.regularizer: there is no L1"));
  CHECK_THAT(refused("Optimizer.lr.name=Cosin"), ContainsSubstring("did you mean Cosine?"));
  CHECK_THAT(refused("Optimizer.lr.learning_rate=fast"),
             ContainsSubstring("Optimizer.lr.learning_rate: \"fast\" is not a number"));
  CHECK_THAT(refused("Metric.Eval.0.Recallk.top=[1]"),
             ContainsSubstring("Metric.Eval.0.Recallk.top: unknown key (did you mean topk?)"));
  CHECK_THAT(refused("EMA={decy: 0.9}"),
             ContainsSubstring("EMA.decy: unknown key (did you mean decay?)"));
  CHECK_THAT(refused("Global.seed=-1"), ContainsSubstring("Global.seed: \"-1\" is not a whole"));
  CHECK_THAT(refused("Metric.Eval.1={PrecisionK: {}}"),
             ContainsSubstring("did you mean Precisionk?"));
  CHECK_THAT(refused("Global.feature_binarize=signum"),
             ContainsSubstring("Global.feature_binarize: \"signum\" is neither sign nor round"));
  CHECK_THAT(refused("Global.feature_normalise=False"),
             ContainsSubstring("did you mean feature_normalize?"));
  for (const char* shape : {"[3, 224]", "[1, 224, 224]", "[3, 0, 224]", "[3, 224, -5]"})
    CHECK_THAT(refused(text("Global.image_shape=", shape)),
               ContainsSubstring("Global.image_shape: expected [3, height, width]"));
}

TEST_CASE("experiment: Precisionk, codes and re-ranking, by PaddleClas' names") {
  Images images;
  const auto metrics = [&](const std::vector<std::string>& more) {
    std::vector<std::string> o = small(images);
    o.push_back("Metric.Eval.1={Precisionk: {topk: [1, 3]}}");
    o.insert(o.end(), more.begin(), more.end());
    const auto e = experiment(o);
    auto evaluation = e.evaluation();
    // The mean colours of an image, around 0: the channels that tell the classes apart.
    const auto result = evaluation([values = std::vector<float>()](View<const float> x) mutable {
      const std::int64_t area = x.dim(1) * x.dim(2);
      values.assign(static_cast<std::size_t>(3 * x.dim(0)), 0.f);
      for (std::int64_t i = 0; i < x.size(); ++i)
        values[static_cast<std::size_t>(i / (3 * area) * 3 + i % 3)] += x[i] / float(area);
      return View<const float>{values.data(), {x.dim(0), 3}};
    });
    return e.metrics(result);
  };
  const auto plain = metrics({});
  REQUIRE(plain[2].name == "precision1");
  CHECK(plain[2].value == 1);  // every image is in the gallery, too
  CHECK(plain[3].name == "precision3");
  const auto codes = metrics({"Global.feature_binarize=sign"});
  CHECK(codes[4].name == "map");
  CHECK(codes[4].value < plain[4].value);  // three bits cannot tell four such classes apart
  const auto ranked = metrics({"Global.re_ranking=True"});
  CHECK(ranked[4].value > codes[4].value);
  CHECK_THROWS_WITH(metrics({"Global.re_ranking=True", "Global.feature_normalize=False"}),
                    ContainsSubstring("Global.re_ranking compares by cosine"));
}

TEST_CASE("experiment: trains, evaluates, logs and resumes from the published file") {
  Images images;
  const auto e = experiment(small(images));
  config::Model model = e.make_model();
  const FitResult result = e.train(model, false);
  CHECK(result.steps == 4);
  CHECK(result.best_metric >= 0);
  for (const char* file : {"latest.safetensors", "best_model.safetensors", "epoch_1.safetensors",
                           "metrics.jsonl", "train.log"})
    CHECK(std::filesystem::exists(e.output() / file));
  CHECK_THAT(read_bytes(e.output() / "metrics.jsonl"), ContainsSubstring("recall5"));
  config::Model again = e.make_model();
  CHECK(e.train(again, true).steps == 4);
  CHECK(std::equal(model.trainable().begin(), model.trainable().end(), again.trainable().begin()));
}

TEST_CASE("experiment: AMP with bfloat16 trains with activations in BF16") {
  const auto trained = [](const std::vector<std::string>& more) {
    Images images;
    std::vector<std::string> o = small(images);
    o.insert(o.end(), more.begin(), more.end());
    const auto e = experiment(o);
    config::Model model = e.make_model();
    e.train(model, false);
    CHECK(e.evaluation_activations() == Storage::scalar);
    return std::pair(e.activations(),
                     std::vector<float>(model.trainable().begin(), model.trainable().end()));
  };
  const auto full = trained({}), rounded = trained({"AMP={use_amp: True, dtype: bfloat16}"});
  CHECK(full.first == Storage::scalar);
  CHECK(rounded.first == Storage::bf16);
  CHECK(rounded.second != full.second);
}

TEST_CASE("experiment: AMP.use_fp16_test evaluates in BF16") {
  Images images;
  const auto e =
      experiment(with(small(images), "AMP={use_amp: True, dtype: bfloat16, use_fp16_test: True}"));
  CHECK(e.evaluation_activations() == Storage::bf16);
  config::Model model = e.make_model();
  CHECK(e.train(model, false).steps == 4);  // evaluates after every epoch
}

TEST_CASE("experiment: groups of parameters and the moving average of weights") {
  Images images;
  const auto settings = with(with(small(images), "EMA={decay: 0.9}"),
                             "Optimizer=[{Adam: {scope: backbone, lr: {learning_rate: 0.001}}}, "
                             "{SGD: {scope: neck, lr: {learning_rate: 0.1}}}, "
                             "{SGD: {scope: head, lr: {learning_rate: 0.2}}}]");
  const auto e = experiment(settings);
  config::Model model = e.make_model();
  CHECK(e.train(model, false).steps == 4);
  const std::string journal = read_bytes(e.output() / "metrics.jsonl");
  CHECK_THAT(journal, ContainsSubstring("\"lr\":0.001"));
  CHECK_THAT(journal, ContainsSubstring("\"lr(head)\":0.2"));
  config::Model best = e.make_model();
  config::Experiment::load(best, e.output() / "best_model.safetensors");
  CHECK_FALSE(std::equal(model.trainable().begin(), model.trainable().end(),
                         best.trainable().begin()));  // the average
  CHECK_THROWS_WITH(experiment(with(small(images),
                                    "Optimizer=[{SGD: {scope: neck, lr: "
                                    "{learning_rate: 0.1}}}]"))
                        .train(model, false),
                    ContainsSubstring("Optimizer: no scope has backbone."));
}

TEST_CASE("experiment: labels beyond class_num, and mistakes in DataLoader, are named") {
  Images images;
  const auto refused_training = [&](const std::string& override_) {
    try {
      const auto e = experiment(with(small(images), override_));
      config::Model model = e.make_model();
      e.train(model, false);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("nothing was thrown");
  };
  CHECK_THAT(
      refused_training("Arch.Head.class_num=3"),
      ContainsSubstring("Arch.Head.class_num is 3, but the labels of DataLoader.Train need 4"));
  CHECK_THAT(refused_training("DataLoader.Train.dataset.name=ImageNetDatset"),
             ContainsSubstring("DataLoader.Train.dataset: there is no ImageNetDatset (did you mean "
                               "ImageNetDataset?)"));
  CHECK_THAT(refused_training("DataLoader.Train.dataset.transform_ops.2={RandFlipImages: {}}"),
             ContainsSubstring("DataLoader.Train.dataset.transform_ops.2.RandFlipImages: there is "
                               "no RandFlipImages (did you mean RandFlipImage?)"));
  CHECK_THAT(
      refused_training("DataLoader.Train.dataset.transform_ops.1.ResizeImage.sizes=3"),
      ContainsSubstring("transform_ops.1.ResizeImage.sizes: unknown key (did you mean size?)"));
  CHECK_THAT(refused_training("DataLoader.Train.sampler.batch_size=-8"),
             ContainsSubstring("DataLoader.Train.sampler.batch_size"));
  CHECK_THAT(refused_training("DataLoader.Train.sampler.name=PKSampler"),
             ContainsSubstring("DataLoader.Train.sampler.sample_per_id is missing"));
  CHECK_THAT(refused_training("DataLoader.Train.loader.workers=3"),
             ContainsSubstring("DataLoader.Train.loader.workers: unknown key"));
  CHECK_THAT(refused_training("DataLoader.Train.samplers={}"),
             ContainsSubstring("DataLoader.Train.samplers: unknown key (did you mean sampler?)"));
  CHECK_THAT(refused_training("DataLoader.Trains={}"),
             ContainsSubstring("DataLoader.Trains: unknown key (did you mean Train?)"));
  CHECK_THAT(refused_training("DataLoader.Eval.Queries={}"),
             ContainsSubstring("DataLoader.Eval.Queries: unknown key"));
}
