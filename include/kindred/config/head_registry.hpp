#pragma once
// The heads that a YAML file may name. A program pays for the compilation of those it registers.

#include <functional>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <utility>

#include <kindred/config/section.hpp>
#include <kindred/core/context.hpp>
#include <kindred/model/any.hpp>

namespace kindred::config {

template <class Device>
using AnyHeadOn = any::Head<typename Device::Context, float>;
using AnyHead = AnyHeadOn<Cpu>;

/// Reads the settings of one head, all but unknown keys.
template <class Device>
using MakeHeadOn = std::function<typename AnyHeadOn<Device>::Config(const Section&)>;
using MakeHead = MakeHeadOn<Cpu>;

namespace detail {

/// One of `values` by its name_of, or `fallback` if the key is absent.
template <class E>
E named(const Section& s, const std::string& key, E fallback, std::initializer_list<E> values) {
  const auto name = s.get<std::string>(key, name_of(fallback));
  std::string all;
  for (const E value : values) {
    if (name == name_of(value)) return value;
    all += (all.empty() ? "" : ", ") + std::string(name_of(value));
  }
  throw ConfigError(text(s.where(key), ": \"", name, "\" is none of ", all));
}

template <class Device = Cpu>
std::map<std::string, MakeHeadOn<Device>>& head_registry() {
  static std::map<std::string, MakeHeadOn<Device>> heads;
  return heads;
}

}  // namespace detail

/// Makes a head known to Arch.Head under `name`, on one device; the library's own are registered by
/// config/heads.hpp. A later head of the same name replaces the earlier one. To be called before
/// files are read, from one thread.
template <class Device = Cpu>
void register_head(const std::string& name, MakeHeadOn<Device> make) {
  detail::head_registry<Device>()[name] = std::move(make);
}

/// The registered head `name` with the settings `s`. Throws ConfigError that lists the registered
/// names and `built_in` if there is none.
template <class Device = Cpu>
typename AnyHeadOn<Device>::Config registered_head(const std::string& name, const Section& s,
                                                   std::set<std::string> built_in = {}) {
  const auto& registry = detail::head_registry<Device>();
  const auto found = registry.find(name);
  if (found != registry.end()) return found->second(s);
  for (const auto& [known, make] : registry) built_in.insert(known);
  if (registry.empty())
    built_in.insert("(more with #include <kindred/config/heads.hpp> in one file of the program)");
  s.unknown_name(name, built_in);
}

}  // namespace kindred::config
