#pragma once
// What is measured on the features of an evaluation, and how they are compared, described in YAML:
// the section Metric.Eval and some keys of Global. Recallk, Precisionk, mAP and mINP are
// PaddleClas'; the other names are this library's.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <kindred/config/section.hpp>
#include <kindred/data/features.hpp>
#include <kindred/eval/binary_codes.hpp>
#include <kindred/eval/class_report.hpp>
#include <kindred/eval/classification.hpp>
#include <kindred/eval/clustering.hpp>
#include <kindred/eval/hamming.hpp>
#include <kindred/eval/re_ranking.hpp>
#include <kindred/eval/retrieval.hpp>
#include <kindred/eval/verification.hpp>
#include <kindred/train/progress.hpp>

namespace kindred::config {

/// Settings of an evaluation.
///   Global: feature_normalize, feature_binarize, re_ranking (with PaddleClas' k1 20, k2 6, lambda
///   0.3), query_expansion: {k, alpha}: the queries are expanded from the gallery before they are
///   compared.
///   Metric.Eval: - Recallk: {topk}, - Precisionk: {topk}, - mAP, - mINP; and of the queries alone
///     - TopkAcc: {topk}                  of the logits, where the queries' labels are classes of
///                                        the head
///     - Clustering: {max_iterations}     NMI and AMI over k-means, as many clusters as classes
///     - Verification: {far, images}      TAR at those FAR, equal error rate, AUC over all pairs of
///                                        at most so many images, evenly chosen from the list
///     - PairVerification: {folds, far}   the list is of pairs, images 2i and 2i + 1: accuracy over
///                                        folds, TAR at those FAR
///     - ClassReport: {}                  means over classes, and a table of all classes
///     - Hamming: {topk, radius}          of packed codes, ties in expectation; needs
///                                        feature_binarize
struct Metrics {
  struct QueryExpansion {
    std::int64_t k = 5;
    double alpha = 3;
  };
  struct Clustering {
    std::int64_t max_iterations = 100;
  };
  struct Verification {
    std::vector<double> far{1e-3, 1e-2, 1e-1};
    std::int64_t images = 4000;
  };
  struct PairVerification {
    std::vector<double> far{1e-3, 1e-2, 1e-1};
    std::int64_t folds = 10;
  };
  struct Hamming {
    std::vector<std::int64_t> topk{1, 2, 4, 8};
    std::int64_t radius = 2;
  };

  std::vector<std::int64_t> recall_at{1, 2, 4, 8}, precision_at{}, top_k_accuracy{};
  bool normalize = true;
  std::optional<eval::Binarize> binarize{};
  bool re_ranking = false;
  std::optional<QueryExpansion> query_expansion{};
  std::optional<Clustering> clustering{};
  std::optional<Verification> verification{};
  std::optional<PairVerification> pair_verification{};
  std::optional<Hamming> hamming{};
  bool class_report = false;
  Seed seed{};  ///< of k-means
};

namespace detail {

/// The keys of Global that say how features are compared.
inline void read_comparison(const Section& s, Metrics& m) {
  m.normalize = s.get("feature_normalize", true);
  m.re_ranking = s.get("re_ranking", false);
  if (s.has("feature_binarize")) {
    const auto how = s.get<std::string>("feature_binarize");
    if (how != "sign" && how != "round")
      throw ConfigError(text("Global.feature_binarize: \"", how, "\" is neither sign nor round"));
    m.binarize = how == "sign" ? eval::Binarize::sign : eval::Binarize::round;
  }
  if (s.has("query_expansion")) {
    const Section q = s.section("query_expansion");
    Metrics::QueryExpansion expansion;
    expansion.k = q.get("k", expansion.k);
    expansion.alpha = q.get("alpha", expansion.alpha);
    q.finish();
    m.query_expansion = expansion;
  }
  for (const auto& [key, on] : {std::pair("re_ranking", m.re_ranking),
                                std::pair("query_expansion", m.query_expansion.has_value())})
    if (on && (!m.normalize || m.binarize))
      throw ConfigError(text("Global.", key, " compares by cosine: it needs ",
                             "feature_normalize: True and no feature_binarize"));
}

inline std::vector<double> rates(const Section& s, const std::vector<double>& fallback) {
  auto far = s.get("far", fallback);
  for (const double rate : far)
    if (!(rate >= 0 && rate <= 1))
      throw ConfigError(text(s.where("far"), ": ", rate, " is no rate in [0, 1]"));
  return far;
}

/// One entry of Metric.Eval.
inline void read_metric(const std::string& name, const Section& s, Metrics& m) {
  const auto at_least = [&](const char* key, std::int64_t fallback, std::int64_t least) {
    const auto value = s.get<std::int64_t>(key, fallback);
    if (value < least) throw ConfigError(text(s.where(key), ": must be at least ", least));
    return value;
  };
  if (name == "Recallk") {
    m.recall_at = s.get<std::vector<std::int64_t>>("topk", {1, 5});
  } else if (name == "Precisionk") {
    m.precision_at = s.get<std::vector<std::int64_t>>("topk", {1, 5});
  } else if (name == "TopkAcc") {
    m.top_k_accuracy = s.get<std::vector<std::int64_t>>("topk", {1, 5});
  } else if (name == "Clustering") {
    m.clustering = Metrics::Clustering{at_least("max_iterations", 100, 1)};
  } else if (name == "Verification") {
    const Metrics::Verification defaults;
    m.verification = {rates(s, defaults.far), at_least("images", defaults.images, 2)};
  } else if (name == "PairVerification") {
    const Metrics::PairVerification defaults;
    m.pair_verification = {rates(s, defaults.far), at_least("folds", defaults.folds, 2)};
  } else if (name == "ClassReport") {
    m.class_report = true;
  } else if (name == "Hamming") {
    if (!m.binarize)
      throw ConfigError(text(s.path(), ": there are no codes; set Global.feature_binarize"));
    const Metrics::Hamming defaults;
    m.hamming = {s.get("topk", defaults.topk), at_least("radius", defaults.radius, 0)};
  } else if (name != "mAP" && name != "mINP") {
    s.unknown_name(name, {"ClassReport", "Clustering", "Hamming", "PairVerification", "Precisionk",
                          "Recallk", "TopkAcc", "Verification", "mAP", "mINP"});
  }
}

/// A table with features of its own: rows of another one.
struct OwnFeatures {
  std::vector<float> values;
  std::vector<std::int64_t> labels, ids;
  std::int64_t width;

  OwnFeatures(const data::FeatureTable& from, const std::vector<std::int64_t>& rows)
      : width(from.width) {
    for (const std::int64_t i : rows) {
      const float* row = from.features().row(i);
      values.insert(values.end(), row, row + width);
      labels.push_back(from.labels[static_cast<std::size_t>(i)]);
      ids.push_back(from.ids[static_cast<std::size_t>(i)]);
    }
  }
  View<const float> features() const {
    return {values.data(), {static_cast<std::int64_t>(labels.size()), width}};
  }
};

inline void add_roc(const eval::RocCurve& roc, const std::vector<double>& far,
                    std::vector<train::Metric>& out) {
  for (const double rate : far)
    out.push_back({text("tar_at_far_", rate), eval::tar_at_far(roc, rate).tar});
  out.push_back({"equal_error_rate", roc.equal_error_rate});
  out.push_back({"auc", roc.auc});
  out.push_back({"genuine_pairs", static_cast<double>(roc.genuine)});
  out.push_back({"impostor_pairs", static_cast<double>(roc.impostors)});
}

inline void add_verification(const Metrics& m, const data::FeatureTable& query,
                             std::vector<train::Metric>& out) {
  const std::int64_t n = std::min(query.size(), m.verification->images);
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i < n; ++i) rows.push_back(i * query.size() / n);
  const OwnFeatures chosen(query, rows);
  const auto pairs =
      eval::all_pairs({.features = chosen.features(), .labels = chosen.labels, .ids = chosen.ids},
                      {.normalize = m.normalize && !m.binarize});
  add_roc(eval::roc_curve(pairs), m.verification->far, out);
}

/// Of the pairs of which both images could be read.
inline void add_pair_verification(const Metrics& m, const data::FeatureTable& query,
                                  std::vector<train::Metric>& out) {
  std::vector<std::int64_t> rows;
  for (std::int64_t i = 0; i + 1 < query.size(); ++i) {
    const std::int64_t id = query.ids[static_cast<std::size_t>(i)];
    if (id % 2 != 0 || query.ids[static_cast<std::size_t>(i + 1)] != id + 1) continue;
    rows.push_back(i);
    rows.push_back(i + 1);
  }
  if (rows.empty())
    throw DataError("Metric.Eval: PairVerification needs a list of pairs, images 2i and 2i + 1");
  const OwnFeatures chosen(query, rows);
  eval::VerificationPairs pairs;
  pairs.scores = eval::pair_cosines(chosen.features());
  std::vector<float> distances;
  for (std::size_t i = 0; i < pairs.scores.size(); ++i) {
    pairs.genuine.push_back(chosen.labels[2 * i] == chosen.labels[2 * i + 1]);
    distances.push_back(2 - 2 * pairs.scores[i]);
  }
  const auto folds = eval::fold_accuracy(distances, pairs.genuine, m.pair_verification->folds);
  out.push_back({"fold_accuracy", folds.mean});
  out.push_back({"fold_deviation", folds.deviation});
  add_roc(eval::roc_curve(pairs), m.pair_verification->far, out);
}

inline void add_clustering(const Metrics& m, const data::FeatureTable& query,
                           std::vector<train::Metric>& out) {
  std::vector<float> unit = query.values;
  if (m.normalize && !m.binarize)
    eval::detail::normalize_rows(query.size(), query.width, unit.data(), unit.data());
  const auto scores = eval::evaluate_clustering(
      {.features = {unit.data(), {query.size(), query.width}}, .labels = query.labels},
      {.max_iterations = m.clustering->max_iterations, .seed = m.seed});
  out.push_back({"nmi", scores.nmi});
  out.push_back({"ami", scores.ami});
}

/// Of features that are codes already: 1, -1, and 0, which counts as -1.
inline void add_hamming(const Metrics& m, const data::FeatureTable& query,
                        const data::FeatureTable* gallery, std::vector<train::Metric>& out) {
  struct Codes {
    std::vector<std::uint8_t> bytes;
    eval::CodeSet set;
    Codes(const data::FeatureTable& table, bool with_ids)
        : bytes(eval::pack_codes(table.features())) {
      const auto known = with_ids ? table.with_ids() : table.without_ids();
      set = {{bytes.data(), {table.size(), static_cast<std::int64_t>(bytes.size()) / table.size()}},
             known.labels,
             known.cameras,
             known.ids};
    }
  };
  const Codes of_query(query, gallery == nullptr);
  std::optional<Codes> of_gallery;
  if (gallery != nullptr) of_gallery.emplace(*gallery, false);
  const auto r =
      eval::evaluate_hamming(of_query.set, of_gallery ? of_gallery->set : of_query.set,
                             {.recall_at = m.hamming->topk, .radius = m.hamming->radius});
  out.push_back({"hamming_map", r.mAP});
  for (std::size_t i = 0; i < r.recall.size(); ++i)
    out.push_back({text("hamming_recall", r.recall_at[i]), r.recall[i]});
  out.push_back({text("precision_in_radius", r.radius), r.precision_in_radius});
  out.push_back({text("recall_in_radius", r.radius), r.recall_in_radius});
}

inline void add_class_means(const eval::ClassReport& report, std::vector<train::Metric>& out) {
  const eval::RetrievalResult& macro = report.macro;
  for (std::size_t i = 0; i < macro.recall.size(); ++i)
    out.push_back({text("class_mean_recall", macro.recall_at[i]), macro.recall[i]});
  out.push_back({"class_mean_map", macro.mAP});
  out.push_back({"class_mean_r_precision", macro.r_precision});
  out.push_back({"class_mean_map_at_r", macro.map_at_r});
}

}  // namespace detail

/// The metrics of retrieval as Trainer logs them; the first one selects the best model.
inline std::vector<train::Metric> metrics_of(const eval::RetrievalResult& r) {
  std::vector<train::Metric> out;
  for (std::size_t i = 0; i < r.recall.size(); ++i)
    out.push_back({"recall" + std::to_string(r.recall_at[i]), r.recall[i]});
  for (std::size_t i = 0; i < r.precision.size(); ++i)
    out.push_back({"precision" + std::to_string(r.precision_at[i]), r.precision[i]});
  out.push_back({"map", r.mAP});
  out.push_back({"r_precision", r.r_precision});
  out.push_back({"map_at_r", r.map_at_r});
  out.push_back({"minp", r.mINP});
  return out;
}

/// Compares the queries with the gallery, or among themselves where it is null; on Device, but for
/// query expansion and re-ranking, which run on the processor. Throws as eval::evaluate_retrieval.
template <class Device = Cpu>
eval::RetrievalResult compare_features(const Metrics& m, const data::FeatureTable& query,
                                       const data::FeatureTable* gallery) {
  eval::FeatureSet q = gallery == nullptr ? query.with_ids() : query.without_ids();
  const eval::FeatureSet g = gallery == nullptr ? q : gallery->without_ids();
  const eval::RetrievalOptions options{.recall_at = m.recall_at,
                                       .precision_at = m.precision_at,
                                       .normalize = m.normalize && !m.binarize};
  std::vector<float> expanded;
  if (m.query_expansion) {
    expanded =
        eval::alpha_query_expansion(q, g, m.query_expansion->k, m.query_expansion->alpha, options);
    q.features.data = expanded.data();
  }
  if (m.re_ranking) return eval::evaluate_re_ranked(q, g, {}, options);
  if constexpr (std::is_same_v<Device, Cpu>)
    return eval::evaluate_retrieval(q, g, options);
  else
    return evaluate_retrieval(Device{}, q, g, options);
}

/// The metrics of Metric.Eval beyond those of retrieval, in a fixed order. `report` is given for
/// ClassReport.
inline std::vector<train::Metric> further_metrics(const Metrics& m, const data::FeatureTable& query,
                                                  const data::FeatureTable* gallery,
                                                  const std::optional<eval::ClassReport>& report) {
  std::vector<train::Metric> out;
  if (m.clustering) detail::add_clustering(m, query, out);
  if (m.verification) detail::add_verification(m, query, out);
  if (m.pair_verification) detail::add_pair_verification(m, query, out);
  if (report) detail::add_class_means(*report, out);
  if (m.hamming) detail::add_hamming(m, query, gallery, out);
  return out;
}

/// One line for each class, worst mAP first: label, queries, recall at the first rank, mAP, MAP@R.
inline std::string class_table(const eval::ClassReport& report) {
  std::vector<std::size_t> order(report.labels.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return report.classes[a].mAP < report.classes[b].mAP;
  });
  const auto& ranks = report.macro.recall_at;
  std::string table = "label\tqueries";
  if (!ranks.empty()) table += text("\trecall", ranks[0]);
  table += "\tmap\tmap_at_r\n";
  for (const std::size_t i : order) {
    const eval::RetrievalResult& one = report.classes[i];
    table += text(report.labels[i], '\t', one.queries);
    if (!ranks.empty()) table += text('\t', one.recall[0]);
    table += text('\t', one.mAP, '\t', one.map_at_r, '\n');
  }
  return table;
}

}  // namespace kindred::config
