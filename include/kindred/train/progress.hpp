#pragma once
// What a training run says while it goes: a progress bar, log lines, and metrics as JSON lines.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <kindred/core/error.hpp>
#include <kindred/io/atomic_file.hpp>
#include <kindred/loss/loss.hpp>

namespace kindred::train {

/// A named number of an evaluation: {"recall1", 0.86}.
struct Metric {
  std::string name;
  double value = 0;
};

namespace detail {

inline std::string format(const char* pattern, auto... values) {
  char buffer[160];
  const int n = std::snprintf(buffer, sizeof buffer, pattern, values...);
  return std::string(buffer, static_cast<std::size_t>(std::min<int>(n, sizeof buffer - 1)));
}

inline std::string duration(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  return format("%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

}  // namespace detail

/// The learning rate of one group of parameters.
struct Rate {
  std::string scope;
  const char* schedule = "";
  double lr = 0;
};

/// State of a run at one step, for logs.
struct StepReport {
  std::int64_t epoch = 0, epochs = 0;   ///< counted from 1
  std::int64_t batch = 0, batches = 0;  ///< in the epoch, counted from 1
  std::int64_t step = 0;                ///< optimizer steps since the start of training
  std::vector<Rate> rates;              ///< of every group, at least one
  double images_per_second = 0;
  double reader_seconds = 0;  ///< spent waiting for data, per batch
  double eta_seconds = 0;
  std::vector<loss::LossReport> losses;  ///< means since the last report

  double loss() const {
    double sum = 0;
    for (const auto& l : losses) sum += l.value;
    return sum;
  }
};

/// Writes to the terminal, OUTPUT/train.log and OUTPUT/metrics.jsonl. Lines of metrics.jsonl:
///   {"event":"step","epoch","step","loss","lr","images_per_second","reader_seconds",<loss>: value}
///   where "lr" is of the first group of parameters and "lr(<scope>)" of the others
///   {"event":"eval","epoch","step",<metric>: value}
class Journal {
 public:
  /// Continues the journal of a run resumed after `epoch` whole epochs and `step` steps: later
  /// lines are dropped, since the run writes them again. A new run (step 0) starts it anew.
  Journal(const std::filesystem::path& output, std::int64_t epoch, std::int64_t step, bool quiet)
      : metrics_path_(output / "metrics.jsonl"),
        quiet_(quiet),
        terminal_(!quiet && isatty(STDERR_FILENO) != 0) {
    keep_until(epoch, step);
    metrics_.open(metrics_path_, std::ios::app);
    log_.open(output / "train.log", step > 0 ? std::ios::app : std::ios::trunc);
    if (!metrics_ || !log_)
      throw FileError(text("cannot write metrics.jsonl and train.log in ", output.string(),
                           "; is the folder writable?"));
  }
  ~Journal() { clear_bar(); }
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  void step(const StepReport& r) {
    nlohmann::json json = {{"event", "step"},
                           {"epoch", r.epoch},
                           {"step", r.step},
                           {"loss", r.loss()},
                           {"lr", r.rates.at(0).lr},
                           {"images_per_second", r.images_per_second},
                           {"reader_seconds", r.reader_seconds}};
    std::string rates = detail::format("lr(%s): %.8f, ", r.rates[0].schedule, r.rates[0].lr);
    for (std::size_t i = 1; i < r.rates.size(); ++i) {
      const Rate& rate = r.rates[i];
      json["lr(" + rate.scope + ")"] = rate.lr;
      rates += detail::format("lr(%s, %s): %.8f, ", rate.scope.c_str(), rate.schedule, rate.lr);
    }
    std::string losses;
    for (const auto& l : r.losses) {
      json[l.name] = l.value;
      losses += detail::format("%s: %.5f, ", l.name, l.value);
    }
    record(json);
    line(text("[Train][Epoch ", r.epoch, "/", r.epochs, "][Iter: ", r.batch, "/", r.batches, "]",
              rates, losses,
              detail::format("loss: %.5f, reader_cost: %.5f s, ips: %.2f images/s, eta: %s",
                             r.loss(), r.reader_seconds, r.images_per_second,
                             detail::duration(r.eta_seconds).c_str())));
  }

  void evaluation(std::int64_t epoch, std::int64_t step, const std::vector<Metric>& metrics,
                  double best) {
    nlohmann::json json = {{"event", "eval"}, {"epoch", epoch}, {"step", step}};
    std::string values;
    for (const Metric& m : metrics) {
      json[m.name] = m.value;
      values += detail::format("%s: %.5f, ", m.name.c_str(), m.value);
    }
    record(json);
    line(text("[Eval][Epoch ", epoch, "]", values, detail::format("best metric: %.5f", best)));
  }

  void line(const std::string& message) {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    char stamp[32];
    std::strftime(stamp, sizeof stamp, "[%Y/%m/%d %H:%M:%S] ", &local);
    log_ << stamp << message << std::endl;
    if (!log_) throw FileError("cannot write train.log; is the disk full?");
    if (quiet_) return;
    clear_bar();
    std::fprintf(stderr, "%s%s\n", stamp, message.c_str());
  }

  /// Redraws the bar, on a terminal only and at most ten times a second.
  void bar(std::int64_t epoch, std::int64_t epochs, std::int64_t batch, std::int64_t batches,
           double images_per_second, double eta_seconds) {
    if (!terminal_) return;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_bar_ < std::chrono::milliseconds(100)) return;
    last_bar_ = now;
    constexpr std::int64_t width = 30;
    const std::int64_t full = batches > 0 ? width * batch / batches : 0;
    std::string cells(static_cast<std::size_t>(full), '=');
    cells.resize(static_cast<std::size_t>(width), ' ');
    std::fprintf(stderr, "\r\033[Kepoch %ld/%ld [%s] %ld/%ld  %.1f images/s  eta %s",
                 static_cast<long>(epoch), static_cast<long>(epochs), cells.c_str(),
                 static_cast<long>(batch), static_cast<long>(batches), images_per_second,
                 detail::duration(eta_seconds).c_str());
    std::fflush(stderr);
    bar_shown_ = true;
  }

 private:
  void clear_bar() {
    if (bar_shown_) std::fprintf(stderr, "\r\033[K");
    bar_shown_ = false;
  }
  void record(const nlohmann::json& json) {
    metrics_ << json.dump() << std::endl;
    if (!metrics_)
      throw FileError(text("cannot write ", metrics_path_.string(), "; is the disk full?"));
  }

  void keep_until(std::int64_t epoch, std::int64_t step) const {
    std::string kept;
    if (step > 0) {
      std::ifstream in(metrics_path_);
      for (std::string row; std::getline(in, row);) {
        const auto json =
            nlohmann::json::parse(row, nullptr, false);  // a torn last line is dropped
        if (keeps(json, epoch, step)) kept += row + "\n";
      }
    }
    io::AtomicFile file(metrics_path_);
    file.write(kept.data(), kept.size());
    file.commit();
  }

  /// An evaluation is written at the last step of its epoch, before the epoch counts as done.
  static bool keeps(const nlohmann::json& json, std::int64_t epoch, std::int64_t step) {
    const auto whole = [&](const char* key, std::int64_t most) {
      return json.contains(key) && json[key].is_number_integer() &&
             json[key].get<std::int64_t>() <= most;
    };
    if (!json.is_object() || !whole("step", step)) return false;
    return json.value("event", nlohmann::json()) != "eval" || whole("epoch", epoch);
  }

  std::filesystem::path metrics_path_;
  std::ofstream metrics_, log_;
  bool quiet_, terminal_, bar_shown_ = false;
  std::chrono::steady_clock::time_point last_bar_{};
};

}  // namespace kindred::train
