#pragma once
// A YAML file read strictly: a missing, unknown or ill-typed key is an error that names its place.

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <yaml-cpp/yaml.h>

#include <kindred/core/error.hpp>

namespace kindred::config {

namespace detail {

/// Levenshtein distance, to suggest the key that was meant.
inline std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

/// " (did you mean x?)" for the nearest of `known`, or nothing.
inline std::string suggestion(const std::string& word, const std::set<std::string>& known) {
  std::size_t nearest = std::max<std::size_t>(2, word.size() / 3) + 1;
  std::string best;
  for (const std::string& k : known)
    if (const std::size_t d = edit_distance(word, k); d < nearest) {
      nearest = d;
      best = k;
    }
  return best.empty() ? std::string() : " (did you mean " + best + "?)";
}

}  // namespace detail

/// A mapping of the file with the path that leads to it. Every key that is asked for is remembered;
/// finish() throws if the file has others, so that a misspelt setting is never ignored.
class Section {
 public:
  Section(const YAML::Node& node, std::string path) : node_(node), path_(std::move(path)) {
    if (node_.IsDefined() && !node_.IsNull() && !node_.IsMap())
      throw ConfigError(
          text(path_.empty() ? "the file" : path_, ": expected a mapping of keys to values"));
    if (!node_.IsMap()) return;
    std::set<std::string> seen;
    for (const auto& entry : node_) {
      if (!entry.first.IsScalar())
        throw ConfigError(text(path_.empty() ? "the file" : path_, ": a key is not a word"));
      if (!seen.insert(entry.first.Scalar()).second)
        throw ConfigError(text(where(entry.first.Scalar()), ": the key is there twice"));
    }
  }

  /// Reads `file`; each override is "a.b.0.c=value", as PaddleClas' -o. Keys on the way must exist,
  /// the last one may be new.
  static Section load(const std::filesystem::path& file,
                      const std::vector<std::string>& overrides) {
    YAML::Node root;
    try {
      root = YAML::LoadFile(file.string());
    } catch (const YAML::BadFile&) {
      throw FileError(text("cannot read the configuration ", file.string()));
    } catch (const YAML::Exception& e) {
      throw ConfigError(
          text(file.string(), ':', e.mark.line + 1, ':', e.mark.column + 1, ": ", e.msg));
    }
    for (const std::string& o : overrides) override_value(root, o);
    return Section(root, "");
  }

  bool has(const std::string& key) const {
    known_->insert(key);
    return node_.IsMap() && node_[key].IsDefined() && !node_[key].IsNull();
  }
  std::string where(const std::string& key) const {
    return path_.empty() ? key : path_ + "." + key;
  }
  const std::string& path() const { return path_; }

  /// A value that must be there.
  template <class T>
  T get(const std::string& key) const {
    if (!has(key)) throw ConfigError(text(where(key), " is missing"));
    return convert<T>(key);
  }
  /// A value, or `fallback` if the key is absent or null.
  template <class T>
  T get(const std::string& key, const T& fallback) const {
    return has(key) ? convert<T>(key) : fallback;
  }
  /// A key that is understood and has no effect here, such as a setting of Python's loader.
  void accept(const std::string& key) const { known_->insert(key); }

  Section section(const std::string& key) const {
    if (!has(key)) throw ConfigError(text(where(key), " is missing"));
    return Section(node_[key], where(key));
  }
  /// PaddleClas' lists of named parts, "- Name: {settings}": calls f(name, settings) for each.
  template <class F>
  void for_each(const std::string& key, F&& f) const {
    for_each_unfinished(key, [&](const std::string& name, const Section& settings) {
      f(name, settings);
      settings.finish();
    });
  }
  /// The same without finish(), for settings that are read later.
  template <class F>
  void for_each_unfinished(const std::string& key, F&& f) const {
    if (!has(key)) throw ConfigError(text(where(key), " is missing"));
    const YAML::Node list = node_[key];
    if (!list.IsSequence())
      throw ConfigError(text(where(key), ": expected a list of \"- Name: {settings}\""));
    for (std::size_t i = 0; i < list.size(); ++i) {
      const std::string at = text(where(key), '.', i);
      if (!list[i].IsMap() || list[i].size() != 1 || !list[i].begin()->first.IsScalar())
        throw ConfigError(text(at, ": expected one \"Name: {settings}\""));
      const auto name = list[i].begin()->first.as<std::string>();
      f(name, Section(list[i].begin()->second, at + "." + name));
    }
  }
  /// A list of mappings: calls f(settings) for each.
  template <class F>
  void for_each_mapping(const std::string& key, F&& f) const {
    if (!has(key)) throw ConfigError(text(where(key), " is missing"));
    const YAML::Node list = node_[key];
    if (!list.IsSequence() || list.size() == 0)
      throw ConfigError(text(where(key), ": expected a list of mappings"));
    for (std::size_t i = 0; i < list.size(); ++i) {
      const Section settings(list[i], text(where(key), '.', i));
      f(settings);
      settings.finish();
    }
  }
  bool is_list(const std::string& key) const { return has(key) && node_[key].IsSequence(); }

  /// Throws ConfigError if the file has keys here that nobody asked for.
  void finish() const {
    if (!node_.IsMap()) return;
    for (const auto& entry : node_) {
      const std::string& key = entry.first.Scalar();
      if (!known_->contains(key))
        throw ConfigError(text(where(key), ": unknown key", detail::suggestion(key, *known_)));
    }
  }
  /// Throws ConfigError: `name` is none of `known`.
  [[noreturn]] void unknown_name(const std::string& name,
                                 const std::set<std::string>& known) const {
    std::string all;
    for (const std::string& k : known) all += (all.empty() ? "" : ", ") + k;
    throw ConfigError(
        text(path_, ": there is no ", name, detail::suggestion(name, known), "; known: ", all));
  }

 private:
  template <class T>
  T convert(const std::string& key) const {
    try {
      return node_[key].as<T>();
    } catch (const YAML::Exception&) {
      const YAML::Node value = node_[key];
      throw ConfigError(
          text(where(key), ": ",
               value.IsScalar() ? "\"" + value.Scalar() + "\" is" : "a list or mapping is", " not ",
               kind<T>()));
    }
  }
  template <class T>
  static const char* kind() {
    if constexpr (std::is_same_v<T, bool>)
      return "true or false";
    else if constexpr (std::is_integral_v<T>)
      return "a whole number";
    else if constexpr (std::is_floating_point_v<T>)
      return "a number";
    else if constexpr (std::is_same_v<T, std::string>)
      return "a word";
    else
      return "a list of the right kind";
  }

  static YAML::Node value_of(const std::string& assignment, std::size_t begin) {
    try {
      return YAML::Load(assignment.substr(begin));
    } catch (const YAML::Exception& e) {
      throw ConfigError(text("-o ", assignment, ": ", e.msg));
    }
  }

  static void override_value(YAML::Node root, const std::string& assignment) {
    const auto equals = assignment.find('=');
    if (equals == std::string::npos || equals == 0)
      throw ConfigError(text("-o ", assignment, ": expected a.b.c=value"));
    const std::string keys = assignment.substr(0, equals);
    YAML::Node node = root;
    std::size_t begin = 0;
    for (;;) {
      const std::size_t dot = keys.find('.', begin);
      const std::string key = keys.substr(begin, dot - begin);
      const bool index = node.IsSequence();
      const bool number = !key.empty() && key.size() < 9 &&
                          key.find_first_not_of("0123456789") == std::string::npos;
      if (index && (!number || std::stoul(key) >= node.size()))
        throw ConfigError(text("-o ", assignment, ": \"", key, "\" is not an index of the list"));
      if (!index && !node.IsMap())
        throw ConfigError(text("-o ", assignment, ": nothing can stand below \"",
                               keys.substr(0, begin == 0 ? 0 : begin - 1), "\""));
      if (dot == std::string::npos) {
        const YAML::Node value = value_of(assignment, equals + 1);
        if (index)
          node[std::stoul(key)] = value;
        else
          node[key] = value;
        return;
      }
      const YAML::Node inner = index ? node[std::stoul(key)] : node[key];
      if (!inner.IsDefined())
        throw ConfigError(text("-o ", assignment, ": there is no ", keys.substr(0, dot)));
      node.reset(inner);
      begin = dot + 1;
    }
  }

  YAML::Node node_;
  std::string path_;
  std::shared_ptr<std::set<std::string>> known_ = std::make_shared<std::set<std::string>>();
};

namespace detail {

/// One of `known` by its name.
template <class E>
E word(const Section& s, const std::string& key, const std::map<std::string, E>& known,
       E fallback) {
  if (!s.has(key)) return fallback;
  const auto name = s.get<std::string>(key);
  const auto found = known.find(name);
  if (found != known.end()) return found->second;
  std::string all;
  for (const auto& [one, value] : known) all += (all.empty() ? "" : ", ") + one;
  throw ConfigError(text(s.where(key), ": ", name, " is none of ", all));
}

/// A list of exactly N values.
template <class T, std::size_t N>
std::array<T, N> array(const Section& s, const std::string& key, const std::array<T, N>& fallback) {
  if (!s.has(key)) return fallback;
  const auto values = s.get<std::vector<T>>(key);
  if (values.size() != N)
    throw ConfigError(text(s.where(key), ": expected ", N, " values, got ", values.size()));
  std::array<T, N> out{};
  std::copy(values.begin(), values.end(), out.begin());
  return out;
}

}  // namespace detail

}  // namespace kindred::config
