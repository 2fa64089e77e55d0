// The report page of the quickstart.

#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

#include "quickstart/report.hpp"
#include "support/catch.hpp"

namespace fs = std::filesystem;
namespace qs = kindred::quickstart;

namespace {

const std::string png_bytes("\x89PNG\r\n\x1a\n picture", 16);

/// A folder as training leaves it, with made-up numbers.
class Run {
 public:
  Run() : path_(fs::temp_directory_path() / ("kindred_report_" + std::to_string(getpid()))) {
    fs::create_directories(path_ / "data/U+4E00");
    write("data/U+4E00/a.png", png_bytes);
    write("metrics.jsonl",
          "{\"event\":\"step\",\"epoch\":1,\"step\":1,\"loss\":9,\"images_per_second\":100}\n"
          "{\"event\":\"step\",\"epoch\":1,\"step\":2,\"loss\":5,\"images_per_second\":300}\n"
          "{\"event\":\"eval\",\"epoch\":0,\"recall1\":0.25,\"map\":0.125}\n"
          "{\"event\":\"eval\",\"epoch\":1,\"recall1\":0.75,\"map\":0.5}\n");
    write("results.json", R"({"rows": [{"name": "raw pixels", "recall1": 0.5, "seconds": 2},
        {"name": "trained", "recall1": 0.875, "map": 0.625, "seconds": 75}],
        "settings": {"backbone": "PPLCNet <x0_5>", "epochs": 20}})");
    write("rankings.json", R"({"root": "data", "sampled": [{"query": "U+4E00/a.png", "ap": 0.4,
        "hits": [{"path": "U+4E00/a.png", "same": true, "score": 0.9},
                 {"path": "U+4E00/a.png", "same": false, "score": 0.8}]}], "worst": []})");
  }
  ~Run() { fs::remove_all(path_); }

  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
  }
  qs::ReportSettings settings() const {
    qs::ReportSettings settings;
    settings.run = path_.string();
    return settings;
  }
  std::string html() const { return qs::Report(settings()).html(); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("base64: RFC 4648, section 10") {
  CHECK(qs::base64("") == "");
  CHECK(qs::base64("f") == "Zg==");
  CHECK(qs::base64("fo") == "Zm8=");
  CHECK(qs::base64("foo") == "Zm9v");
  CHECK(qs::base64("foobar") == "Zm9vYmFy");
  CHECK(qs::base64("\xFF\xFE\xFD") == "//79");
}

TEST_CASE("ticks are round and enclose the range") {
  CHECK(qs::ticks(0, 1, 5) == std::vector<double>{0, 0.2, 0.4, 0.2 * 3, 0.8, 1});
  const auto loss = qs::ticks(0.61, 8.3, 5);
  CHECK(loss.front() <= 0.61);
  CHECK(loss.back() >= 8.3);
  CHECK(qs::ticks(3, 3, 5).size() >= 2);
}

TEST_CASE("averaged keeps the mean of every group") {
  const std::vector<std::pair<double, double>> points{{0, 1}, {1, 3}, {2, 5}, {3, 7}};
  CHECK(qs::averaged(points, 2) == std::vector<std::pair<double, double>>{{0.5, 2}, {2.5, 6}});
  CHECK(qs::averaged(points, 4) == points);
}

TEST_CASE("the page holds the numbers, the curves and the pictures, and needs nothing else") {
  const Run run;
  auto settings = run.settings();
  settings.about = "a < b & \"c\"";
  settings.times = {"Train=61.5", "Draw=2"};
  const qs::Report report(settings);
  const std::string page = report.html();
  CHECK_THAT(page, ContainsSubstring("a &lt; b &amp; &quot;c&quot;"));
  CHECK_THAT(page, ContainsSubstring("PPLCNet &lt;x0_5&gt;"));
  CHECK_THAT(page, ContainsSubstring("<td class=\"best\">0.875</td>"));
  CHECK_THAT(page, ContainsSubstring("<td>0.500</td>"));
  CHECK_THAT(page, ContainsSubstring("1 min 15 s"));  // of the trained row
  CHECK_THAT(page, ContainsSubstring("1 min 04 s"));  // 61.5 + 2, all steps
  CHECK(occurrences(page, "<polyline") == 4);         // loss twice, recall, mAP
  CHECK(occurrences(page, "data:image/png;base64," + qs::base64(png_bytes)) == 3);
  CHECK(occurrences(page, "<li class=\"hit\"") == 1);
  CHECK(occurrences(page, "<li class=\"miss\"") == 1);
  CHECK(page.find("http") == std::string::npos);
  CHECK(page.find("<script") == std::string::npos);
  CHECK(page.find("The worst queries") == std::string::npos);  // there are none
  CHECK_THAT(report.text_table(), ContainsSubstring("0.875"));
}

TEST_CASE("metrics of an interrupted run: the later line of a step counts, a cut line is counted") {
  const Run run;
  run.write("metrics.jsonl",
            "{\"event\":\"step\",\"epoch\":1,\"step\":1,\"loss\":9}\n"
            "{\"event\":\"step\",\"epoch\":1,\"st\n"
            "{\"event\":\"step\",\"epoch\":1,\"step\":1,\"loss\":4}\n"
            "{\"event\":\"checkpoint\"}\n");
  const auto metrics = qs::read_metrics(run.path() / "metrics.jsonl");
  CHECK(metrics.loss == std::map<double, double>{{1, 4}});
  CHECK(metrics.unreadable == 1);
  CHECK_THAT(run.html(), ContainsSubstring("Unreadable lines of metrics.jsonl left out: 1."));
}

TEST_CASE("a missing or damaged file is one error that names it") {
  const Run run;
  SECTION("no metrics") {
    fs::remove(run.path() / "metrics.jsonl");
    CHECK_THROWS_WITH(run.html(), ContainsSubstring("metrics.jsonl"));
  }
  SECTION("results cut off") {
    run.write("results.json", "{\"rows\": [");
    CHECK_THROWS_WITH(run.html(), ContainsSubstring("results.json"));
  }
  SECTION("results without rows") {
    run.write("results.json", "{}");
    CHECK_THROWS_WITH(run.html(), ContainsSubstring("results.json"));
  }
  SECTION("a query without hits") {
    run.write("rankings.json",
              R"({"root": "data", "sampled": [{"query": "U+4E00/a.png", "ap": 1}]})");
    CHECK_THROWS_WITH(run.html(), ContainsSubstring("rankings.json"));
  }
  SECTION("a picture that is none") {
    run.write("data/U+4E00/a.png", "words");
    CHECK_THROWS_WITH(run.html(), ContainsSubstring("neither a PNG nor a JPEG"));
  }
  SECTION("a time that is none") {
    auto settings = run.settings();
    settings.times = {"Train=soon"};
    CHECK_THROWS_AS(qs::Report(settings).html(), kindred::ConfigError);
  }
}
