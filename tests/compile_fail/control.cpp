// expects: nothing
#include "parts.hpp"

static_assert(parts::size<parts::Backbone, parts::Neck, parts::Head, parts::Loss> > 0);
