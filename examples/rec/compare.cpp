// rec compare: what training was worth. The same metrics on the same images for raw pixels
// (cosine), for the network before training and after it, with ranking lists, as files for a
// report.

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kindred/core/random.hpp>
#include <kindred/io/atomic_file.hpp>
#include <kindred/io/npy.hpp>

#include "shared.hpp"

namespace rec {
namespace {

using Evaluation = Experiment::Evaluation;
using Json = nlohmann::ordered_json;

/// The grey pixels of an image, less their mean, as its feature: the least that a network must
/// beat. (The cosine of pixels with a common mean would say more about paper than about ink.)
class RawPixels {
 public:
  kindred::View<const float> operator()(kindred::View<const float> images) {
    const std::int64_t pixels = images.dim(1) * images.dim(2);
    grey_.resize(static_cast<std::size_t>(images.dim(0) * pixels));
    for (std::int64_t b = 0; b < images.dim(0); ++b) {
      float* grey = grey_.data() + b * pixels;
      const float* rgb = images.data + b * pixels * 3;
      double sum = 0;
      for (std::int64_t i = 0; i < pixels; ++i) {
        grey[i] = (rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2]) / 3;
        sum += static_cast<double>(grey[i]);
      }
      const auto mean = static_cast<float>(sum / static_cast<double>(pixels));
      for (std::int64_t i = 0; i < pixels; ++i) grey[i] -= mean;
    }
    return {grey_.data(), {images.dim(0), pixels}};
  }

 private:
  std::vector<float> grey_;
};

template <class F>
kindred::eval::RetrievalResult add_row(Json& rows, const char* name, Evaluation& evaluation,
                                       F&& features) {
  fmt::print(stderr, "{}\n", name);
  const auto begin = std::chrono::steady_clock::now();
  auto result = evaluation(features, print_progress);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  Json row = {{"name", name}};
  for (const auto& metric : Experiment::metrics(result)) row[metric.name] = metric.value;
  for (const auto& metric : evaluation.further()) row[metric.name] = metric.value;
  row["seconds"] = seconds.count();
  rows.push_back(row);
  return result;
}

/// Ranking lists of some queries: the first k of the gallery for each.
Json ranking_lists(Evaluation& evaluation, const kindred::eval::RetrievalResult& result,
                   const std::vector<std::size_t>& chosen, std::int64_t k) {
  const bool one_set = evaluation.gallery() == nullptr;
  const auto& queries = evaluation.query_features();
  const auto& gallery = one_set ? queries : evaluation.gallery_features();
  const auto& query_list = evaluation.query().list();
  const auto& gallery_list = one_set ? query_list : evaluation.gallery()->list();

  std::vector<float> features;
  std::vector<std::int64_t> labels, cameras, ids;
  for (std::size_t q : chosen) {
    const float* row = queries.features().row(static_cast<std::int64_t>(q));
    features.insert(features.end(), row, row + queries.width);
    labels.push_back(queries.labels[q]);
    if (!queries.cameras.empty()) cameras.push_back(queries.cameras[q]);
    if (one_set) ids.push_back(queries.ids[q]);
  }
  const auto top = kindred::eval::top_k(
      {{features.data(), {static_cast<std::int64_t>(chosen.size()), queries.width}},
       labels,
       cameras,
       ids},
      one_set ? gallery.with_ids() : gallery.without_ids(), std::min(k, gallery.size()));

  const auto path = [](const kindred::data::ImageList& list, std::int64_t id) {
    return std::filesystem::absolute(list.path(static_cast<std::size_t>(id))).string();
  };
  Json out = Json::array();
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const std::size_t q = chosen[i];
    Json hits = Json::array();
    for (std::int64_t r = 0; r < top.k; ++r) {
      const auto at = i * static_cast<std::size_t>(top.k) + static_cast<std::size_t>(r);
      if (top.indices[at] < 0) break;
      const auto item = static_cast<std::size_t>(top.indices[at]);
      hits.push_back({{"path", path(gallery_list, gallery.ids[item])},
                      {"same", gallery.labels[item] == queries.labels[q]},
                      {"score", top.scores[at]}});
    }
    out.push_back({{"query", path(query_list, queries.ids[q])},
                   {"ap", result.per_query[q].average_precision},
                   {"relevant", result.per_query[q].positives},
                   {"hits", hits}});
  }
  return out;
}

void write(const std::filesystem::path& path, const std::string& words) {
  kindred::io::AtomicFile file(path);
  file.write(words);
  file.commit();
}

Json rankings(Evaluation& evaluation, const kindred::eval::RetrievalResult& result,
              const Options& options, kindred::Seed seed) {
  std::vector<std::size_t> order;
  for (std::size_t q = 0; q < result.per_query.size(); ++q)
    if (result.per_query[q].positives > 0) order.push_back(q);
  const std::size_t count = std::min(order.size(), static_cast<std::size_t>(options.queries));
  kindred::RandomSequence random({seed.value, kindred::stream_of("rec.compare"), 0});
  random.shuffle(order);
  const std::vector<std::size_t> sampled(order.begin(), order.begin() + std::ptrdiff_t(count));
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return result.per_query[a].average_precision < result.per_query[b].average_precision;
  });
  order.resize(count);
  return {{"sampled", ranking_lists(evaluation, result, sampled, options.k)},
          {"worst", ranking_lists(evaluation, result, order, options.k)}};
}

}  // namespace

void compare(const Options& options) {
  const Experiment experiment(options.config, options.overrides);
  const Model untrained = experiment.make_model();
  const Model trained = trained_model(experiment, options);
  auto evaluation = experiment.evaluation();
  Json rows = Json::array();
  add_row(rows, "raw pixels", evaluation, RawPixels{});
  {
    auto session = untrained.session({.activations = experiment.evaluation_activations()});
    add_row(rows, "untrained", evaluation, features_of(session));
  }
  auto session = trained.session({.activations = experiment.evaluation_activations()});
  const auto result = add_row(rows, "trained", evaluation, features_of(session));
  report_unreadable(evaluation.query());

  write(experiment.output() / "results.json",
        Json({{"rows", rows},
              {"settings",
               {{"parameters", trained.parameters().trainable_count()},
                {"feature size", trained.feature_size()},
                {"test images", evaluation.query_features().size()}}}})
            .dump(1));
  write(experiment.output() / "rankings.json",
        rankings(evaluation, result, options, experiment.seed()).dump(1));
  kindred::io::write_npy(experiment.output() / "test_features.npy",
                         evaluation.query_features().features());
  fmt::print("trained: recall@1 {:.4f}, mAP {:.4f}; tables, rankings and features in {}\n",
             result.recall.front(), result.mAP, experiment.output().string());
}

}  // namespace rec
