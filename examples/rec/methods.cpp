// rec methods: heads and losses under the same conditions. Every method gets the same network, the
// same first weights, batches and about the same training time, and is tested on classes that it
// has not seen; epochs and settings are chosen before, not by the test. Several seeds give an
// interval. The protocol is that of Musgrave et al., "A Metric Learning Reality Check", ECCV 2020,
// with one split and without a search for settings.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>
#include <sstream>

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <kindred/core/random.hpp>
#include <kindred/io/atomic_file.hpp>

#include "shared.hpp"

namespace rec {
namespace {

using kindred::config::Experiment;

struct Method {
  std::string name;
  std::vector<std::string> overrides;
};

/// What one training run came to.
struct Outcome {
  double recall = 0, map_at_r = 0, seconds = 0;  ///< seconds of training by the time of a step
  std::int64_t steps = 0;
};

/// Mean and half the width of the 95% confidence interval (Student's t) of some seeds.
struct Interval {
  double mean = 0, half = 0;

  explicit Interval(const std::vector<double>& values) {
    const auto n = static_cast<double>(values.size());
    mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
    if (values.size() < 2) {
      half = NAN;
      return;
    }
    double square = 0;
    for (double v : values) square += (v - mean) * (v - mean);
    constexpr double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262};
    const double quantile = values.size() - 2 < std::size(t) ? t[values.size() - 2] : 1.96;
    half = quantile * std::sqrt(square / (n - 1) / n);
  }
};

struct Row {
  std::string name;
  std::vector<Outcome> outcomes;
  std::string failure;

  template <class F>
  Interval interval(F&& field) const {
    std::vector<double> values;
    for (const Outcome& o : outcomes) values.push_back(field(o));
    return Interval(values);
  }
  Interval recall() const {
    return interval([](const Outcome& o) { return o.recall; });
  }
  Interval map_at_r() const {
    return interval([](const Outcome& o) { return o.map_at_r; });
  }
};

/// A node on one line, with the word CLASSES replaced.
std::string flow(const YAML::Node& node, std::int64_t classes) {
  YAML::Emitter out;
  out.SetSeqFormat(YAML::Flow);
  out.SetMapFormat(YAML::Flow);
  out << node;
  std::string line = out.c_str();
  for (std::size_t at = line.find('\n'); at != std::string::npos; at = line.find('\n', at))
    line.replace(at, 1, " ");
  const std::string word = "CLASSES";
  for (std::size_t at = line.find(word); at != std::string::npos; at = line.find(word))
    line.replace(at, word.size(), std::to_string(classes));
  return line;
}

/// Reads the methods of `options`, those that were asked for.
std::vector<Method> read_methods(const Options& options) {
  YAML::Node file;
  try {
    file = YAML::LoadFile(options.methods.string());
  } catch (const YAML::Exception& e) {
    throw kindred::ConfigError(kindred::text(options.methods.string(), ": ", e.what()));
  }
  const auto base = kindred::config::Section::load(options.config, options.overrides);
  const auto classes = base.section("Arch").section("Head").get<std::int64_t>("class_num");
  std::vector<std::string> common;
  for (const auto& entry : file["Common"])
    common.push_back(entry.first.as<std::string>() + "=" + flow(entry.second, classes));
  const YAML::Node neck = file["Common"]["Arch.Neck"];
  // FC's feature has class_num values, BNNeck's as many as what it normalises.
  const YAML::Node features = neck["class_num"] ? neck["class_num"] : neck["num_features"];
  if (!features)
    throw kindred::ConfigError(kindred::text(options.methods.string(),
                                             ": Common.Arch.Neck needs class_num or num_features, "
                                             "the feature size of all methods"));
  std::vector<Method> methods;
  for (const auto& entry : file["Methods"]) {
    Method m{entry["name"].as<std::string>(), common};
    if (!options.only.empty() &&
        std::find(options.only.begin(), options.only.end(), m.name) == options.only.end())
      continue;
    YAML::Node head = entry["Head"] ? YAML::Clone(entry["Head"]) : YAML::Node();
    if (!head["name"]) head["name"] = "FC";  // of a loss that does not look at logits
    head["embedding_size"] = features.as<std::int64_t>();
    head["class_num"] = classes;
    m.overrides.push_back("Arch.Head=" + flow(head, classes));
    m.overrides.push_back("Loss.Train=" + flow(entry["Loss"], classes));
    methods.push_back(std::move(m));
  }
  for (const std::string& name : options.only)
    if (std::none_of(methods.begin(), methods.end(),
                     [&](const Method& m) { return m.name == name; }))
      throw kindred::ConfigError(
          kindred::text(options.methods.string(), " has no method named ", name));
  return methods;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Seconds that a training step takes on made-up images: the fastest of some, since whatever else
/// runs on the machine only ever slows one down.
double seconds_of_step(const Experiment& experiment, std::int64_t batch) {
  constexpr std::int64_t per_class = 4;  // every loss wants positives
  constexpr std::uint64_t steps = 25;
  Model model = experiment.make_model();
  auto session = model.train_session({.activations = experiment.activations()});
  const auto size = experiment.image_size();
  const kindred::Shape shape{batch, size.height, size.width, 3};
  kindred::RandomSequence random({1, 0, 0});
  std::vector<float> images(static_cast<std::size_t>(shape.size()));
  for (float& v : images) v = static_cast<float>(random.uniform(-1, 1));
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < batch; ++i) labels.push_back(i / per_class % model.class_num());
  double fastest = std::numeric_limits<double>::infinity();
  for (std::uint64_t step = 0; step < steps; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    session.zero_gradients();
    session.forward_backward({images.data(), shape}, labels, step);
    fastest = std::min(fastest, seconds_since(begin));
  }
  return fastest;
}

/// How long a method trains: whole epochs nearest to the budget.
struct Budget {
  std::int64_t epochs = 0;
  double seconds = 0;  ///< by the time of a step
};

Budget budget_of(const Method& method, const Options& options) {
  std::vector<std::string> overrides = options.overrides;
  overrides.insert(overrides.end(), method.overrides.begin(), method.overrides.end());
  const auto batch = kindred::config::Section::load(options.config, overrides)
                         .section("DataLoader")
                         .section("Train")
                         .section("sampler")
                         .get<std::int64_t>("batch_size");
  const Experiment experiment(options.config, overrides);
  const double epoch = seconds_of_step(experiment, batch) *
                       static_cast<double>(experiment.train_loader()->batches_in(0));
  const auto epochs = std::max<std::int64_t>(1, std::llround(options.seconds / epoch));
  return {epochs, epoch * static_cast<double>(epochs)};
}

Outcome run(const Method& method, const Options& options, const Budget& budget,
            std::uint64_t seed) {
  std::vector<std::string> overrides = options.overrides;
  overrides.insert(overrides.end(), method.overrides.begin(), method.overrides.end());
  for (const std::string& o :
       {fmt::format("Global.seed={}", seed),
        fmt::format("Global.epochs={}", std::max<std::int64_t>(1, budget.epochs)),
        std::string("Global.eval_during_train=false"),
        fmt::format("Global.output_dir={}", (options.out / method.name).string())})
    overrides.push_back(o);
  const Experiment experiment(options.config, overrides);
  Model model = experiment.make_model();
  Outcome outcome{.seconds = budget.seconds};
  if (budget.epochs > 0) outcome.steps = experiment.train(model, false).steps;
  auto evaluation = experiment.evaluation();
  auto session = model.session({.activations = experiment.evaluation_activations()});
  const auto result = evaluation(features_of(session));
  outcome.recall = result.recall_of(1);
  outcome.map_at_r = result.map_at_r;
  return outcome;
}

void write(const std::filesystem::path& path, const std::string& words) {
  kindred::io::AtomicFile file(path);
  file.write(words);
  file.commit();
}

std::string table(std::vector<Row> rows, const std::string& conditions) {
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    if (a.outcomes.empty() || b.outcomes.empty()) return b.outcomes.empty() && !a.outcomes.empty();
    return a.map_at_r().mean > b.map_at_r().mean;
  });
  std::string out = "| method | Recall@1 | MAP@R | steps | seconds |\n|---|---:|---:|---:|---:|\n";
  for (const Row& row : rows) {
    if (row.outcomes.empty()) {
      out += fmt::format("| {} | failed: {} | | | |\n", row.name, row.failure);
      continue;
    }
    const Interval recall = row.recall(), map = row.map_at_r();
    const Interval seconds = row.interval([](const Outcome& o) { return o.seconds; });
    const auto with_half = [](const Interval& i) {
      return std::isnan(i.half) ? fmt::format("{:.3f}", i.mean)
                                : fmt::format("{:.3f} ± {:.3f}", i.mean, i.half);
    };
    out += fmt::format("| {}{} | {} | {} | {} | {:.1f} |\n", row.name,
                       row.failure.empty() ? "" : " (a seed failed: " + row.failure + ")",
                       with_half(recall), with_half(map), row.outcomes.front().steps, seconds.mean);
  }
  return out + "\n" + conditions + "\n";
}

/// MAP@R of every method with its interval, best first.
std::string plot(std::vector<Row> rows) {
  rows.erase(
      std::remove_if(rows.begin(), rows.end(), [](const Row& r) { return r.outcomes.empty(); }),
      rows.end());
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return a.map_at_r().mean > b.map_at_r().mean;
  });
  constexpr double left = 190, width = 520, line = 20, top = 30;
  const double height = top + line * static_cast<double>(rows.size()) + 30;
  const auto x = [](double v) { return left + width * std::clamp(v, 0.0, 1.0); };
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
      "<text x=\"{}\" y=\"18\" fill=\"#1d2129\">MAP@R on unseen classes, mean and 95% interval"
      "</text>\n",
      left + width + 30, height, left);
  for (int tick = 0; tick <= 10; ++tick)
    out += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"#e3e0d8\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\" fill=\"#5d6675\">{4:.1f}</text>\n",
        x(tick / 10.0), top, height - 25, height - 10, tick / 10.0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Interval map = rows[i].map_at_r();
    const double y = top + line * (static_cast<double>(i) + 0.6);
    out += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\" fill=\"#1d2129\">{}</text>",
                       left - 10, y + 4, rows[i].name);
    if (!std::isnan(map.half))
      out += fmt::format(
          "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" "
          "stroke=\"#1f5fc4\" stroke-width=\"2\"/>",
          x(map.mean - map.half), x(map.mean + map.half), y, y);
    out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"#1f5fc4\"/>\n",
                       x(map.mean), y);
  }
  return out + "</svg>\n";
}

}  // namespace

void methods(const Options& options) {
  const std::vector<Method> all = read_methods(options);
  std::filesystem::create_directories(options.out);
  const std::string conditions = fmt::format(
      "{} seeds; whole epochs nearest to {:.0f} s of training by the time of a step; test classes "
      "unseen in training, the query's own image left out, full ranking; settings of the papers, "
      "not tuned. Intervals: 95 %, Student's t over seeds. Start: what every method begins from.",
      options.seeds, options.seconds);
  std::vector<Row> rows;
  const auto attempt = [&](Row& row, const Method& method, const Budget& budget, int seed) {
    try {
      row.outcomes.push_back(run(method, options, budget, 42 + static_cast<std::uint64_t>(seed)));
      const Outcome& o = row.outcomes.back();
      fmt::print("{} seed {}: Recall@1 {:.4f}, MAP@R {:.4f}, {} steps, {:.1f} s\n", row.name, seed,
                 o.recall, o.map_at_r, o.steps, o.seconds);
    } catch (const std::exception& e) {
      row.failure = e.what();
      fmt::print("{} seed {}: failed: {}\n", row.name, seed, row.failure);
    }
    std::fflush(stdout);
  };
  const auto report = [&] {  // after every run: a killed comparison leaves what it has
    write(options.out / "methods.md", table(rows, conditions));
    write(options.out / "methods.svg", plot(rows));
  };
  std::vector<std::optional<Budget>> budgets;
  rows.push_back({"(start)", {}, {}});
  for (const Method& method : all) {
    rows.push_back({method.name, {}, {}});
    try {
      budgets.push_back(budget_of(method, options));
    } catch (const std::exception& e) {
      budgets.emplace_back();
      rows.back().failure = e.what();
      fmt::print("{}: failed: {}\n", method.name, e.what());
    }
  }
  // Seed by seed, so that what a killed comparison leaves has as many runs of every method.
  for (int seed = 0; seed < options.seeds; ++seed) {
    attempt(rows.front(), all.front(), {}, seed);
    for (std::size_t m = 0; m < all.size(); ++m) {
      if (!budgets[m]) continue;
      attempt(rows[m + 1], all[m], *budgets[m], seed);
      report();
    }
  }
  report();
  fmt::print("\n{}\n", table(rows, conditions));
  if (std::any_of(rows.begin(), rows.end(), [](const Row& r) { return !r.failure.empty(); }))
    throw kindred::Error("not every method could be trained; see the table");
}

}  // namespace rec
