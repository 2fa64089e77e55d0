#pragma once
// Turns the files of a run into one HTML page that needs nothing else; formats: see report.cpp.

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kindred/core/error.hpp>

#include "chart.hpp"
#include "style.hpp"

namespace kindred::quickstart {

using Json = nlohmann::ordered_json;

struct ReportSettings {
  std::string run;  ///< folder with metrics.jsonl, results.json, rankings.json
  std::string output = "report.html";
  std::string title = "kindred: quickstart";
  std::string about;                        ///< a paragraph below the title
  std::vector<std::string> times;           ///< "NAME=SECONDS", in the order to be shown
  std::vector<std::string> extra_settings;  ///< "NAME=VALUE"
  bool light_ink = false;                   ///< pictures are light on dark: inverted by day
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FileError("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

inline Json read_json(const std::filesystem::path& path) {
  try {
    return Json::parse(read_file(path));
  } catch (const nlohmann::json::exception& error) {
    throw FileError(text(path.string(), " is not what report expects: ", error.what()));
  }
}

/// "name=value" -> both; throws ConfigError without '='.
inline std::pair<std::string, std::string> split_pair(const std::string& argument) {
  const auto equals = argument.find('=');
  if (equals == std::string::npos || equals == 0)
    throw ConfigError("expected NAME=VALUE, not \"" + argument + '"');
  return {argument.substr(0, equals), argument.substr(equals + 1)};
}

inline std::string base64(std::string_view bytes) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto byte = [&](std::size_t k) {
      return i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u;
    };
    const unsigned group = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (unsigned k = 0; k < 4; ++k)
      out += i + k <= bytes.size() ? digits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

/// A picture file as a data URI; throws FileError unless it is a PNG or a JPEG.
inline std::string data_uri(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  const bool png = bytes.starts_with("\x89PNG"), jpeg = bytes.starts_with("\xFF\xD8\xFF");
  if (!png && !jpeg) throw FileError(path.string() + " is neither a PNG nor a JPEG picture");
  return text("data:image/", png ? "png" : "jpeg", ";base64,", base64(bytes));
}

/// What metrics.jsonl says. Where a run was interrupted and resumed, a step or an epoch can stand
/// there twice; the later line counts.
struct Metrics {
  std::map<double, double> loss, speed;  // by step
  std::map<double, Json> evaluations;    // by epoch
  std::size_t unreadable = 0;            // lines, e.g. cut off by a kill
};

inline Metrics read_metrics(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw FileError("cannot read " + path.string());
  Metrics metrics;
  for (std::string line; std::getline(file, line);) {
    if (line.empty()) continue;
    try {
      const Json row = Json::parse(line);
      const std::string event = row.at("event");
      if (event == "step") {
        metrics.loss[row.at("step")] = row.at("loss").get<double>();
        if (row.contains("images_per_second"))
          metrics.speed[row.at("step")] = row["images_per_second"].get<double>();
      } else if (event == "eval") {
        metrics.evaluations[row.at("epoch")] = row;
      }
    } catch (const nlohmann::json::exception&) {
      ++metrics.unreadable;
    }
  }
  return metrics;
}

/// The metrics of a table row, in the order of the columns.
inline constexpr std::array<std::pair<const char*, const char*>, 8> metric_columns{
    {{"recall1", "Recall@1"},
     {"recall2", "Recall@2"},
     {"recall4", "Recall@4"},
     {"recall8", "Recall@8"},
     {"map", "mAP"},
     {"r_precision", "R-Precision"},
     {"map_at_r", "MAP@R"},
     {"minp", "mINP"}}};

class Report {
 public:
  /// Reads everything; throws FileError for a file that is missing or not as documented.
  explicit Report(ReportSettings settings) : settings_(std::move(settings)) {
    const std::filesystem::path run = settings_.run;
    metrics_ = read_metrics(run / "metrics.jsonl");
    results_ = read_json(run / "results.json");
    rankings_ = read_json(run / "rankings.json");
    try {
      for (const Json& row : results_.at("rows")) rows_[row.at("name")] = row;
    } catch (const nlohmann::json::exception& error) {
      throw FileError(text((run / "results.json").string(), ": ", error.what()));
    }
    picture_root_ = run / rankings_.value("root", "");
  }

  std::string html() const {
    std::string out = fmt::format(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\""
        " content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>{}</style>"
        "</head>\n<body{}>\n",
        escape(settings_.title), style_sheet, settings_.light_ink ? " class=\"light-ink\"" : "");
    header(out);
    table(out);
    charts(out);
    try {
      rankings(out, "sampled", "Answers to some queries",
               "The query stands at the left, drawn at random; its nearest images follow, the "
               "nearest first, each with its cosine similarity.");
      rankings(out, "worst", "The worst queries",
               "The queries with the lowest average precision of the whole test.");
    } catch (const nlohmann::json::exception& error) {
      throw FileError(text(settings_.run, "/rankings.json: ", error.what()));
    }
    details(out);
    return out + "</body></html>\n";
  }

  const Metrics& metrics() const { return metrics_; }

  /// The table of metrics for a terminal.
  std::string text_table() const {
    std::string out = fmt::format("{:12}", "");
    for (const auto& [key, name] : metric_columns) out += fmt::format("{:>12}", name);
    for (const Json& row : results_["rows"]) {
      out += fmt::format("\n{:12}", row["name"].get<std::string>());
      for (const auto& [key, name] : metric_columns) out += fmt::format("{:>12}", score(row, key));
    }
    return out + '\n';
  }

 private:
  static std::string score(const Json& row, const char* key) {
    return row.contains(key) && row[key].is_number() ? fmt::format("{:.3f}", row[key].get<double>())
                                                     : "-";
  }

  static std::string duration(double seconds) {
    if (seconds < 60) return fmt::format("{:.1f} s", seconds);
    const auto whole = static_cast<long>(std::lround(seconds));
    return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  }

  double total_time() const {
    double total = 0;
    for (const std::string& time : settings_.times) total += seconds_of(split_pair(time).second);
    return total;
  }

  static double seconds_of(const std::string& number) {
    try {
      return std::stod(number);
    } catch (const std::exception&) {
      throw ConfigError("not a number of seconds: \"" + number + '"');
    }
  }

  void header(std::string& out) const {
    out += fmt::format("<header><h1>{}</h1>\n", escape(settings_.title));
    if (!settings_.about.empty())
      out += fmt::format("<p class=\"lead\">{}</p>\n", escape(settings_.about));
    out += "<div class=\"cards\">";
    const auto card = [&out](const std::string& value, const std::string& name, bool main = false) {
      out += fmt::format("<div class=\"card{}\"><b>{}</b><span>{}</span></div>",
                         main ? " main" : "", value, escape(name));
    };
    for (const char* name : {"trained", "untrained", "raw pixels"})
      if (const auto row = rows_.find(name); row != rows_.end())
        card(score(row->second, "recall1"), text("Recall@1, ", name), row == rows_.find("trained"));
    if (!metrics_.speed.empty()) {
      std::vector<double> speeds;
      for (const auto& [step, speed] : metrics_.speed) speeds.push_back(speed);
      const auto middle = speeds.begin() + static_cast<std::ptrdiff_t>(speeds.size() / 2);
      std::ranges::nth_element(speeds, middle);
      card(fmt::format("{:.0f}", *middle), "images/s in training (median)");
    }
    if (!settings_.times.empty()) card(duration(total_time()), "for all steps below");
    out += "</div></header>\n";
  }

  void table(std::string& out) const {
    out +=
        "<h2>Metrics on classes never seen in training</h2>\n<div class=\"scroll\"><table>"
        "<thead><tr><th></th>";
    for (const auto& [key, name] : metric_columns) out += fmt::format("<th>{}</th>", name);
    out += "<th>time</th></tr></thead><tbody>\n";
    for (const Json& row : results_["rows"]) {
      out += fmt::format("<tr><th>{}</th>", escape(row["name"]));
      for (const auto& [key, name] : metric_columns)
        out += fmt::format("<td{}>{}</td>", is_best(row, key) ? " class=\"best\"" : "",
                           score(row, key));
      out += fmt::format("<td>{}</td></tr>\n",
                         row.contains("seconds") ? duration(row["seconds"].get<double>()) : "–");
    }
    out +=
        "</tbody></table></div>\n<p class=\"note\">Every test image is a query against all the "
        "others; 1 is perfect. Raw pixels are compared by cosine, as features are; untrained is "
        "the same network before its first step.</p>\n";
  }

  bool is_best(const Json& row, const char* key) const {
    if (!row.contains(key) || !row[key].is_number()) return false;
    return std::ranges::none_of(results_["rows"], [&](const Json& other) {
      return other.contains(key) && other[key].is_number() &&
             other[key].get<double>() > row[key].get<double>();
    });
  }

  void charts(std::string& out) const {
    const std::vector<std::pair<double, double>> steps(metrics_.loss.begin(), metrics_.loss.end());
    const Chart loss{
        .title = "Training loss",
        .x_title = "step",
        .lines = {{"", "faint", averaged(steps, 400)}, {"average", "line-1", averaged(steps, 40)}},
        .levels = {}};
    Chart recall{
        .title = "Retrieval on unseen classes",
        .x_title = "epoch",
        .lines = {{"Recall@1", "line-1", curve("recall1")}, {"mAP", "line-2", curve("map")}},
        .levels = {},
        .unit_range = true};
    if (const auto raw = rows_.find("raw pixels");
        raw != rows_.end() && raw->second.contains("recall1"))
      recall.levels.push_back({"Recall@1, raw pixels", "line-3", raw->second["recall1"]});
    out += "<h2>Training</h2>\n<div class=\"charts\">" + chart_svg(loss) + chart_svg(recall) +
           "</div>\n";
    if (metrics_.unreadable)
      out += fmt::format("<p class=\"note\">Unreadable lines of metrics.jsonl left out: {}.</p>\n",
                         metrics_.unreadable);
  }

  std::vector<std::pair<double, double>> curve(const char* metric) const {
    std::vector<std::pair<double, double>> points;
    for (const auto& [epoch, row] : metrics_.evaluations)
      if (row.contains(metric) && row[metric].is_number()) points.emplace_back(epoch, row[metric]);
    return points;
  }

  void rankings(std::string& out, const char* key, const char* title, const char* about) const {
    if (!rankings_.contains(key) || rankings_[key].empty()) return;
    out += fmt::format(
        "<h2>{}</h2>\n<p>{} <span class=\"mark hit\">✓</span> same class, <span class=\"mark "
        "miss\">✗</span> another class (dashed frame).</p>\n<div class=\"rankings\">\n",
        title, about);
    for (const Json& query : rankings_[key]) ranking(out, query);
    out += "</div>\n";
  }

  void ranking(std::string& out, const Json& query) const {
    const std::string path = query.at("query");
    out +=
        fmt::format("<div class=\"ranking\"><div class=\"query\">{}<b>{}</b><div>AP {:.3f}</div>",
                    picture(path), escape(class_name(query, path)), query.at("ap").get<double>());
    if (query.contains("relevant"))
      out += fmt::format("<div>{} to find</div>", query["relevant"].get<std::size_t>());
    out += "</div><ol class=\"hits\">";
    for (const Json& hit : query.at("hits")) {
      const std::string found = hit.at("path");
      const bool same = hit.at("same");
      out += fmt::format("<li class=\"{}\" title=\"{}\">{}<i>{}</i>{:.3f}</li>",
                         same ? "hit" : "miss", escape(found), picture(found), same ? "✓" : "✗",
                         hit.at("score").get<double>());
    }
    out += "</ol></div>\n";
  }

  std::string picture(const std::string& path) const {
    return fmt::format("<span class=\"frame\"><img src=\"{}\" alt=\"{}\"></span>",
                       data_uri(picture_root_ / path), escape(path));
  }

  /// The query's "label", or the folder its picture lies in.
  static std::string class_name(const Json& query, const std::string& path) {
    return query.contains("label") ? query["label"].get<std::string>()
                                   : std::filesystem::path(path).parent_path().filename().string();
  }

  void details(std::string& out) const {
    const auto open = [&out](const char* title) { out += fmt::format("<h2>{}</h2>\n<dl>", title); };
    const auto item = [&out](const std::string& name, const std::string& value) {
      out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    };
    open("Settings");
    for (const std::string& setting : settings_.extra_settings) {
      const auto [name, value] = split_pair(setting);
      item(name, value);
    }
    if (results_.contains("settings"))
      for (const auto& [name, value] : results_["settings"].items())
        item(name, value.is_string() ? value.get<std::string>() : value.dump());
    out += "</dl>\n";
    if (!settings_.times.empty()) {
      open("Time");
      for (const std::string& time : settings_.times) {
        const auto [name, seconds] = split_pair(time);
        item(name, duration(seconds_of(seconds)));
      }
      out += "</dl>\n";
    }
    open("Machine");
    item("Processor", processor());
    item("Threads", text(std::thread::hardware_concurrency()));
    item("Compiler", compiler());
    out += fmt::format("</dl>\n<footer>Written by kindred, {:%Y-%m-%d %H:%M} UTC.</footer>\n",
                       fmt::gmtime(std::time(nullptr)));
  }

  static std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
      if (line.starts_with("model name") && line.find(": ") != std::string::npos)
        return line.substr(line.find(": ") + 2);
    return "unknown";
  }

  static std::string compiler() {
#if defined(__clang__)
    return "Clang " __clang_version__;
#elif defined(__GNUC__)
    return "GCC " __VERSION__;
#else
    return "unknown";
#endif
  }

  ReportSettings settings_;
  Metrics metrics_;
  Json results_, rankings_;
  std::map<std::string, Json> rows_;  // of results.json, by name
  std::filesystem::path picture_root_;
};

}  // namespace kindred::quickstart
