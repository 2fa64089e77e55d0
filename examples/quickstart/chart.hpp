#pragma once
// A line chart as inline SVG; colours come from the page's style sheet.

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace kindred::quickstart {

/// & < > " ' as HTML entities.
inline std::string escape(const std::string& plain) {
  std::string escaped;
  for (const char c : plain) switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  return escaped;
}

/// `kind` is a class of the style sheet: line-1, line-2, line-3 or faint.
struct Line {
  std::string name, kind;
  std::vector<std::pair<double, double>> points;
};
/// A horizontal dashed line across the chart.
struct Level {
  std::string name, kind;
  double value = 0;
};

struct Chart {
  std::string title, x_title;
  std::vector<Line> lines;
  std::vector<Level> levels;
  bool unit_range = false;  ///< y from 0 to 1; otherwise from the values
};

/// Round numbers (1, 2 or 5 times a power of ten apart), about `wanted` of them, that enclose
/// [low, high].
inline std::vector<double> ticks(double low, double high, int wanted) {
  if (!(high > low)) high = low + (low == 0 ? 1 : std::abs(low));
  const double raw = (high - low) / wanted;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double ratio = raw / power;
  const double step = power * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
  std::vector<double> result;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double k = first; k <= last; ++k) result.push_back(k * step);
  return result;
}

/// The averages of at most `groups` runs of neighbouring points: the trend of a noisy curve.
inline std::vector<std::pair<double, double>> averaged(
    const std::vector<std::pair<double, double>>& points, std::size_t groups) {
  if (points.size() <= groups) return points;
  std::vector<std::pair<double, double>> result;
  for (std::size_t g = 0; g < groups; ++g) {
    const std::size_t begin = g * points.size() / groups, end = (g + 1) * points.size() / groups;
    double x = 0, y = 0;
    for (std::size_t i = begin; i < end; ++i) x += points[i].first, y += points[i].second;
    const auto n = static_cast<double>(end - begin);
    result.emplace_back(x / n, y / n);
  }
  return result;
}

/// Draws one chart in a coordinate system of 480 x 260.
class ChartWriter {
 public:
  explicit ChartWriter(const Chart& chart) : chart_(chart) {
    double low_x = std::numeric_limits<double>::infinity(), low_y = low_x;
    double high_x = -low_x, high_y = -low_x;
    for (const Line& line : chart.lines)
      for (const auto& [x, y] : line.points) {
        low_x = std::min(low_x, x), high_x = std::max(high_x, x);
        low_y = std::min(low_y, y), high_y = std::max(high_y, y);
      }
    for (const Level& level : chart.levels)
      low_y = std::min(low_y, level.value), high_y = std::max(high_y, level.value);
    if (chart.unit_range) low_y = 0, high_y = 1;
    x_ticks_ = ticks(low_x, high_x, 6);
    y_ticks_ = ticks(low_y, high_y, 5);
    low_x_ = low_x;
    high_x_ = high_x > low_x ? high_x : low_x + 1;
  }

  std::string svg() const {
    std::string out = fmt::format("<figure class=\"chart\"><figcaption>{}<span class=\"legend\">",
                                  escape(chart_.title));
    for (const Line& line : chart_.lines)
      if (!line.name.empty()) out += key(line.kind, line.name);
    for (const Level& level : chart_.levels) out += key(level.kind + " dashed", level.name);
    out += fmt::format(
        "</span></figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", width,
        height, escape(chart_.title));
    axes(out);
    for (const Level& level : chart_.levels)
      out +=
          fmt::format("<line class=\"{} dashed\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
                      level.kind, left, width - right, y_of(level.value), y_of(level.value));
    for (const Line& line : chart_.lines) curve(out, line);
    return out + "</svg></figure>\n";
  }

 private:
  static constexpr double width = 480, height = 260, left = 44, right = 14, top = 12, bottom = 34;

  static std::string key(const std::string& kind, const std::string& name) {
    return fmt::format(
        "<span class=\"key\"><svg viewBox=\"0 0 22 8\" aria-hidden=\"true\"><line class=\"{}\" "
        "x1=\"1\" x2=\"21\" y1=\"4\" y2=\"4\"/></svg>{}</span>",
        kind, escape(name));
  }
  double x_of(double x) const {
    return left + (x - low_x_) / (high_x_ - low_x_) * (width - left - right);
  }
  double y_of(double y) const {
    const double share = (y - y_ticks_.front()) / (y_ticks_.back() - y_ticks_.front());
    return height - bottom - share * (height - top - bottom);
  }

  void axes(std::string& out) const {
    for (const double y : y_ticks_) {
      out += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>",
                         left, width - right, y_of(y), y_of(y));
      out += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", left - 8,
                         y_of(y) + 4, number(y));
    }
    for (const double x : x_ticks_)
      if (x >= low_x_ && x <= high_x_)
        out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>", x_of(x),
                           height - bottom + 16, number(x));
    out += fmt::format("<text class=\"unit\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                       width - right, height - 3, escape(chart_.x_title));
  }

  void curve(std::string& out, const Line& line) const {
    if (line.points.empty()) return;
    out += fmt::format("<polyline class=\"{}\" points=\"", line.kind);
    for (const auto& [x, y] : line.points) out += fmt::format("{:.1f},{:.1f} ", x_of(x), y_of(y));
    out += "\"/>";
    if (line.kind == "faint") return;
    const auto [x, y] = line.points.back();
    out += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"/>", line.kind,
                       x_of(x), y_of(y));
  }

  // Six digits: products like 3 * 0.1 carry a wrong last one.
  static std::string number(double value) {
    return fmt::format("{:.6g}", std::abs(value) < 1e-9 ? 0.0 : value);
  }

  const Chart& chart_;
  std::vector<double> x_ticks_, y_ticks_;
  double low_x_ = 0, high_x_ = 1;
};

/// Empty text for a chart without points.
inline std::string chart_svg(const Chart& chart) {
  const bool any =
      std::ranges::any_of(chart.lines, [](const Line& l) { return !l.points.empty(); });
  return any ? ChartWriter(chart).svg() : "";
}

}  // namespace kindred::quickstart
