#pragma once
// The margin heads by their names in YAML, with the settings of their Config. To be included in one
// file of a program that reads models from YAML: it registers them all, and takes longer to compile
// than the rest of the configuration. FC and ArcMargin are known without it.

#include <kindred/config/head_entries.hpp>
#include <kindred/kernels/cpu/margin_softmax.hpp>

namespace kindred::config::detail {

inline const bool margin_heads_registered = register_heads<Cpu>();

}  // namespace kindred::config::detail
