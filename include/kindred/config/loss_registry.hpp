#pragma once
// The losses that a YAML file may name. A program pays for the compilation of those it registers.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

#include <kindred/config/section.hpp>
#include <kindred/core/context.hpp>
#include <kindred/model/any.hpp>

namespace kindred::config {

template <class Device>
using AnyLossesOn = any::Losses<typename Device::Context, float>;
using AnyLosses = AnyLossesOn<Cpu>;

/// Reads the settings of one loss, all but unknown keys, and adds it to a model's.
template <class Device>
using AddLossOn = std::function<void(typename AnyLossesOn<Device>::Config&, const Section&)>;
using AddLoss = AddLossOn<Cpu>;

namespace detail {

template <class Device = Cpu>
std::map<std::string, AddLossOn<Device>>& loss_registry() {
  static std::map<std::string, AddLossOn<Device>> losses;
  return losses;
}

/// The losses on pairs behind a miner: they read the key `miner` of their settings.
template <class Device = Cpu>
std::map<std::string, AddLossOn<Device>>& mined_registry() {
  static std::map<std::string, AddLossOn<Device>> losses;
  return losses;
}

inline loss::FeatureFrom feature_from(const Section& s) {
  const auto name = s.get<std::string>("feature_from", "features");
  if (name == "features") return loss::FeatureFrom::features;
  if (name == "backbone") return loss::FeatureFrom::backbone;
  throw ConfigError(
      text(s.where("feature_from"), ": \"", name, "\" is neither features nor backbone"));
}

}  // namespace detail

/// Makes a loss known to Loss.Train under `name`, on one device; the library's own on features are
/// registered by config/losses.hpp. A later loss of the same name replaces the earlier one. To be
/// called before files are read, from one thread.
template <class Device = Cpu>
void register_loss(const std::string& name, AddLossOn<Device> add) {
  detail::loss_registry<Device>()[name] = std::move(add);
}

/// Adds the registered loss `name` with the settings `s`. Throws ConfigError that lists the
/// registered names and `built_in` if there is none.
template <class Device = Cpu>
void add_registered_loss(typename AnyLossesOn<Device>::Config& losses, const std::string& name,
                         const Section& s, std::set<std::string> built_in = {}) {
  const auto& registry = detail::loss_registry<Device>();
  const auto found = registry.find(name);
  if (found != registry.end()) return found->second(losses, s);
  for (const auto& [known, add] : registry) built_in.insert(known);
  if (registry.empty())
    built_in.insert("(more with #include <kindred/config/losses.hpp> in one file of the program)");
  s.unknown_name(name, built_in);
}

/// Adds the loss `name` behind the miner of the settings' key `miner`. Throws ConfigError that
/// lists the losses that have one.
template <class Device = Cpu>
void add_mined_loss(typename AnyLossesOn<Device>::Config& losses, const std::string& name,
                    const Section& s) {
  const auto& registry = detail::mined_registry<Device>();
  if (const auto found = registry.find(name); found != registry.end())
    return found->second(losses, s);
  std::string known;
  for (const auto& [one, add] : registry) known += (known.empty() ? "" : ", ") + one;
  throw ConfigError(text(s.where("miner"), ": no miner stands before ", name, "; it can before: ",
                         known.empty() ? "(those that #include <kindred/config/miners.hpp> in one "
                                         "file of the program brings)"
                                       : known));
}

}  // namespace kindred::config
