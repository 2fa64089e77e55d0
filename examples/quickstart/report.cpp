// Writes one self-contained HTML page about a run: metrics, curves, and ranking lists as pictures;
// prints the table of metrics.
// The folder RUN holds three files:
//
// metrics.jsonl, one JSON object a line; other events and members are passed over
//   {"event": "step", "epoch": 1, "step": 10, "loss": 5.1, "lr": 0.04, "images_per_second": 900}
//   {"event": "eval", "epoch": 1, "recall1": 0.7, "map": 0.5}   any metric of results.json
//
// results.json
//   {"rows": [{"name": "raw pixels", "recall1": 0.6, "recall2": 0.7, "recall4": 0.8,
//              "recall8": 0.8, "map": 0.3, "r_precision": 0.3, "map_at_r": 0.2, "minp": 0.1,
//              "seconds": 1.5},
//             {"name": "untrained", ...}, {"name": "trained", ...}],
//    "settings": {"any name": "any value", ...}}                optional
//   The rows are shown in this order; "raw pixels", "untrained" and "trained" also head the page.
//   A metric that is missing is shown as a dash.
//
// rankings.json
//   {"root": "../data",                        folder of the paths below, relative to RUN; optional
//    "sampled": [QUERY, ...],                  queries drawn at random
//    "worst": [QUERY, ...]}                    queries with the lowest ap, the lowest first
//   QUERY = {"query": "images/U+4E00/face07.png",     path of a PNG or a JPEG
//            "label": "U+4E00",                optional; else the name of the picture's folder
//            "ap": 0.93,                       average precision of the full ranking
//            "relevant": 13,                   optional: images of the query's class to be found
//            "hits": [{"path": "images/...", "same": true, "score": 0.97}, ...]}   nearest first

#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <kindred/io/atomic_file.hpp>

#include "report.hpp"

namespace qs = kindred::quickstart;

int main(int argc, char** argv) {
  qs::ReportSettings settings;
  CLI::App app{"Write the report of a run as one HTML page."};
  app.add_option("run", settings.run, "folder with metrics.jsonl, results.json, rankings.json")
      ->required();
  app.add_option("--out", settings.output, "page to write")->capture_default_str();
  app.add_option("--title", settings.title, "head line")->capture_default_str();
  app.add_option("--about", settings.about, "a paragraph below the head line");
  app.add_option("--setting", settings.extra_settings, "NAME=VALUE, one more line of settings");
  app.add_option("--time", settings.times, "NAME=SECONDS, the time of one step");
  app.add_flag("--light-ink", settings.light_ink, "pictures are light on dark: invert them by day");
  CLI11_PARSE(app, argc, argv);

  try {
    const qs::Report report(settings);
    const std::string page = report.html();
    const auto folder = std::filesystem::path(settings.output).parent_path();
    if (!folder.empty()) std::filesystem::create_directories(folder);
    kindred::io::AtomicFile file(settings.output);
    file.write(page);
    file.commit();
    if (const auto lost = report.metrics().unreadable)
      fmt::print(stderr, "report: unreadable lines of metrics.jsonl left out: {}\n", lost);
    fmt::print("{}\nreport: {}\n", report.text_table(), settings.output);
  } catch (const std::exception& error) {
    fmt::print(stderr, "report: {}\n", error.what());
    return 1;
  }
}
