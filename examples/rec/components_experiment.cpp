#define REC_EXPERIMENT
#include "experiment.hpp"
