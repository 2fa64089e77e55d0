#include "everything.hpp"

double from_b() { return first_parameter(); }
