// expects: a head stands in the slot of the Loss
#include <kindred/head/arc_margin.hpp>

#include "parts.hpp"

static_assert(parts::size<parts::Backbone, parts::Neck, parts::Head, kindred::head::ArcMargin> > 0);
