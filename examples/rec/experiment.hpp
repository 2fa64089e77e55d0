#pragma once
// An experiment from YAML with any components, compiled once, in components_experiment.cpp.

#include "components.hpp"
// After components.hpp:
#include <kindred/config/experiment.hpp>

#ifndef REC_EXPERIMENT
#define REC_EXPERIMENT extern
#endif

namespace rec {
using Experiment = kindred::config::BasicExperiment<Device>;
using Model = Experiment::Model;
}  // namespace rec

namespace kindred {
REC_EXPERIMENT template class RecModel<rec::AnyLayer, rec::AnyLayer, rec::AnyHead, rec::AnyLosses,
                                       rec::Device>;
REC_EXPERIMENT template class Session<rec::Model>;
REC_EXPERIMENT template class TrainSession<rec::Model>;
REC_EXPERIMENT template class config::BasicExperiment<rec::Device>;
}  // namespace kindred
