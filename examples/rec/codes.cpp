// rec codes: features as bits. The trained network's features and their packed codes on the same
// images, side by side, and how many queries per second the codes answer.

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include <kindred/eval/hamming.hpp>

#include "shared.hpp"

namespace rec {
namespace {

using kindred::data::FeatureTable;

/// Packed codes with what is known of their images.
struct Codes {
  std::vector<std::uint8_t> bytes;
  kindred::eval::CodeSet set;

  Codes(const FeatureTable& table, bool with_ids, kindred::eval::Binarize how)
      : bytes(kindred::eval::pack_codes(table.features(), how)) {
    const auto known = with_ids ? table.with_ids() : table.without_ids();
    const std::int64_t width = static_cast<std::int64_t>(bytes.size()) / table.size();
    set = {{bytes.data(), {table.size(), width}}, known.labels, known.cameras, known.ids};
  }
};

/// Queries per second: the median of five searches of the k nearest among `items` codes, the
/// gallery's own repeated, since a scan takes as long for any codes.
double queries_per_second(const kindred::eval::CodeSet& query,
                          const kindred::eval::CodeSet& gallery, std::int64_t items,
                          std::int64_t k) {
  const std::int64_t bytes = gallery.codes.dim(1);
  std::vector<std::uint8_t> many;
  many.reserve(static_cast<std::size_t>(items * bytes));
  for (std::int64_t i = 0; i < items; ++i) {
    const std::uint8_t* code = gallery.codes.row(i % gallery.codes.dim(0));
    many.insert(many.end(), code, code + bytes);
  }
  const std::int64_t queries = std::min<std::int64_t>(256, query.codes.dim(0));
  std::vector<double> seconds;
  for (int round = 0; round < 5; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    kindred::eval::hamming_top_k({.codes = {query.codes.data, {queries, bytes}}},
                                 {.codes = {many.data(), {items, bytes}}}, k);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + 2, seconds.end());
  return static_cast<double>(queries) / seconds[2];
}

}  // namespace

void codes(const Options& options) {
  const Experiment experiment(options.config, options.overrides);
  const auto how = experiment.binarization();
  if (!how)
    throw kindred::ConfigError(
        "Global.feature_binarize is missing; rec codes needs sign or round, as the network was "
        "trained for");
  const Model model = trained_model(experiment, options);
  auto evaluation = experiment.evaluation();
  auto session = model.session({.activations = experiment.evaluation_activations()});
  const auto extract = [&](kindred::data::Loader& loader) {
    auto table = kindred::data::extract_features(loader, features_of(session), print_progress);
    report_unreadable(loader);
    return table;
  };
  const FeatureTable query = extract(evaluation.query());
  const bool one_set = evaluation.gallery() == nullptr;
  const FeatureTable other = one_set ? FeatureTable{} : extract(*evaluation.gallery());
  const FeatureTable& gallery = one_set ? query : other;
  const auto of = [&](const FeatureTable& table) {
    return one_set ? table.with_ids() : table.without_ids();
  };
  const auto real = kindred::eval::evaluate_retrieval(of(query), of(gallery),
                                                      {.recall_at = evaluation.recall_at()});
  const Codes query_codes(query, one_set, *how), gallery_codes(gallery, one_set, *how);
  const auto binary = kindred::eval::evaluate_hamming(query_codes.set, gallery_codes.set,
                                                      {.recall_at = evaluation.recall_at()});
  const std::int64_t bytes = gallery_codes.set.codes.dim(1);
  fmt::print("{} floats ({} bytes), cosine: mAP {:.4f}, Recall@1 {:.4f}\n", query.width,
             4 * query.width, real.mAP, real.recall_of(1));
  fmt::print("{} bits ({} bytes), Hamming: mAP {:.4f}, Recall@{} {:.4f}; ties in expectation\n",
             query.width, bytes, binary.mAP, binary.recall_at.front(), binary.recall.front());
  fmt::print("within radius {}: precision {:.4f}, recall {:.4f}, {} of {} queries find nothing\n",
             binary.radius, binary.precision_in_radius, binary.recall_in_radius, binary.empty_balls,
             binary.queries);
  fmt::print("mAP of the codes: {:.1f} % of the floats'\n", 100 * binary.mAP / real.mAP);
  const std::int64_t k = std::min<std::int64_t>(options.k, options.items);
  const double rate = queries_per_second(query_codes.set, gallery_codes.set, options.items, k);
  fmt::print("{:.0f} queries per second: the {} nearest of {} codes by a scan, {:.1f} GB/s\n", rate,
             k, options.items, rate * static_cast<double>(options.items * bytes) * 1e-9);
}

}  // namespace rec
