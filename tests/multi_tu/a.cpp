#include "everything.hpp"

double from_a() { return first_parameter(); }

int main() { return from_a() == from_b() && from_a() != 0 ? 0 : 1; }
