#pragma once
// Parts of a model with their own optimizer and learning rate.

#include <string>
#include <vector>

#include <kindred/core/parameters.hpp>
#include <kindred/lr/schedule.hpp>
#include <kindred/optim/optimizer.hpp>

namespace kindred::train {

/// The parameters of `scope` with their optimizer and schedule. Source: the list form of the
/// section Optimizer of PaddleClas, ppcls/optimizer/__init__.py.
template <class Optimizer = optim::AnyOptimizer, class Schedule = lr::AnySchedule>
struct ParameterGroup {
  /// "all"; "RecModel", all but the losses; "backbone", "neck", "head", "loss"; the name of a loss
  /// ("CenterLoss"); or the beginning of names up to a dot ("backbone.blocks6").
  std::string scope = "all";
  Optimizer optimizer;
  Schedule schedule;
};

/// Whether a parameter belongs to `scope`, see ParameterGroup.
inline bool in_scope(const ParameterInfo& p, const std::string& scope) {
  if (scope == "all") return true;
  if (scope == "RecModel") return !p.name.starts_with("loss.");
  return (!p.loss.empty() && p.loss == scope) || p.name == scope || p.name.starts_with(scope + ".");
}

/// Throws ConfigError unless every parameter that trains is in exactly one of the scopes and every
/// scope has one. (In PaddleClas a parameter in none is silently not trained, in two it is trained
/// twice.)
inline void check_scopes(const ParameterTable& table, const std::vector<std::string>& scopes) {
  std::vector<bool> used(scopes.size(), false);
  for (const ParameterInfo& p : table.entries()) {
    if (p.kind == ParameterKind::buffer || p.lr_multiplier == 0) continue;
    const std::string* first = nullptr;
    for (std::size_t i = 0; i < scopes.size(); ++i) {
      if (!in_scope(p, scopes[i])) continue;
      if (first != nullptr)
        throw ConfigError(text("Optimizer: ", p.name, " is in the scope ", *first, " and in ",
                               scopes[i], "; make them disjoint"));
      first = &scopes[i];
      used[i] = true;
    }
    if (first == nullptr)
      throw ConfigError(text("Optimizer: no scope has ", p.name,
                             "; add one, with the learning rate 0 if it must not train"));
  }
  for (std::size_t i = 0; i < scopes.size(); ++i)
    if (!used[i])
      throw ConfigError(text("Optimizer: no parameter is in the scope \"", scopes[i],
                             "\"; there are all, RecModel, backbone, neck, head, loss, names of "
                             "losses with parameters, and beginnings of parameters' names"));
}

}  // namespace kindred::train
