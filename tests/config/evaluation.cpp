// Metric.Eval beyond retrieval, query expansion, and samplers, from YAML: the numbers of the
// functions they name, and what is refused.

#include <map>

#include "config/small_experiment.hpp"

using namespace kindred;
using namespace kindred::test;

namespace {

struct Measured {
  eval::RetrievalResult retrieval;
  std::map<std::string, double> further;
  std::optional<eval::ClassReport> report;
  data::FeatureTable table;  ///< of the queries, as they were compared
};

Measured measure(const SmallExperiment& small, const std::vector<std::string>& overrides) {
  const auto e = small(overrides);
  auto evaluation = e.evaluation();
  Measured out;
  out.retrieval = evaluation(MeanColours{});
  for (const auto& metric : evaluation.further()) out.further[metric.name] = metric.value;
  out.report = evaluation.class_report();
  out.table = evaluation.query_features();
  return out;
}

std::string entry(const std::string& more) {
  return "Metric.Eval=[{Recallk: {topk: [1, 2]}}, " + more + "]";
}

}  // namespace

TEST_CASE("YAML metrics: clustering is NMI and AMI over k-means of normalised features") {
  SmallExperiment small;
  const Measured m = measure(small, {entry("{Clustering: {max_iterations: 7}}")});
  std::vector<float> unit = m.table.values;
  eval::detail::normalize_rows(m.table.size(), m.table.width, unit.data(), unit.data());
  const auto expected =
      eval::evaluate_clustering({.features = {unit.data(), {16, 3}}, .labels = m.table.labels},
                                {.max_iterations = 7, .seed = Seed{5}});
  CHECK(m.further.at("nmi") == expected.nmi);
  CHECK(m.further.at("ami") == expected.ami);
  CHECK(m.further.size() == 2);
  CHECK_THAT(small.refused({entry("{Clustering: {max_iterations: 0}}")}),
             ContainsSubstring("Metric.Eval.1.Clustering.max_iterations: must be at least 1"));
}

TEST_CASE("YAML metrics: verification over all pairs, and over listed ones in folds") {
  SmallExperiment small;
  const Measured all = measure(small, {entry("{Verification: {far: [0.01, 0.2]}}")});
  const auto roc = eval::roc_curve(
      eval::all_pairs({.features = all.table.features(), .labels = all.table.labels}));
  CHECK(all.further.at("tar_at_far_0.01") == eval::tar_at_far(roc, 0.01).tar);
  CHECK(all.further.at("tar_at_far_0.2") == eval::tar_at_far(roc, 0.2).tar);
  CHECK(all.further.at("auc") == roc.auc);
  CHECK(all.further.at("equal_error_rate") == roc.equal_error_rate);
  CHECK(all.further.at("genuine_pairs") == 4 * 6);
  CHECK(all.further.at("impostor_pairs") == 16 * 15 / 2 - 24);
  const Measured few = measure(small, {entry("{Verification: {images: 8}}")});
  CHECK(few.further.at("genuine_pairs") == 4);  // two of each class
  CHECK(few.further.count("tar_at_far_0.001") == 1);

  std::string pairs;  // images 0 and 1, 2 and 6, ...: alike and not alike by turns
  for (int i = 0; i < 8; ++i)
    pairs += text(i, ".png ", i / 4, "\n", i % 2 == 0 ? i / 2 + 4 * (i / 4) : (i + 8) % 16, ".png ",
                  (i % 2 == 0 ? i / 2 + 4 * (i / 4) : (i + 8) % 16) / 4, "\n");
  write_bytes(small.folder() / "pairs.txt", pairs);
  const Measured listed = measure(small, {"DataLoader.Eval.dataset.cls_label_path=FOLDER/pairs.txt",
                                          entry("{PairVerification: {folds: 4, far: [0.25]}}")});
  std::vector<float> distances;
  std::vector<bool> genuine;
  const auto cosines = eval::pair_cosines(listed.table.features());
  for (std::size_t i = 0; i < cosines.size(); ++i) {
    distances.push_back(2 - 2 * cosines[i]);
    genuine.push_back(listed.table.labels[2 * i] == listed.table.labels[2 * i + 1]);
  }
  REQUIRE(genuine.size() == 8);
  const auto folds = eval::fold_accuracy(distances, genuine, 4);
  CHECK(listed.further.at("fold_accuracy") == folds.mean);
  CHECK(listed.further.at("fold_deviation") == folds.deviation);
  CHECK(listed.further.at("tar_at_far_0.25") ==
        eval::tar_at_far(eval::roc_curve({cosines, genuine}), 0.25).tar);
  CHECK_THAT(small.refused({entry("{Verification: {far: [2]}}")}),
             ContainsSubstring("Metric.Eval.1.Verification.far: 2 is no rate in [0, 1]"));
}

TEST_CASE("YAML metrics: codes by Hamming distance, ties in expectation") {
  SmallExperiment small;
  const std::vector<std::string> sign{"Global.feature_binarize=sign",
                                      entry("{Hamming: {topk: [1, 3], radius: 1}}")};
  const Measured m = measure(small, sign);
  const auto codes = eval::pack_codes(m.table.features());
  const eval::CodeSet set{
      .codes = {codes.data(), {16, 1}}, .labels = m.table.labels, .ids = m.table.ids};
  const auto expected = eval::evaluate_hamming(set, set, {.recall_at = {1, 3}, .radius = 1});
  CHECK(m.further.at("hamming_map") == expected.mAP);
  CHECK(m.further.at("hamming_recall3") == expected.recall[1]);
  CHECK(m.further.at("precision_in_radius1") == expected.precision_in_radius);
  CHECK(m.further.at("recall_in_radius1") == expected.recall_in_radius);
  CHECK(m.further.at("hamming_map") != m.retrieval.mAP);  // which breaks ties by index
  CHECK_THAT(small.refused({entry("{Hamming: {}}")}),
             ContainsSubstring("Metric.Eval.1.Hamming: there are no codes; set "
                               "Global.feature_binarize"));
}

TEST_CASE("YAML metrics: the report of classes, its means and its table") {
  SmallExperiment small;
  const Measured m = measure(small, {entry("{ClassReport: {}}")});
  REQUIRE(m.report);
  CHECK(m.report->labels == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(m.further.at("class_mean_map") == m.report->macro.mAP);
  CHECK(m.further.at("class_mean_recall2") == m.report->macro.recall[1]);
  const std::string table = config::class_table(*m.report);
  CHECK_THAT(table, ContainsSubstring("label\tqueries\trecall1\tmap\tmap_at_r\n"));
  CHECK(std::count(table.begin(), table.end(), '\n') == 5);
  CHECK_FALSE(measure(small, {}).report);
}

TEST_CASE("YAML metrics: top-k accuracy of logits, over all batches") {
  SmallExperiment small;
  const auto e = small({"Metric.Eval=[{TopkAcc: {topk: [1, 2]}}, {Recallk: {}}]",
                        "DataLoader.Eval.sampler.batch_size=5"});
  auto evaluation = e.evaluation();
  // The right class leads in the first images of a class, stands second in the others.
  std::size_t image = 0;
  std::vector<float> logits;
  const auto got = evaluation.classify([&](View<const float> x) {
    logits.assign(static_cast<std::size_t>(4 * x.dim(0)), 0.f);
    for (std::int64_t i = 0; i < x.dim(0); ++i, ++image) {
      float* row = logits.data() + 4 * i;
      row[image / 4] = 1;
      if (image % 4 == 3) row[(image / 4 + 1) % 4] = 2;
    }
    return View<const float>{logits.data(), {x.dim(0), 4}};
  });
  REQUIRE(image == 16);
  REQUIRE(got.size() == 2);
  CHECK(got[0].name == "top1");
  CHECK(got[0].value == Approx(0.75));
  CHECK(got[1].value == Approx(1));
  CHECK(small().evaluation().classify(MeanColours{}).empty());
  CHECK_THROWS_AS(evaluation.classify(MeanColours{}), DataError);  // three classes, label 3
}

TEST_CASE("YAML: query expansion, of one set and of a gallery of its own") {
  SmallExperiment small;
  const Measured plain = measure(small, {});
  const Measured expanded = measure(small, {"Global.query_expansion={k: 2, alpha: 1}"});
  const auto set = plain.table.with_ids();
  const auto values = eval::alpha_query_expansion(set, set, 2, 1);
  auto query = set;
  query.features.data = values.data();
  const auto expected = eval::evaluate_retrieval(query, set);
  CHECK(expanded.retrieval.mAP == expected.mAP);
  CHECK(expanded.retrieval.mINP == expected.mINP);
  CHECK_THAT(small.refused({"Global.query_expansion={k: 2}", "Global.feature_normalize=False"}),
             ContainsSubstring("Global.query_expansion compares by cosine"));
  CHECK_THAT(small.refused({"Global.query_expansion={q: 2}"}),
             ContainsSubstring("Global.query_expansion.q: unknown key"));
  CHECK_THAT(small.refused({entry("{Clusterin: {}}")}),
             ContainsSubstring("there is no Clusterin (did you mean Clustering?)"));
}

namespace {

/// The batches of the first epoch, as labels.
std::vector<std::vector<std::int64_t>> batches(const SmallExperiment& small,
                                               const std::vector<std::string>& overrides) {
  const auto loader = small(overrides).train_loader();
  std::vector<std::vector<std::int64_t>> all;
  loader->start(0);
  data::Batch batch;
  while (loader->next(batch)) all.emplace_back(batch.labels.begin(), batch.labels.end());
  return all;
}
std::string sampler(const std::string& settings) {
  return "DataLoader.Train.sampler={" + settings + "}";
}
std::string refused_loader(const SmallExperiment& small,
                           const std::vector<std::string>& overrides) {
  return small.refused(overrides, [](const auto& e) { e.train_loader()->start(0); });
}
const std::string mixed =
    "DataLoader.Train.dataset={name: MixDataset, datasets_config: [{name: ImageNetDataset, "
    "image_root: FOLDER, cls_label_path: FOLDER/first.txt}, {name: ImageNetDataset, image_root: "
    "FOLDER, cls_label_path: FOLDER/second.txt}], transform_ops: [{ResizeImage: {size: 32}}, "
    "{NormalizeImage: {}}]}";

}  // namespace

TEST_CASE("YAML samplers: MixSampler takes its share of every part of a MixDataset") {
  SmallExperiment small;
  const auto all = batches(
      small, {mixed, sampler("name: MixSampler, batch_size: 6, iter_per_epoch: 5, sample_configs: "
                             "[{name: PKSampler, ratio: 0.7, sample_per_id: 2}, {name: "
                             "BatchSampler, ratio: 0.3, shuffle: True}]")});
  REQUIRE(all.size() == 5);
  for (const auto& labels : all) {
    REQUIRE(labels.size() == 6);
    for (std::size_t i = 0; i < 6; ++i) CHECK((labels[i] < 2) == (i < 4));  // int(6 * 0.7)
    CHECK(labels[0] == labels[1]);
    CHECK(labels[0] != labels[2]);
  }
  const std::string one = "name: MixSampler, batch_size: 6, iter_per_epoch: 5, sample_configs: [";
  CHECK_THAT(refused_loader(small, {mixed, sampler(one + "{name: BatchSampler, ratio: 0.5}]")}),
             ContainsSubstring("sample_configs: 1 samplers for 2 parts of the data set"));
  CHECK_THAT(refused_loader(small, {sampler(one + "{name: BatchSampler, ratio: 0.5}, {name: "
                                                  "BatchSampler, ratio: 0.5}]")}),
             ContainsSubstring("the data set has 1 parts; name a MixDataset"));
  CHECK_THAT(refused_loader(small, {mixed, sampler(one + "{name: BatchSampler, ratio: 1.5}]")}),
             ContainsSubstring("sample_configs.0.ratio: 1.5 is not in (0, 1]"));
  CHECK_THAT(refused_loader(small, {mixed, sampler(one + "{name: BatchSampler, ratio: 1, shufle: "
                                                         "True}]")}),
             ContainsSubstring("sample_configs.0.shufle: unknown key (did you mean shuffle?)"));
}

TEST_CASE("YAML samplers: HierarchicalSampler reads super-classes from a list of their own") {
  SmallExperiment small;
  const std::string base =
      "name: HierarchicalSampler, batch_size: 8, samples_per_class: 2, batches_per_super_tuple: 3, "
      "super_classes_per_batch: 1";
  const auto all = batches(small, {sampler(base + ", super_label_path: FOLDER/supers.txt")});
  REQUIRE(all.size() == 6);  // two super-classes
  for (const auto& labels : all)
    for (const std::int64_t label : labels) CHECK(label / 2 == labels[0] / 2);
  CHECK_THAT(refused_loader(small, {sampler(base)}),
             ContainsSubstring("DataLoader.Train.sampler.super_label_path is missing"));
  CHECK_THAT(refused_loader(small, {sampler(base + ", super_label_path: FOLDER/first.txt")}),
             ContainsSubstring("8 super_labels for 16 images"));
}

TEST_CASE("YAML samplers: PKSampler's method and ratios") {
  SmallExperiment small;
  const auto all = batches(small, {sampler("name: PKSampler, batch_size: 4, sample_per_id: 2, "
                                           "sample_method: id_avg_prob, id_list: [0, 1], ratio: "
                                           "[0]")});
  REQUIRE(all.size() == 4);
  for (const auto& labels : all)
    for (const std::int64_t label : labels) CHECK(label >= 2);
  CHECK_THAT(refused_loader(small, {sampler("name: PKSampler, batch_size: 4, sample_per_id: 2, "
                                            "sample_method: id_prob")}),
             ContainsSubstring("id_prob is none of id_avg_prob, sample_avg_prob"));
}
