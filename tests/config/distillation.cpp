// A student that learns from a teacher, from YAML: PaddleClas' DistillationModel, its losses, and
// what is refused. The losses are registered by support/config_distillation.cpp.

#include <cmath>

#include "config/small_experiment.hpp"
#include "support/numeric.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

constexpr const char* teacher_arch =
    "{Teacher: {name: RecModel, Backbone: {name: PPLCNet_x0_35, class_expand: 32, dropout_prob: "
    "0}, "
    "BackboneStopLayer: {name: flatten}, Neck: {name: FC, embedding_size: 32, class_num: 16}, "
    "Head: "
    "{name: FC, embedding_size: 16, class_num: 4}}}";
constexpr const char* student_arch =
    "{Student: {Backbone: {name: PPLCNet_x0_25, class_expand: 32, dropout_prob: 0}, "
    "BackboneStopLayer: {name: flatten}, Neck: {name: FC, embedding_size: 32, class_num: 16}, "
    "Head: "
    "{name: ArcMargin, embedding_size: 16, class_num: 4, margin: 0.1, scale: 8}}}";

std::string arch(const std::string& more = "", const std::string& student = student_arch) {
  return text("Arch={name: DistillationModel, models: [", teacher_arch, ", ", student,
              "], pretrained_list: [FOLDER/teacher.safetensors, null], infer_model_name: Student",
              more, "}");
}
std::string losses(const std::string& list) { return "Loss.Train=[" + list + "]"; }

/// A teacher of random weights on the disk.
void write_teacher(const SmallExperiment& small) {
  const auto e =
      small({"Arch={Backbone: {name: PPLCNet_x0_35, class_expand: 32, dropout_prob: 0}, "
             "BackboneStopLayer: {name: flatten}, Neck: {name: FC, embedding_size: 32, "
             "class_num: 16}, Head: {name: FC, embedding_size: 16, class_num: 4}}",
             "Global.seed=11"});
  const config::Model model = e.make_model();
  io::save_weights(small.folder() / "teacher.safetensors", model.parameters(),
                   model.trainable().data(), model.statistics().data());
}

std::string refused_training(const SmallExperiment& small,
                             const std::vector<std::string>& overrides) {
  return small.refused(overrides, [](const auto& e) {
    config::Model model = e.make_model();
    e.train(model, false);
  });
}

}  // namespace

TEST_CASE("YAML distillation: the losses see what the teacher gives, and the student moves") {
  SmallExperiment small;
  write_teacher(small);
  const auto e =
      small({arch(", freeze_params_list: [True, False]"),
             losses("{DistillationGTCELoss: {weight: 1.0, model_names: [Student]}}, "
                    "{DistillationDistanceLoss: {weight: 2.0, mode: l2, key: features, "
                    "model_name_pairs: [[Student, Teacher]]}}, {KLDivLoss: {weight: 0.5, "
                    "temperature: 2}}")});
  config::Model student = e.make_model();
  const config::Model teacher = e.make_teacher_model();
  CHECK(student.feature_size() == 16);
  const auto use = student.loss().teacher_use();
  CHECK((use.features && use.logits));

  // The first step's loss, written out from both models' outputs.
  const auto loader = e.train_loader();
  loader->start(0);
  data::Batch batch;
  REQUIRE(loader->next(batch));
  ModelTeacher<config::Model> of_teacher(teacher, use);
  auto session = student.train_session({.threads = 1});
  session.set_teacher(of_teacher);
  const auto reports = session.forward_backward(batch.images, batch.labels, 0);
  REQUIRE(reports.size() == 3);
  CHECK(std::string(reports[1].name) == "DistanceLoss");
  CHECK(reports[1].weight == 2);
  CHECK(reports[2].weight == 0.5);
  for (const auto& r : reports) CHECK(r.value > 0);

  const std::vector<float> before(student.trainable().begin(), student.trainable().end());
  const FitResult result = e.train(student, false);
  CHECK(result.steps == 4);
  CHECK(std::isfinite(result.loss));
  CHECK_FALSE(std::equal(before.begin(), before.end(), student.trainable().begin()));
  config::Model again = e.make_model();  // the checkpoint is the student's
  CHECK_NOTHROW(config::Experiment::load(again, e.output() / "latest.safetensors"));
}

TEST_CASE("YAML distillation: every loss trains under both names") {
  SmallExperiment small;
  write_teacher(small);
  for (const std::string name : {"CE", "KLDiv", "DML", "Distance", "RKD", "DKD"}) {
    std::vector<double> values;
    for (const std::string prefix : {"Distillation", ""}) {
      const std::string full = name == "CE" && prefix.empty()
                                   ? "CELoss: {weight: 1.0, target: "
                                     "teacher}"
                                   : prefix + name + "Loss: {weight: 1.0}";
      INFO(full);
      const auto e = small(
          {arch(), losses("{" + full + "}"), "Global.epochs=1", "Global.eval_during_train=False"});
      config::Model student = e.make_model();
      values.push_back(e.train(student, false).loss);
      CHECK(std::isfinite(values.back()));
    }
    CHECK(values[0] == values[1]);
  }
}

TEST_CASE("YAML distillation: what does not go together is refused with the fix") {
  SmallExperiment small;
  write_teacher(small);
  const std::string kl = losses("{KLDivLoss: {weight: 1.0}}");
  CHECK_THAT(
      refused_training(small, {kl}),
      ContainsSubstring("a loss compares with a teacher, but there is none; set Arch.name to "
                        "DistillationModel"));
  CHECK_THAT(refused_training(small, {arch()}),
             ContainsSubstring("Arch has a Teacher, but no loss of Loss.Train compares with it"));
  CHECK_THAT(
      refused_training(small, {arch("", std::string(student_arch)
                                            .replace(std::string(student_arch).find("class_num: 4"),
                                                     12, "class_num: 5")),
                               kl}),
      ContainsSubstring("the Teacher has 4 classes, the Student 5"));
  CHECK_THAT(small.refused({arch(", freeze_params_list: [False, False]"), kl}),
             ContainsSubstring("Arch.freeze_params_list: only the Teacher is frozen"));
  CHECK_THAT(small.refused({arch(), "Arch.infer_model_name=Teacher", kl}),
             ContainsSubstring("Arch.infer_model_name: only Student"));
  CHECK_THAT(small.refused({arch(), "Arch.pretrained_list=[null, null]", kl}),
             ContainsSubstring("Arch.pretrained_list: the Teacher needs a safetensors file"));
  CHECK_THAT(small.refused({arch(), "Arch.pretrained_list=[a]", kl}),
             ContainsSubstring("Arch.pretrained_list: expected one file (or null) for each"));
  CHECK_THAT(small.refused({arch(), "Arch.models=[]", kl}),
             ContainsSubstring("Arch.models: expected \"- Teacher: {...}\""));
  CHECK_THAT(small.refused({arch(), "Arch.models.0.Teacher.Heads={}", kl}),
             ContainsSubstring("Arch.models.0.Teacher.Heads: unknown key (did you mean Head?)"));
  CHECK_THAT(small.refused({arch(", model: []"), kl}),
             ContainsSubstring("Arch.model: unknown key"));
  CHECK_THAT(small.refused({arch(), losses("{DistillationDMLLoss: {weight: 1.0, model_name_pairs: "
                                           "[[Student, Student2]]}}")}),
             ContainsSubstring("model_name_pairs: expected [[Student, Teacher]]"));
  CHECK_THAT(small.refused({arch(), losses("{DMLLoss: {weight: 1.0, key: backbone}}")}),
             ContainsSubstring("DMLLoss.key: backbone is none of features, logits"));
  CHECK_THAT(small.refused({arch(), losses("{DKDLoss: {weight: 1.0, temprature: 2}}")}),
             ContainsSubstring("did you mean temperature?"));
  CHECK_THAT(small.refused({arch(), losses("{CELoss: {weight: 1.0, target: soft}}")}),
             ContainsSubstring("CELoss.target: \"soft\" is none of labels, teacher"));
  CHECK_THROWS_AS(
      small({arch(), "Arch.pretrained_list=[nowhere.safetensors, null]", kl}).make_teacher_model(),
      FileError);
}
