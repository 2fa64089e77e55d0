// expects: Head needs a Config aggregate and a constructor (const Config&, const Scope&)
#include "parts.hpp"

struct Plain {};

static_assert(parts::size<parts::Backbone, parts::Neck, Plain, parts::Loss> > 0);
