#include "everything.hpp"

#ifdef KINDRED_HAS_CONFIG
// Every neck, a head and the losses that are known without more: their code is made here, too.
template class kindred::config::BasicExperiment<>;
#endif

double from_b() { return first_parameter(); }
